"""The flow does what DVC would, and tells truly what ran, what was cached and what failed."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from dvc.utils.serialize import modify_yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.settings import PREFECT_API_URL
from ruamel.yaml import YAML

from flows import artifacts, dvc_command, outcome, pipeline, working_copy
from flows.run import Run
from tasks.check import Params
from tasks.core.base import params
from tasks.core.base.errors import DarkroomError
from tasks.core.base.files import remove
from tasks.core.release import dvc_api
from tests.base.one_stage import script
from tests.live import until
from tests.project import FIRST_COMMIT
from tests.soak.faults import can_mount, small_disk
from tests.structure import ROOT

pytestmark = pytest.mark.usefixtures("prefect_server")

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

ONE_STAGE = """
stages:
  work:
    cmd: 'grep -q good source.txt || { echo "work: source.txt says no good" >&2; exit 2; }'
    deps: [source.txt]
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `repository` is a copy of."""
    folder = tmp_path_factory.mktemp("template")
    for words in (["git", "init", "-q"], FIRST_COMMIT, ["dvc", "init", "-q"]):
        subprocess.run(words, cwd=folder, check=True)
    for name in ("params.yaml", "data/labels.csv", "data/schema.yaml"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "dvc.yaml").write_text(THREE_STAGES)
    (folder / "source.txt").write_text("good\n")
    return folder


@pytest.fixture
def repository(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC repository of three stages that need no Python, listed in no order."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(**parameters: Any) -> tuple[dict[str, str], str]:
    """Runs the flow; returns each task's state by stage, and the flow's message."""
    state = pipeline.pipeline(**parameters, return_state=True)
    wanted = FlowRunFilter.model_validate({"id": {"any_": [state.state_details.flow_run_id]}})
    runs: list[Any] = []

    def all_have_ended() -> bool:
        """Prefect writes the states of tasks from events, which may come after the flow's own end."""
        runs[:] = client.read_task_runs(flow_run_filter=wanted)
        return all(run.state and run.state.is_final() for run in runs)

    with get_client(sync_client=True) as client:
        until(all_have_ended, 600)
    return {run.name: str(run.state_name) for run in runs}, state.message or ""


@pytest.mark.usefixtures("repository")
def test_stages_come_in_dvcs_order() -> None:
    assert dvc_api.survey()[0] == ["first", "middle", "last"]


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


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("true", "ERROR: failed to reproduce 'work': output 'result' does not exist"),
        ("touch result; rm -rf .dvc/cache; touch .dvc/cache", "Not a directory"),
    ],
)
def test_what_dvc_fails_in_after_a_stage_is_told_in_its_words(
    repository: Path, fault: str, said: str
) -> None:
    progress = "echo 'work: 100 images'"
    stage = f'{{cmd: "{progress}; {fault}", deps: [source.txt], outs: [result]}}'
    (repository / "dvc.yaml").write_text(f"stages: {{work: {stage}}}")
    states, message = run()
    assert states == {"work": "Failed"}
    assert said in message and "100 images" not in message


def test_the_exit_code_of_a_stage_is_read_from_what_dvc_says() -> None:
    assert dvc_api.stage_exit(["ERROR: failed to reproduce 'a': failed to run: x, exited with 2"]) == 2
    assert dvc_api.stage_exit(["ERROR: something else"]) == 2


def test_a_stage_that_was_killed_is_not_blamed_on_its_last_line() -> None:
    lines = ["train: features of 9 images", "ERROR: failed to run: x, exited with -9"]
    assert "train was ended by SIGKILL" in dvc_api.complaint("train", lines)


def start(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Does what `python -m flows.pipeline WORDS` does; returns the exit code."""
    monkeypatch.setattr("sys.argv", ["flows/pipeline.py", *words])
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the tests' own handlers stay
    monkeypatch.setenv("PREFECT_API_URL", str(PREFECT_API_URL.value()))
    return pipeline.main(Run())


def test_the_command_ends_with_the_exit_code_of_the_stage(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "dvc.yaml").write_text(ONE_STAGE)
    assert start(monkeypatch) == 0
    (repository / "source.txt").write_text("bad\n")
    assert start(monkeypatch) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "work: source.txt says no good"


def test_a_slip_in_the_parameters_is_told_in_one_line(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "params.yaml").write_text("data: {image: x}\n")
    assert start(monkeypatch) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("params.yaml: data.image is not a parameter")


def test_a_git_that_holds_the_index_fails_no_stage(
    repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """DVC stages dvc.lock after each, in the place of its user; an editor's git may be at work just then."""
    subprocess.run(["dvc", "config", "core.autostage", "true"], check=True)
    (repository / ".git/index.lock").touch()
    states, message = run()
    assert set(states.values()) == {"Completed"} and "up to date" in message
    assert "last is done, but what it changed is not staged" in caplog.text
    assert f"{repository / '.git/index.lock'} is there; another git is at work" in caplog.text
    assert subprocess.run(["dvc", "status", "--quiet"], check=False).returncode == 0
    lines = [f"ERROR: unexpected error - [Errno 17] File exists: '{repository / '.git/index.lock'}'"]
    assert dvc_api.complaint("push", lines).endswith("was killed; remove it if none is")


@pytest.mark.slow
def test_results_go_to_a_remote_and_come_back(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(monkeypatch, "--push") == 2, "there is no remote yet"
    assert "dvc remote add" in capsys.readouterr().err.splitlines()[-1]
    subprocess.run(["dvc", "remote", "add", "-q", "-d", "store", "../store"], check=True)
    assert start(monkeypatch, "--pull") == 2, "as where a share isn't mounted"
    assert "is not there: mount it" in capsys.readouterr().err.splitlines()[-1]
    assert "is not there: mount it" in run(pull=None)[1]
    assert start(monkeypatch, "--push") == 0
    for name in ("first.txt", "middle.txt", "last.txt", ".dvc/cache"):
        remove(repository / name)
    assert start(monkeypatch, "--pull") == 0
    assert (repository / "last.txt").read_text() == "good\ngood\n"


@pytest.mark.slow
def test_latencies_that_went_with_artifacts_are_measured_again(repository: Path) -> None:
    """And those that a checkout has left of another model."""
    (repository / "facts.json").write_text('{"artifacts": {}}')
    measure = "mkdir -p export && cp facts.json export/artifacts.json && cp facts.json export/export.json"
    stage = f"  latency:\n    cmd: {measure}\n    deps: [first.txt]\n"
    (repository / "dvc.yaml").write_text(THREE_STAGES + stage)
    run()
    assert run()[0]["latency"] == "Cached"
    (repository / "export/export.json").unlink()
    assert run()[0]["latency"] == "Completed"
    (repository / "export/export.json").write_text('{"artifacts": {"onnx": {"sha256": "another"}}}')
    assert run()[0]["latency"] == "Completed"
    assert (repository / "export/export.json").read_text() == '{"artifacts": {}}'


@pytest.mark.slow
def test_data_that_is_versioned_by_itself_is_no_stage(repository: Path) -> None:
    subprocess.run(["dvc", "add", "-q", "source.txt"], check=True)
    assert dvc_api.survey()[0] == ["first", "middle", "last"]
    assert run()[0] == dict.fromkeys(("first", "middle", "last"), "Completed")
    assert (repository / "source.txt.dvc").exists()


def test_a_target_that_is_none_is_told_with_those_that_are(repository: Path) -> None:
    before = (repository / "params.yaml").read_text("utf-8")
    states, message = run(targets=("midle",), set=("train.epochs=7",))
    assert not states
    assert message == "midle is no stage of dvc.yaml, which has first, middle, last"
    assert (repository / "params.yaml").read_text("utf-8") == before


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize("hours", [-1.0, 0.0, float("nan"), float("inf")])
def test_hours_that_are_none_are_told(hours: float) -> None:
    states, message = run(stage_hours=hours)
    assert not states
    assert message.startswith(f"stage_hours is {hours:g}; give more than 0")


def test_a_failed_run_raises_what_has_failed_where_nobody_asks_for_its_state(repository: Path) -> None:
    """As in a worker's process."""
    (repository / "dvc.yaml").write_text(ONE_STAGE)
    (repository / "source.txt").write_text("bad\n")
    with pytest.raises(DarkroomError, match=r"^work: source\.txt says no good$"):
        pipeline.pipeline()


@pytest.mark.slow
@pytest.mark.usefixtures("repository")
def test_targets_are_all_that_is_done_with_what_they_need() -> None:
    assert run(targets=("middle",))[0] == dict.fromkeys(("first", "middle"), "Completed")
    assert run(targets=("last",))[0] == {"first": "Cached", "middle": "Cached", "last": "Completed"}
    assert "nothing" in run(targets=("nothing",))[1], "the target is named"


@pytest.mark.usefixtures("repository")
def test_only_what_hangs_on_a_change_runs() -> None:
    run()
    Path("middle.txt").unlink()
    Path("dvc.yaml").write_text(
        THREE_STAGES.replace("cat first.txt middle.txt >", "cat middle.txt first.txt >")
    )
    assert run()[0] == {"first": "Cached", "middle": "Cached", "last": "Completed"}


@pytest.mark.slow
@pytest.mark.usefixtures("repository")
def test_what_follows_a_stage_that_was_restored_is_looked_at_again() -> None:
    run()
    Path("source.txt").write_text("good too\n")
    run()
    Path("source.txt").write_text("good\n")
    assert run()[0] == dict.fromkeys(("first", "middle", "last"), "Cached"), "DVC remembers both"
    assert Path("last.txt").read_text() == "good\ngood\n"


@pytest.mark.slow
@pytest.mark.usefixtures("repository")
def test_forced_stages_run_though_they_are_up_to_date() -> None:
    run()
    assert run(force=True, targets=("first",))[0] == {"first": "Completed"}


@pytest.mark.slow
def test_parameters_are_set_as_dvc_sets_them(repository: Path) -> None:
    stage = "  tuned:\n    cmd: cp params.yaml tuned.txt\n    params: [train.epochs]\n    outs: [tuned.txt]\n"
    (repository / "dvc.yaml").write_text(THREE_STAGES + stage)
    run()
    states = run(set=("train.epochs=7",))[0]
    assert states == dict.fromkeys(("first", "middle", "last"), "Cached") | {"tuned": "Completed"}
    old, new = ((folder / "params.yaml").read_text("utf-8").splitlines() for folder in (ROOT, repository))
    (line,) = [line for line in new if line not in old]
    assert line.startswith("  epochs: 7 ")
    assert len(old) == len(new)


@pytest.mark.parametrize("commit", ["1234567", "12345e7", "0123456"])
def test_a_commit_of_digits_is_set_as_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commit: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    working_copy.override([f"gate.champion={commit}", "train.epochs=7"])
    found = params.read(params.FILE, Params)
    assert (found.gate.champion, found.train.epochs) == (commit, 7)


def test_a_value_is_replaced_and_nothing_else() -> None:
    text = "a:\n  b: 1  # why\n  c:\n    - {x: 1}  # one\n    - {x: 2}  # two\n  # last\nd: 5\n"
    assert working_copy.replace_value(text, ["a", "b"], [1, "x"]) == text.replace("b: 1", 'b: [1, "x"]')
    assert working_copy.replace_value(text, ["d"], None) == text.replace("d: 5", "d: null")
    assert (
        working_copy.replace_value(text, ["a", "c"], [3]) == "a:\n  b: 1  # why\n  c: [3]\n  # last\nd: 5\n"
    )
    assert working_copy.replace_value("a:\nb: 1\n", ["a"], 2) == "a: 2\nb: 1\n"
    with pytest.raises(DarkroomError, match=r"a\.b\.c is not in"):
        working_copy.replace_value(text, ["a", "b", "c"], 1)


def test_a_list_is_replaced_after_dvc_has_written_the_file_anew(tmp_path: Path) -> None:
    """As `dvc exp run --set-param` does: lists that have lines of their own are not indented any more."""
    file = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", file)
    with modify_yaml(str(file)) as values:
        values["train"]["epochs"] = 3
        values["export"]["required"] = [*values["export"]["formats"]]
    text = file.read_text("utf-8")
    assert "\n  rules:" in text and "\n  - {metric" in text, "its failing twin"
    for path, value in {
        "gate.rules": [{"metric": "test.accuracy", "min": 0.5}],
        "export.required": ["h5"],
    }.items():
        text = working_copy.replace_value(text, path.split("."), value)
    expected = YAML(typ="safe").load((ROOT / "params.yaml").read_text("utf-8"))
    expected["train"]["epochs"], expected["export"]["required"] = 3, ["h5"]
    expected["gate"]["rules"] = [{"metric": "test.accuracy", "min": 0.5}]
    assert YAML(typ="safe").load(text) == expected


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("train.epochs=-1", "train.epochs"),
        ("train.epoch=3", "train.epoch"),
        ("nonsense", "nonsense"),
        ("train.epochs=1,2", "is a sweep"),
        ("data.images=/not/there", "/not/there"),
        ("train.epochs", "give KEY=VALUE"),
    ],
)
def test_a_setting_that_is_none_leaves_the_parameters_as_they_are(
    repository: Path, setting: str, words: str
) -> None:
    before = (repository / "params.yaml").read_text("utf-8")
    states, message = run(set=(setting,))
    assert not states
    assert words in message
    assert "/tmp" not in message
    assert (repository / "params.yaml").read_text("utf-8") == before


def test_a_verdict_is_told_apart_from_a_failure(repository: Path) -> None:
    command = """'echo "verdict: rejected: accuracy is 0.1"; exit 1'"""
    (repository / "dvc.yaml").write_text(f"stages:\n  verdict:\n    cmd: {command}\n    deps: [source.txt]\n")
    state = pipeline.pipeline(return_state=True)
    assert state.name == "Rejected"
    assert state.message == "verdict: rejected: accuracy is 0.1"


def test_a_schedule_does_not_try_again_what_has_failed(repository: Path) -> None:
    (repository / "dvc.yaml").write_text(ONE_STAGE)
    run()
    assert run(only_if_changed=True) == ({}, "every stage is up to date")
    (repository / "source.txt").write_text("bad\n")
    assert run(only_if_changed=True)[0] == {"work": "Failed"}
    states, message = run(only_if_changed=True)
    assert not states
    assert "nothing has changed since a run that failed: work: source.txt says no good" in message
    (repository / "source.txt").write_text("good again\n")
    assert run(only_if_changed=True)[0] == {"work": "Completed"}


@pytest.mark.usefixtures("repository")
def test_a_second_run_waits_and_a_schedule_does_not() -> None:
    said: list[str] = []
    with working_copy.exclusive_run(said.append, wait=True):
        states, message = run(only_if_changed=True)
        assert not states
        assert f"(process {os.getpid()})" in message
        waiting = threading.Thread(target=lambda: said.append(_wait_for_ours(said)))
        waiting.start()
        while not any("waiting" in line for line in said):
            time.sleep(0.05)
        assert "got it" not in said
    waiting.join(10)
    assert said[-1] == "got it"


def _wait_for_ours(said: list[str]) -> str:
    with working_copy.exclusive_run(said.append, wait=True):
        return "got it"


def running() -> list[list[str]]:
    """Commands of DVC's that this process has started and that are still there."""
    found = [child.cmdline() for child in psutil.Process().children(recursive=True)]
    return [words for words in found if "dvc" in words]


def test_a_stage_whose_time_is_up_is_ended(repository: Path) -> None:
    slow = THREE_STAGES.replace("cp source.txt first.txt", "sleep 60; cp source.txt first.txt")
    (repository / "dvc.yaml").write_text(slow)
    start, heard = time.monotonic(), signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a script's `&` has it
    try:
        states, message = run(stage_hours=2 / 3600)
    finally:
        signal.signal(signal.SIGINT, heard)
    assert states == {"first": "TimedOut"}
    assert message.startswith("first took longer")
    assert time.monotonic() - start < 40, "nobody has waited for the stage's own end"
    assert not running()


@pytest.mark.usefixtures("repository")
def test_a_fault_of_ours_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise KeyError("stage")

    monkeypatch.setattr(dvc_command, "run", failing)
    state = pipeline.pipeline(return_state=True)
    with pytest.raises(KeyError, match="stage"):  # which `cli.command` makes a line and exit code 70 of
        outcome.report_failure(state)


@pytest.mark.parametrize(("code", "tries"), [(75, 2), (2, 1)])
def test_only_what_a_network_has_ended_is_tried_again(
    repository: Path, monkeypatch: pytest.MonkeyPatch, code: int, tries: int
) -> None:
    monkeypatch.setattr(pipeline.reproduce, "retries", 1)
    monkeypatch.setattr(pipeline.reproduce, "retry_delay_seconds", [0])
    fetch = f"echo try >> tries.txt; exit {code}"
    (repository / "dvc.yaml").write_text(f"stages:\n  fetch:\n    cmd: '{fetch}'\n    outs: [fetched]\n")
    assert run()[0] == {"fetch": "Failed"}
    assert (repository / "tries.txt").read_text() == "try\n" * tries


@pytest.mark.slow
def test_a_remote_that_is_away_is_tried_again(
    repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pipeline.transfer, "retries", 1)
    monkeypatch.setattr(pipeline.transfer, "retry_delay_seconds", [0])
    (repository / "not-a-folder").touch()
    subprocess.run(["dvc", "remote", "add", "-q", "-d", "store", "not-a-folder/store"], check=True)
    assert run(push=True)[0] == dict.fromkeys(("first", "middle", "last"), "Completed") | {"push": "Failed"}
    assert "Retry 1/1" in caplog.text


@pytest.mark.slow
def test_a_remote_that_is_full_is_told_once(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """DVC says "Bad cache file path", and that it was the network would be said of it, after three tries."""
    disk = tmp_path_factory.mktemp("disk")
    if not can_mount(disk):
        pytest.skip("only root may mount a small disk")
    (repository / "source.txt").write_bytes(b"good\n" + os.urandom(1 << 20))
    subprocess.run(["dvc", "remote", "add", "-q", "-d", "store", disk / "store"], check=True)
    with small_disk(disk, 1 << 19):
        state = pipeline.pipeline(push=True, return_state=True)
    assert f"DVC's remote, {disk / 'store'}, can't be written: " in str(state.message)
    assert "make room" in str(state.message) and outcome.code_of(state) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("repository")
def test_null_means_if_there_is_a_remote() -> None:
    assert "push" not in run(push=None, pull=None)[0]
    subprocess.run(["dvc", "remote", "add", "-q", "-d", "store", "store"], check=True)
    Path("store").mkdir()
    states = run(push=None, pull=None)[0]
    assert (states["pull"], states["push"]) == ("Completed", "Completed")


def test_results_are_shown_beside_the_run(repository: Path) -> None:
    """With the change since the last commit, and a run that is named after its data."""
    metrics = {"test": {"accuracy": 0.75, "interval_95": {"accuracy": [0.5, 1.0]}}, "slices": {"a": 1}}
    gates = {"passed": True, "gates": [{"verdict": "pass", "why": "test.accuracy is high"}]}
    files = {
        "data/dataset/dataset.json": json.dumps({"manifest": "0123456789abcdef"}),
        "reports/metrics.json": json.dumps(metrics),
        "reports/gates.json": json.dumps(gates),
        "reports/evaluation/confusion.csv": "label,predicted\n<a>,<a>\nb,<a>\n",
        "reports/index.html": "<p>page</p>",
    }
    for name, text in files.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(text)
    (repository / "dvc.yaml").write_text(ONE_STAGE)
    state = pipeline.pipeline(return_state=True)
    with get_client(sync_client=True) as client:
        assert state.state_details.flow_run_id
        flow_run = client.read_flow_run(state.state_details.flow_run_id)
        found = {
            artifact.key: str(artifact.data)
            for artifact in client.read_artifacts()
            if artifact.flow_run_id == flow_run.id
        }
    assert flow_run.name == "data 01234567"
    assert set(found) == {"metrics", "gates", "confusion-matrix", "report"}
    assert json.loads(found["metrics"]) == [
        {"metric": "test.accuracy", "value": 0.75, "before": "", "change": ""}
    ]
    assert "✓ test.accuracy is high" in found["gates"]
    image = base64.b64decode(found["confusion-matrix"].partition(",")[2]).decode()
    assert "&lt;a&gt;" in image
    assert image.count("<rect") == 1 + 4
    assert (repository / "reports/index.html").as_uri() in found["report"]


def test_metrics_are_set_beside_those_of_the_last_commit() -> None:
    rows = artifacts.metrics({"test": {"accuracy": 0.75}}, {"test.accuracy": 0.5})
    assert rows == [{"metric": "test.accuracy", "value": 0.75, "before": 0.5, "change": "+0.25"}]


@pytest.mark.slow
def test_images_that_dvc_tracks_are_pulled_before_they_are_missed(repository: Path) -> None:
    subprocess.run(["dvc", "remote", "add", "-q", "-d", "store", "../store"], check=True)
    (repository / "mine/a").mkdir(parents=True)
    (repository / "mine/a/1.png").write_bytes(b"picture")
    for words in (["add", "-q", "mine"], ["push", "-q"]):
        subprocess.run(["dvc", *words], check=True)
    for name in ("mine", ".dvc/cache"):
        remove(repository / name)
    setting = ("data.images=mine",)
    assert "mine is not a folder" in run(set=setting)[1]
    assert run(set=setting, pull=True)[0]["first"] == "Completed"
    assert (repository / "mine/a/1.png").exists()
    (repository / "mine/a/2.png").write_bytes(b"another")  # which DVC doesn't know yet
    assert run(pull=True)[0]["first"] == "Cached"
    assert (repository / "mine/a/2.png").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("repository")
def test_data_that_dvc_tracks_does_not_keep_a_schedule_from_skipping() -> None:
    Path("mine").mkdir()
    Path("mine/1.png").write_bytes(b"picture")
    subprocess.run(["dvc", "add", "-q", "mine"], check=True)
    run()
    Path("mine/2.png").write_bytes(b"no stage reads it")
    assert run(only_if_changed=True) == ({}, "every stage is up to date")


def test_an_input_that_changes_before_dvc_has_read_it_ends_the_run(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(repository, "Path('result').write_text(Path('source.txt').read_text())")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    stage = "{cmd: python work.py && echo better > source.txt, deps: [source.txt], outs: [result]}"
    (repository / "dvc.yaml").write_text(f"stages: {{work: {stage}}}")
    assert run() == ({"work": "Failed"}, "source.txt was changed while work ran; run it again")
    assert run()[0] == {"work": "Completed"}
    assert (repository / "result").read_text() == "better\n"


@pytest.mark.slow
def test_a_command_that_was_mended_is_tried_again(repository: Path) -> None:
    (repository / "dvc.yaml").write_text(THREE_STAGES.replace("cp first.txt middle.txt", "exit 2"))
    assert run(only_if_changed=True)[0]["middle"] == "Failed"
    assert run(only_if_changed=True)[0] == {}
    (repository / "dvc.yaml").write_text(THREE_STAGES)
    assert run(only_if_changed=True)[0]["middle"] == "Completed"


@pytest.mark.slow
def test_what_was_killed_is_tried_again(repository: Path) -> None:
    (repository / "dvc.yaml").write_text(THREE_STAGES.replace("cp source.txt first.txt", "kill -9 $$"))
    for _ in range(2):
        states, message = run(only_if_changed=True)
        assert states == {"first": "Failed"}
        assert "SIGKILL" in message


def test_a_stage_that_does_not_heed_its_end_is_killed(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it prints meanwhile doesn't fill the pipe, and the outputs that it had are back."""
    monkeypatch.setattr(dvc_command, "GRACE", 1)
    deaf = "trap '' INT; while grep -q bad source.txt; do seq 10000; done; cp source.txt copy.txt"
    stage = f'stages:\n  deaf:\n    cmd: "{deaf}"\n    deps: [source.txt]\n    outs: [copy.txt]\n'
    (repository / "dvc.yaml").write_text(stage)
    assert run()[0] == {"deaf": "Completed"}
    (repository / "source.txt").write_text("bad\n")
    assert run(stage_hours=2 / 3600)[0] == {"deaf": "TimedOut"}
    assert not running()
    assert (repository / "copy.txt").read_text() == "good\n"


def test_the_end_of_a_stages_time_comes_again_where_its_exception_was_ignored(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Python ignores it in a finalizer. The stage went on for ever."""
    ignored: list[BaseException] = []

    class Ignoring:
        def match(self, _text: str) -> bool:
            if not ignored:
                try:
                    time.sleep(5)
                except BaseException as error:
                    ignored.append(error)
            return True

    monkeypatch.setattr(dvc_command, "AGAIN", 1)
    monkeypatch.setattr("tasks.core.release.dvc_api.CHATTER", Ignoring())
    stage = "stages: {long: {cmd: sleep 20 && cp source.txt copy.txt, deps: [source.txt], outs: [copy.txt]}}"
    (repository / "dvc.yaml").write_text(stage)
    assert run(stage_hours=2 / 3600)[0] == {"long": "TimedOut"}
    assert ignored


def test_what_outlives_dvc_is_ended_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt may end DVC while it starts a stage, which then has no parent, and may ignore it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dvc_command, "GRACE", 1)
    deaf = "trap '' INT; touch started; sleep 600"
    script = f"import subprocess, time; subprocess.Popen(['sh', '-c', {deaf!r}]); time.sleep(600)"
    words = [sys.executable, "-c", script]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as child:
        until(Path("started").exists, 600)
        dvc_command.stop(child, ["pull"])
    until(lambda: not dvc_command.has_group(child))


def test_workers_end_with_a_run_by_hand() -> None:
    """In a process of its own, as it ends all that this one has started."""
    code = (
        "import subprocess; from flows.run import Run; child = subprocess.Popen(['sleep', '60']); "
        "Run().end_workers(); print(child.wait(10))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["-9"]


@pytest.mark.slow
def test_a_remote_that_is_away_is_no_reason_not_to_try_again(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.transfer, "retries", 0)
    (repository / "not-a-folder").touch()
    subprocess.run(["dvc", "remote", "add", "-q", "-d", "store", "not-a-folder"], check=True)
    Path("mine").write_text("data")
    subprocess.run(["dvc", "add", "-q", "mine"], check=True)
    for name in ("mine", ".dvc/cache"):
        remove(repository / name)
    parameters: dict[str, Any] = {"only_if_changed": True, "pull": True}
    assert run(**parameters)[0] == {"pull": "Failed"}
    assert run(**parameters)[0] == {"pull": "Failed"}


def test_prefects_own_default_of_retries_starts_nothing_again() -> None:
    """A flow that waits for another try has no end to report, and was "a fault of ours"."""
    code = """from flows import monitor, pipeline, promote
found = [monitor.monitor, monitor.score_images, monitor.compare]
found += [pipeline.pipeline, promote.promote, promote.step]
print([one.retries for one in found])"""
    asked = {"PREFECT_FLOWS_DEFAULT_RETRIES": "1", "PREFECT_TASKS_DEFAULT_RETRIES": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | asked,
    )
    assert done.stdout == "[0, 0, 0, 0, 0, 0]\n"


def test_the_name_of_a_file_that_is_no_text_can_be_told() -> None:
    """Prefect keeps messages as UTF-8."""
    for state in (
        outcome.stopped("caf\udce9 is\nodd"),
        outcome.failed_by(DarkroomError("caf\udce9 is\nodd")),
    ):
        assert state.message == "caf\\udce9 is odd"
