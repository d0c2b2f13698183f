"""Great Expectations over the manifest: what each check found."""

import html
import logging
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import great_expectations as gx
import pandas as pd
from great_expectations.checkpoint.actions import UpdateDataDocsAction
from great_expectations.core import ExpectationValidationResult
from great_expectations.expectations.expectation import BatchExpectation, Expectation
from great_expectations.render.renderer import site_builder

from tasks.core.validation.data_docs import INDEX_PAGE, RESULTS_PAGE, RUN, SUITE_PAGE, config
from tasks.core.validation.outcome import Outcome

gxe: Any = gx.expectations  # all that a check may hold; GX itself looks at the arguments
SHOWN = 20  # offending images that a page names


class ExpectNumberToBeAtMost(BatchExpectation):
    """A number that tells of all images together, and so is no column of theirs."""

    column: str  # Data Docs have a section of this name
    value: float
    max_value: float

    def _validate(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {"success": self.value <= self.max_value, "result": {"observed_value": self.value}}


@dataclass(frozen=True)
class Check:
    """One expectation over the manifest."""

    kind: str  # what it finds; several checks may be of one kind
    name: str
    expects: str  # in words for people: "at least 10 readable images of each class"
    expectation: Expectation
    remedy: str
    severity: Literal["error", "warning"] = "error"
    details: str = ""  # what to name where single paths don't say it: classes, reasons


def tolerating(count: int, rows: int) -> float:
    """The `mostly` that lets exactly `count` of `rows` rows offend; GX divides the same way."""
    return max(rows - count, 0) / rows


def run(frame: pd.DataFrame, checks: Sequence[Check], site: Path) -> list[Outcome]:
    """Runs all checks as one checkpoint and writes its Data Docs to `site`, a folder not yet there.

    Returns:
        One outcome for each check, in their order.

    Raises:
        OSError: a page could not be written.
        RuntimeError: a check could not be computed, or there is no page; GX's words or log say why.
    """
    checkpoint = _checkpoint(checks, site.absolute())
    asked = {"path", "label", "error", *(getattr(check.expectation, "column", "") for check in checks)}
    columns = [name for name in frame if name in asked]  # GX copies all that it is given, several times
    rows = frame[columns].sort_values("path", ignore_index=True)
    with _raising_what_it_logs():
        result = checkpoint.run(batch_parameters={"dataframe": rows}, run_id=RUN)
    for page in (INDEX_PAGE, RESULTS_PAGE, SUITE_PAGE):
        if not (site / page).is_file() or not (site / page).stat().st_size:
            raise RuntimeError(f"Great Expectations could not write {page}; its log says why")
    shutil.rmtree(site / "static")  # 4 MB of logos, fonts and films that no page shows
    (validation,) = result.run_results.values()
    results: list[Any] = validation.results
    found = {each.expectation_config.meta["check"]: each for each in results}
    return [_outcome(check, found[number]) for number, check in enumerate(checks)]


@contextmanager
def _raising_what_it_logs() -> Iterator[None]:
    """Raises what GX only logs of a page that it can't write, before it goes on to the next."""

    def raise_it(_record: logging.LogRecord) -> bool:
        if error := sys.exc_info()[1]:
            raise error
        return True

    log = logging.getLogger(site_builder.__name__)
    log.addFilter(raise_it)
    try:
        yield
    finally:
        log.removeFilter(raise_it)


def _checkpoint(checks: Sequence[Check], site: Path) -> gx.Checkpoint:
    context = gx.get_context(mode="ephemeral", project_config=config(site))
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
