"""The flow does what DVC would, and tells truly what ran, what was cached and what failed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.testing.utilities import prefect_test_harness

from flows import pipeline

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
    for words in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        subprocess.run(words, check=True)
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
