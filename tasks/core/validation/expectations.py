"""Great Expectations over the manifest: what each check found, and Data Docs of the same bytes each time.

Left alone, Data Docs hold the time and time zone of the run, random ids, and a picture from the network.
GX lets a site name its own renderers and views: those at the end of this module leave all that out.
"""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import great_expectations as gx
import pandas as pd
from great_expectations.checkpoint.actions import UpdateDataDocsAction
from great_expectations.core import ExpectationValidationResult, RunIdentifier
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)
from great_expectations.expectations.expectation import Expectation
from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
from great_expectations.render.renderer.site_index_page_renderer import SiteIndexPageRenderer
from great_expectations.render.view.view import DefaultJinjaIndexPageView, DefaultJinjaPageView
from jinja2 import ChoiceLoader, DictLoader

gxe: Any = gx.expectations  # all that a check may hold; GX itself looks at the arguments
SHOWN = 20  # offending pictures that a page names
RUN = RunIdentifier("validate", datetime(1970, 1, 1, tzinfo=UTC))
RESULTS_PAGE = "validations/manifest/validate/19700101T000000.000000Z/data-manifest.html"
SUITE_PAGE = "expectations/manifest.html"


@dataclass(frozen=True)
class Check:
    """One expectation over the manifest."""

    kind: str  # what it finds; several checks may be of one kind
    name: str
    expects: str  # in words for people: "at least 10 readable pictures of each class"
    expectation: Expectation
    remedy: str
    severity: Literal["error", "warning"] = "error"
    details: str = ""  # what to name where single paths don't say it: classes, reasons


@dataclass(frozen=True)
class Outcome:
    """What a check found, in values that JSON can hold."""

    kind: str
    name: str
    severity: Literal["error", "warning"]
    passed: bool
    expected: str
    observed: Any  # where the check looks at single pictures: how many offend
    count: int  # pictures that offend, tolerated ones among them
    paths: tuple[str, ...]  # all of these, in order
    remedy: str
    details: str


def tolerating(count: int, rows: int) -> float:
    """The `mostly` that lets exactly `count` of `rows` rows offend; GX divides the same way."""
    return max(rows - count, 0) / rows


def run(frame: pd.DataFrame, checks: Sequence[Check], site: Path) -> list[Outcome]:
    """Runs all checks as one checkpoint and writes its Data Docs to `site`, a folder not yet there.

    Returns:
        One outcome for each check, in their order.

    Raises:
        RuntimeError: a check could not be computed; GX's words say why.
    """
    checkpoint = _checkpoint(checks, site.absolute())
    rows = frame.sort_values("path", ignore_index=True)
    result = checkpoint.run(batch_parameters={"dataframe": rows}, run_id=RUN)
    shutil.rmtree(site / "static")  # 4 MB of logos, fonts and films that no page shows
    (validation,) = result.run_results.values()
    results: list[Any] = validation.results
    found = {each.expectation_config.meta["check"]: each for each in results}
    return [_outcome(check, found[number]) for number, check in enumerate(checks)]


def _checkpoint(checks: Sequence[Check], site: Path) -> gx.Checkpoint:
    context = gx.get_context(mode="ephemeral", project_config=_config(site))
    asset = context.data_sources.add_pandas("data").add_dataframe_asset("manifest")
    expectations = [_in_our_words(check, number) for number, check in enumerate(checks)]
    validation = gx.ValidationDefinition(
        name="manifest",
        data=asset.add_batch_definition_whole_dataframe("manifest"),
        suite=context.suites.add(gx.ExpectationSuite("manifest", expectations=expectations)),
    )
    checkpoint = gx.Checkpoint(
        name="manifest",
        validation_definitions=[context.validation_definitions.add(validation)],
        actions=[UpdateDataDocsAction(name="docs")],
        result_format={
            "result_format": "COMPLETE",  # less leaves the paths out of Data Docs
            "unexpected_index_column_names": ["path"],
            "partial_unexpected_count": SHOWN,
            "return_unexpected_index_query": False,
        },
    )
    return context.checkpoints.add(checkpoint)


def _in_our_words(check: Check, number: int) -> Expectation:
    """A copy that Data Docs show as ours: GX's own words don't say which rows it looks at."""
    words = html.escape(f"{check.name} ({check.severity}): {check.expects}")  # GX doesn't escape it
    severity = "critical" if check.severity == "error" else "warning"
    update = {"description": words, "notes": check.remedy, "meta": {"check": number}, "severity": severity}
    return check.expectation.copy(update=update)


def _outcome(check: Check, result: ExpectationValidationResult) -> Outcome:
    facts: Any = result.to_json_dict()["result"]
    if not facts:
        raise RuntimeError(f"check {check.name!r} can't be computed: {_why(result.exception_info)}")
    count = facts.get("unexpected_count", 0)
    return Outcome(
        kind=check.kind,
        name=check.name,
        severity=check.severity,
        passed=bool(result.success),
        expected=check.expects,
        observed=facts.get("observed_value", count),
        count=count,
        paths=tuple(row["path"] for row in facts.get("unexpected_index_list") or ()),
        remedy=check.remedy,
        details=check.details,
    )


def _why(exceptions: dict[str, Any]) -> str:
    first = next(iter(exceptions.values()))  # GX files them under each metric that failed
    return str(first["exception_message"] if isinstance(first, dict) else exceptions)


def _config(site: Path) -> DataContextConfig:
    """Everything in memory, but for the one site."""
    docs = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "store_backend": {
            "class_name": "TupleFilesystemStoreBackend",
            "base_directory": str(site).replace("$", r"\$"),  # else GX looks for a variable
        },
        "site_index_builder": {
            "class_name": "DefaultSiteIndexBuilder",
            "renderer": _named(_Index),
            "view": _named(_IndexView),
        },
        "site_section_builders": {
            "expectations": {"view": _named(_View)},
            "validations": {"view": _named(_View), "renderer": _named(_Results)},
        },
    }
    return DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        data_docs_sites={"manifest": docs},
        progress_bars=ProgressBarsConfig(globally=False),
    )


def _named(ours: type) -> dict[str, str]:
    return {"module_name": ours.__module__, "class_name": ours.__name__}


TEMPLATES = {
    # links in plain HTML, since the index's own table is drawn by a script from the network
    "top_navbar.j2": f"""
      {{% set up = {{"SiteIndexPageRenderer": "", "ExpectationSuitePageRenderer": "../"}} %}}
      {{% set root = up.get(renderer_type, "../../../../") %}}
      <nav class="navbar navbar-expand border-bottom">
        <a class="navbar-brand" href="{{{{ root }}}}index.html">Data Docs</a>
        <a class="nav-link" href="{{{{ root }}}}{RESULTS_PAGE}">Results</a>
        <a class="nav-link" href="{{{{ root }}}}{SUITE_PAGE}">Expectations</a>
      </nav>""",
    # stands in for Bootstrap and Font Awesome, which would come from the network
    "data_docs_custom_styles.css": """
      html { font-family: sans-serif; color-scheme: light; scroll-padding-top: 1rem }
      body { margin: 1rem auto; max-width: 80rem; padding: 0 1rem; line-height: 1.4 }
      nav.border-bottom { border-bottom: 1px solid #ccc; margin-bottom: 1rem; padding-bottom: .5rem }
      nav a { margin-right: 1rem }
      body > .container-fluid > .row { display: flex; gap: 2rem }
      body > .container-fluid > .row > :first-child { flex: 0 0 13rem }
      body > .container-fluid > .row > :last-child { flex: 1; min-width: 0 }
      .sticky { position: sticky; top: 1rem }
      .nav { list-style: none; padding: 0 }
      table { border-collapse: collapse; max-width: 100% }
      td { overflow-wrap: anywhere }
      th, td { border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: left; vertical-align: top }
      [data-toggle=collapse], button { display: none }
      @media (max-width: 50rem) {
        body > .container-fluid > .row { display: block }
        .sticky { position: static }
      }
      .text-success { color: #28a745 }
      .text-danger { color: #dc3545 }
      .fa-check-circle:before { content: "✔" }
      .fa-times:before { content: "✘" }""",
    "favicon.j2": "",
    "page_action_card.j2": "",  # a filter that a script from the network works
    "cloud-footer.j2": "",  # an advertisement
}


# What a browser would load from elsewhere: seven hosts would know who looks at the data.
FROM_ELSEWHERE = re.compile(
    r'<script[^>]*\ssrc="(?:https?:)?//[^>]*>\s*</script>|<link[^>]*\shref="(?:https?:)?//[^>]*>'
    r"|url\('https?://[^)]*\)"
)


class _View(DefaultJinjaPageView):
    """GX's pages with our templates over GX's, without random ids, and with nothing from elsewhere."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        assert isinstance(self.env.loader, ChoiceLoader)
        self.env.loader.loaders = [DictLoader(TEMPLATES), *self.env.loader.loaders]

    def render(self, document: Any, template: Any = None, **options: Any) -> str:
        return FROM_ELSEWHERE.sub("", super().render(document, template, **options))  # type: ignore[no-untyped-call]

    def generate_html_element_uuid(self, prefix: str | None = None) -> str:
        return prefix or ""  # the id begins with that of its block, which is unique already


class _IndexView(_View):
    _template = DefaultJinjaIndexPageView._template


class _Results(ValidationResultsPageRenderer):
    """GX's page of results without what it knows of the run: when it was, and ids."""

    def render(self, validation_results: Any, suite_parameters: Any = None) -> Any:
        validation_results.meta = {
            "great_expectations_version": validation_results.meta["great_expectations_version"],
            "run_id": RUN.run_name,
            "batch_spec": {"data_asset_name": "manifest"},
        }
        return super().render(validation_results, suite_parameters)


class _Index(SiteIndexPageRenderer):
    """GX's index without the time of the run, which it turns into the local time zone."""

    @classmethod
    def _get_formatted_datetime(cls, _datetime: Any) -> str:
        return ""
