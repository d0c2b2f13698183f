"""What every test may count on."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gto.log  # noqa: F401
import prefect.logging.configuration
import pytest

from tests.browser import BROWSER
from tests.live import free_ports
from tests.structure import ROOT
from tests.tiny import Tiny

# Before TensorFlow is imported: this, like importing GTO, closes the handlers of logging that are there, and
# absl's, which comes with TensorFlow, closes pytest's own stderr along with it.
prefect.logging.configuration.setup_logging()

# The built-in backbone is converted once for the checkout, not once for each folder a test works in.
os.environ.setdefault("DARKROOM_CACHE", str(ROOT / ".cache"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes comes first, the soak before all: else one worker is left with it in the end."""
    items.sort(key=lambda item: (item.path.name != "test_soak.py", "slow" not in item.path.parts))


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A Prefect server and database for all tests that need them."""
    from prefect.testing.utilities import prefect_test_harness  # seconds

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a server leaves in a new PREFECT_HOME, to be copied: to make its database takes seconds."""
    from flows import server

    home = tmp_path_factory.mktemp("new") / "prefect"
    log = home.with_name("log")
    (port,) = free_ports()
    with log.open("wb") as stream:
        child = server.launch(port, stream, PREFECT_HOME=str(home), PREFECT_UI_ENABLED="0")
    try:
        server.wait(f"http://127.0.0.1:{port}/api", child, log.read_text)
        assert child.poll() is None, log.read_text()
    finally:
        child.terminate()
        child.wait()
    return home


@pytest.fixture
def browser() -> Iterator[Any]:
    """Of the tests that are marked `in_a_browser`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The small data set, built, and a classifier trained on it in `models`."""
    from tasks import build
    from tasks.check import Params
    from tasks.core.base import params
    from tasks.core.data import manifest
    from tasks.core.data.parquet import write_parquet
    from tests.backbone import save_tiny_backbone
    from tests.images import ALONE, scanned, write_classes

    tiny = Tiny(tmp_path_factory.mktemp("tiny"))
    write_classes(tiny.images, count=20)
    save_tiny_backbone(tiny.folder / "backbone")
    save_tiny_backbone(tiny.folder / "lively", lively=True)
    save_tiny_backbone(tiny.folder / "counting", counting=True)
    (tiny.folder / "labels.csv").write_text("path,label\n")
    frame = scanned(tiny.images, tiny.folder / "labels.csv")
    write_parquet(tiny.folder / "manifest.parquet", frame, manifest.SCHEMA)
    p = params.read(ROOT / "params.yaml", Params).build
    backbone = str(tiny.folder / "backbone")
    build.build(tiny.images, tiny.folder / "manifest.parquet", tiny.dataset, p, backbone, 32, ALONE, {})
    tiny.train(tiny.models)
    return tiny
