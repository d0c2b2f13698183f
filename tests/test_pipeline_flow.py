"""The flow does what DVC would, and tells truly what ran, what was cached and what failed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.testing.utilities import prefect_test_harness

from flows import pipeline
from tasks.core import params
from tasks.core.serialize import remove
from tests.project import FIRST_COMMIT
from tests.structure import ROOT

THREE_STAGES = """
stages:
  last:
    cmd: cat first.txt middle.txt > last.txt
    deps: [first.txt, middle.txt]
    outs: [last.txt]
  middle:
    cmd:
      - 'grep -q good first.txt || { echo "middle: first.txt says no good" >&2; exit 2; }'
      - cp first.txt middle.txt
    deps: [first.txt]
    outs: [middle.txt]
  first:
    cmd: cp source.txt first.txt
    deps: [source.txt]
    outs: [first.txt]
"""


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC repository of three stages that need no Python, listed in no order."""
    monkeypatch.chdir(tmp_path)
    for words in (["git", "init", "-q"], FIRST_COMMIT, ["dvc", "init", "-q"]):
        subprocess.run(words, check=True)
    for name in ("params.yaml", "data/labels.csv", "data/schema.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    params.load.cache_clear()
    (tmp_path / "dvc.yaml").write_text(THREE_STAGES)
    (tmp_path / "source.txt").write_text("good\n")
    return tmp_path


def run() -> tuple[dict[str, str], str]:
    """Runs the flow; returns each task's state by stage, and the flow's message."""
    state = pipeline.pipeline(return_state=True)
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs()
    own = [run for run in runs if run.flow_run_id == state.state_details.flow_run_id]
    return {run.name: str(run.state_name) for run in own}, state.message or ""


@pytest.mark.usefixtures("repository")
def test_stages_come_in_dvcs_order() -> None:
    assert pipeline.stages() == ["first", "middle", "last"]


@pytest.mark.usefixtures("repository")
def test_what_runs_is_completed_and_what_is_there_is_cached() -> None:
    assert run()[0] == dict.fromkeys(("first", "middle", "last"), "Completed")
    assert run()[0] == dict.fromkeys(("first", "middle", "last"), "Cached")
    status = subprocess.run(["dvc", "status", "--quiet"], check=False)
    assert status.returncode == 0, "DVC finds nothing to do after the flow"


@pytest.mark.usefixtures("repository")
def test_what_dvc_repro_did_the_flow_finds_done() -> None:
    subprocess.run(["dvc", "repro", "--quiet"], check=True)
    assert run()[0] == dict.fromkeys(("first", "middle", "last"), "Cached")


def test_without_a_lock_outputs_are_restored_and_called_cached(repository: Path) -> None:
    run()
    for name in ("dvc.lock", "first.txt", "middle.txt", "last.txt"):
        (repository / name).unlink()
    assert run()[0] == dict.fromkeys(("first", "middle", "last"), "Cached")
    assert (repository / "last.txt").read_text() == "good\ngood\n"


def test_a_failed_stage_ends_the_run_with_its_own_words(repository: Path) -> None:
    (repository / "source.txt").write_text("bad\n")
    states, message = run()
    assert states == {"first": "Completed", "middle": "Failed"}
    assert message == "middle: first.txt says no good"


def test_the_exit_code_of_a_stage_is_read_from_what_dvc_says() -> None:
    assert pipeline.stage_exit(["ERROR: failed to reproduce 'a': failed to run: x, exited with 2"]) == 2
    assert pipeline.stage_exit(["ERROR: something else"]) == 1


def test_a_stage_that_was_killed_is_not_blamed_on_its_last_line() -> None:
    lines = ["train: features of 9 pictures", "ERROR: failed to run: x, exited with -9"]
    assert "train was ended by SIGKILL" in pipeline.complaint("train", lines)


def start(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Does what `python -m flows.pipeline WORDS` does; returns the exit code."""
    monkeypatch.setattr("sys.argv", ["flows/pipeline.py", *words])
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the tests' own handlers stay
    return pipeline.main()


def test_the_command_ends_with_the_exit_code_of_the_stage(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(monkeypatch) == 0
    (repository / "source.txt").write_text("bad\n")
    assert start(monkeypatch) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "middle: first.txt says no good"


def test_a_slip_in_the_parameters_is_told_in_one_line(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "params.yaml").write_text("data: {image: x}\n")
    assert start(monkeypatch) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("params.yaml: data.image is not a parameter")


def test_results_go_to_a_remote_and_come_back(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(monkeypatch, "--push") == 2, "there is no remote yet"
    assert "dvc remote add" in capsys.readouterr().err.splitlines()[-1]
    subprocess.run(["dvc", "remote", "add", "-q", "-d", "store", "../store"], check=True)
    assert start(monkeypatch, "--push") == 0
    for name in ("first.txt", "middle.txt", "last.txt", ".dvc/cache"):
        remove(repository / name)
    assert start(monkeypatch, "--pull") == 0
    assert (repository / "last.txt").read_text() == "good\ngood\n"


def test_latencies_that_went_with_artifacts_are_measured_again(repository: Path) -> None:
    measure = "mkdir -p export && echo measured >> export/export.json"
    stage = f"  latency:\n    cmd: {measure}\n    deps: [first.txt]\n"
    (repository / "dvc.yaml").write_text(THREE_STAGES + stage)
    run()
    assert run()[0]["latency"] == "Cached"
    (repository / "export/export.json").unlink()
    assert run()[0]["latency"] == "Completed"
    assert (repository / "export/export.json").read_text() == "measured\n"


def test_data_that_is_versioned_by_itself_is_no_stage(repository: Path) -> None:
    subprocess.run(["dvc", "add", "-q", "source.txt"], check=True)
    assert pipeline.stages() == ["first", "middle", "last"]
    assert run()[0] == dict.fromkeys(("first", "middle", "last"), "Completed")
    assert (repository / "source.txt.dvc").exists()
