"""New images that have drifted are told of, others are not."""

import errno
import os
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from prefect.settings import PREFECT_API_URL

from flows import events, monitor
from flows.run import Run
from tasks import score
from tasks.core.artifacts.exporter import Exporter
from tasks.core.artifacts.formats import FORMATS
from tasks.core.base import cli
from tasks.core.base.files import read_json
from tasks.core.base.paths import MANIFEST, PREDICTIONS
from tasks.core.data.manifest import SCHEMA
from tasks.core.data.parquet import write_parquet
from tasks.core.training import classifier
from tests.images import scanned, write_classes
from tests.structure import ROOT
from tests.tiny import Tiny

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture(scope="module")
def made(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, the manifest of its images, and the names of those it was tested on."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "export").mkdir()
    trained, contract = classifier.load(tiny.models)
    exporter = Exporter(trained, contract, "elsewhere", np.zeros((1, 32, 32, 3), np.float32))
    exporter.write("onnx", folder / "export" / FORMATS["onnx"].file)
    (folder / "labels.csv").write_text("path,label\n")
    write_parquet(folder / MANIFEST, scanned(tiny.images, folder / "labels.csv"), SCHEMA)
    (folder / PREDICTIONS).parent.mkdir()
    paths = [f"{label}/{number:03d}.png" for label in ("blue", "green", "red") for number in range(20)]
    pd.DataFrame({"path": paths}).to_parquet(folder / PREDICTIONS)
    text = (ROOT / "params.yaml").read_text("utf-8").replace("images: data/digits", f"images: {tiny.images}")
    (folder / "params.yaml").write_text(text)
    return folder


@pytest.fixture
def told(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The events that were emitted, in a working copy of its own."""
    here = tmp_path / "here"
    shutil.copytree(made, here)
    monkeypatch.chdir(here)
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))
    emitted: list[dict[str, Any]] = []
    monkeypatch.setattr(events, "emit_event", lambda event, **facts: emitted.append({"event": event} | facts))
    return emitted


def darkened(source: Path, target: Path) -> None:
    for file in source.rglob("*.png"):
        (target / file.parent.name).mkdir(parents=True, exist_ok=True)
        Image.open(file).point(lambda value: value * 0.5).save(target / file.parent.name / file.name)


def test_images_like_those_it_was_made_with_are_not_told_of(told: list[dict[str, Any]]) -> None:
    write_classes(Path("new"), count=20)
    state = monitor.monitor("new", return_state=True)
    assert (state.name, told) == ("Completed", [])
    assert read_json(Path("reports/monitor/drift.json"))["pictures"] == 60
    assert Path("reports/monitor/index.html").exists()


@pytest.mark.parametrize("retrain", [True, False])
def test_darkened_images_are(tiny: Tiny, told: list[dict[str, Any]], retrain: bool) -> None:
    file = Path("params.yaml")
    wish = f"retrain_on_drift: {str(retrain).lower()}"
    file.write_text(file.read_text("utf-8").replace("retrain_on_drift: false", wish))
    darkened(tiny.images, Path("dark"))
    state = monitor.monitor("dark", return_state=True)
    assert state.name == "Drifted"
    assert "brightness" in (state.message or "")
    (event,) = told
    assert event["event"] == "darkroom.drift"
    assert event["resource"]["darkroom.retrain"] == str(retrain).lower()
    assert "brightness" in event["payload"]["message"]


def test_a_failed_run_is_told_of_in_its_own_words(told: list[dict[str, Any]]) -> None:
    state = monitor.monitor("nowhere", return_state=True)
    assert state.name == "Failed"
    (event,) = told
    assert event["event"] == "darkroom.run.failed"
    assert event["payload"]["message"] == "nowhere is not a folder; give one with images"


def test_a_schedule_does_nothing_while_there_are_no_images(told: list[dict[str, Any]]) -> None:
    state = monitor.monitor(only_if_there=True, return_state=True)
    assert (state.name, state.message) == ("Skipped", "data/incoming holds no images")
    assert not told
    state = monitor.monitor("incomming", only_if_there=True, return_state=True)
    assert state.message == "incomming is not a folder; give one with images", "somebody has named it"


def test_a_schedule_tells_of_images_that_it_can_not_list(told: list[dict[str, Any]], tmp_path: Path) -> None:
    Path("data/incoming").mkdir(parents=True)
    Path("data/incoming/linked").symlink_to(tmp_path)
    state = monitor.monitor(only_if_there=True, return_state=True)
    assert state.name == "Failed"
    assert (state.message or "").startswith("data/incoming/linked is a link")
    assert "DVC" not in (state.message or ""), "which doesn't look there at all"
    assert [event["payload"]["message"] for event in told] == [state.message]


def test_a_folder_that_goes_away_while_it_is_listed_is_no_matter_of_permissions(
    told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_classes(Path("data/incoming"), count=1)
    scandir = os.scandir

    def late(path: Any) -> Any:
        if str(path).endswith("green"):
            shutil.rmtree(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", late)
    state = monitor.monitor("data/incoming", return_state=True)
    assert state.message == "data/incoming/green went away while its images were listed; run it again"
    assert [event["payload"]["message"] for event in told] == [state.message]


@pytest.mark.parametrize("words", [[""], ["new", "--model", ""]])
def test_an_empty_argument_is_not_taken_for_none(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A variable that nobody has set would have `monitor.images` scored, and a training started."""
    monkeypatch.setattr("sys.argv", ["flows/monitor.py", *words])
    with pytest.raises(SystemExit) as ended:
        monitor.main(Run())
    assert ended.value.code == 2
    assert "it is empty; give a name" in capsys.readouterr().err


@pytest.mark.usefixtures("told")
def test_the_command_ends_as_the_images_are(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
    darkened(tiny.images, Path("dark"))
    write_classes(Path("new"), count=20)
    for folder, code in (("new", 0), ("dark", 1), ("nowhere", 2)):
        monkeypatch.setattr("sys.argv", ["flows/monitor.py", folder])
        assert monitor.main(Run()) == code
    assert capsys.readouterr().err.splitlines()[-1].startswith("monitor: nowhere is not a folder")


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (KeyError("psi"), 70, "monitor: a fault of ours, KeyError: 'psi'; DARKROOM_DEBUG=1 shows where"),
        (
            OSError(errno.ENOSPC, "No space left on device", "x.parquet"),
            2,
            "monitor: No space left on device",
        ),
    ],
)
def test_what_nobody_has_foreseen_is_told_as_by_any_command(
    fault: Exception,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def failing(*_: object) -> None:
        raise fault

    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
    monkeypatch.setattr(score, "score", failing)
    monkeypatch.setattr("sys.argv", ["flows/monitor.py", "new"])
    with pytest.raises(SystemExit) as ended:
        cli.command(partial(monitor.main, Run()))
    assert ended.value.code == code
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL, (
        "else Prefect's timeouts end nothing that waits"
    )
    told = capsys.readouterr().err
    assert told.splitlines()[-1].startswith(said)
    assert "Traceback" not in told
