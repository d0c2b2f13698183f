"""Data Docs of the same bytes each time.

Left alone, they hold the time and time zone of the run, random ids, and an image from the network. GX lets
a site name its own renderers and views: those at the end of this module leave all that out.
"""

import html
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from great_expectations.core import RunIdentifier
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)
from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
from great_expectations.render.renderer.site_index_page_renderer import SiteIndexPageRenderer
from great_expectations.render.view.view import DefaultJinjaIndexPageView, DefaultJinjaPageView
from jinja2 import BytecodeCache, ChoiceLoader, DictLoader, pass_context
from jinja2.bccache import Bucket

RUN = RunIdentifier("validate", datetime(1970, 1, 1, tzinfo=UTC))
INDEX_PAGE = "index.html"
RESULTS_PAGE = "validations/manifest/validate/19700101T000000.000000Z/data-manifest.html"
SUITE_PAGE = "expectations/manifest.html"


def config(site: Path) -> DataContextConfig:
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
    # in the page's head: whatever a name should come to there, nothing runs, and nothing is asked for
    "favicon.j2": """
      <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">""",
    "page_action_card.j2": "",  # a filter that a script from the network works
    "cloud-footer.j2": "",  # an advertisement
}


# What a browser would load from elsewhere: seven hosts would know who looks at the data.
FROM_ELSEWHERE = re.compile(
    r'<script[^>]*\ssrc="(?:https?:)?//[^>]*>\s*</script>|<link[^>]*\shref="(?:https?:)?//[^>]*>'
    r"|url\('https?://[^)]*\)"
)


class _Compiled(BytecodeCache):
    """Compiled templates, as long as this process lives: GX would compile them anew for each page."""

    def __init__(self) -> None:
        self.code: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if bucket.key in self.code:
            bucket.bytecode_from_string(self.code[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        self.code[bucket.key] = bucket.bytecode_to_string()


COMPILED = _Compiled()


class _View(DefaultJinjaPageView):
    """GX's pages with our templates over GX's, without random ids, and with nothing from elsewhere."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        assert isinstance(self.env.loader, ChoiceLoader)
        self.env.loader.loaders = [DictLoader(TEMPLATES), *self.env.loader.loaders]
        self.env.bytecode_cache = COMPILED

    def render(self, document: Any, template: Any = None, **options: Any) -> str:
        return FROM_ELSEWHERE.sub("", super().render(document, template, **options))  # type: ignore[no-untyped-call]

    @pass_context
    def render_content_block(self, context: Any, content_block: Any, *place: Any, **options: Any) -> Any:
        """Has texts as texts; GX has a table's cells as HTML, and names of files are in them."""
        if isinstance(content_block, str):
            return html.escape(content_block)
        if isinstance(content_block, list):
            content_block = [html.escape(each) if isinstance(each, str) else each for each in content_block]
        return super().render_content_block(context, content_block, *place, **options)

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
