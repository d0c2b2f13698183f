"""What can fail around a flow ends in one line or in waiting, and leaves nothing for the user to mend."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows import server
from tests import live
from tests.live import environment, free_ports, held_stage, until
from tests.soak.faults import can_mount, small_disk

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="mounts, and looks into /proc"),
]

PIPELINE = """
stages:
  first:
    cmd: cp source first
    deps: [source]
    outs: [first]
  work:
    cmd: python work.py
    deps: [first]
    outs: [result]
"""
STAGE = held_stage("first", "result", "ran", "x")


@pytest.fixture
def repository(prefect_home: Path, tmp_path: Path) -> Path:
    """A DVC repository of two stages, of which the second waits while `hold` is there."""
    folder = tmp_path / "repository"
    live.repository(folder, PIPELINE, STAGE, "one")
    shutil.copytree(prefect_home, tmp_path / "prefect")
    return folder


@contextmanager
def started(folder: Path, *words: str, **more: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A command at work in a folder, and the file that it writes to."""
    log = folder.parent / f"{'-'.join(words)}.log"
    with log.open("w") as stream:
        child = subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=folder,
            env=environment(folder, **more),
            text=True,
            stdout=stream,
            stderr=stream,
        )
        try:
            yield child, log
        finally:
            child.kill()
            child.wait()


def run(folder: Path, *words: str, **more: str) -> tuple[int, str]:
    with started(folder, *words, **more) as (child, log):
        code = child.wait(180)
        return code, log.read_text()


def test_two_runs_at_once_are_two_one_after_the_other(repository: Path) -> None:
    (repository / "hold").touch()
    with started(repository, "flows.pipeline") as (one, _):
        until((repository / "started").exists)
        with started(repository, "flows.pipeline", "work") as (two, log):
            until(lambda: f"another run is at work in this folder (process {one.pid})" in log.read_text())
            (repository / "hold").unlink()
            assert (one.wait(180), two.wait(180)) == (0, 0)
            assert "work is up to date (2 cached)" in log.read_text()
    assert (repository / "ran").read_text() == "x"


def test_a_flow_waits_for_what_dvc_repro_does(repository: Path) -> None:
    (repository / "hold").touch()
    with started(repository, "dvc", "repro") as (repro, _):
        until((repository / "started").exists)
        with started(repository, "flows.pipeline") as (flow, log):
            until(lambda: "waiting for" in log.read_text())
            (repository / "hold").unlink()
            assert (repro.wait(180), flow.wait(180)) == (0, 0)
            assert "every stage is up to date" in log.read_text()
    assert (repository / "ran").read_text() == "x", "nothing is done twice"
    assert run(repository, "dvc", "status", "--quiet")[0] == 0


def test_dvc_repro_is_told_of_a_flow_at_work(repository: Path) -> None:
    """DVC's own words, with the process; neither of the two is harmed."""
    (repository / "hold").touch()
    with started(repository, "flows.pipeline") as (flow, _):
        until((repository / "started").exists)
        code, said = run(repository, "dvc", "repro")
        assert code != 0
        assert "is busy" in said
        assert "repro --single-item work" in said
        (repository / "hold").unlink()
        assert flow.wait(180) == 0
    assert run(repository, "dvc", "repro")[1].count("didn't change") == 2


def test_a_server_that_is_down_is_told_of_with_the_way_without(repository: Path) -> None:
    url = f"http://127.0.0.1:{free_ports()[0]}/api"
    code, said = run(repository, "flows.pipeline", PREFECT_API_URL=url)
    assert code == 2
    (line,) = said.splitlines()
    assert line.startswith(f"pipeline: no Prefect server answers at {url}")
    assert "make serve" in line
    assert line.endswith("--no-server")
    assert not (repository / "ran").exists()
    assert run(repository, "flows.pipeline", "--no-server", PREFECT_API_URL=url)[0] == 0


def test_a_server_that_dies_on_the_way_loses_no_work(repository: Path) -> None:
    port = free_ports()[0]
    url = f"http://127.0.0.1:{port}/api"
    own = server.launch(port, subprocess.DEVNULL, PREFECT_HOME=str(repository.parent / "prefect"))
    until(lambda: server.is_up(url), 120)
    (repository / "hold").touch()
    impatient = {"PREFECT_API_URL": url, "PREFECT_CLIENT_MAX_RETRIES": "1"}  # which would take two minutes
    with started(repository, "flows.pipeline", **impatient) as (flow, log):
        until((repository / "started").exists)
        own.kill()
        own.wait()
        (repository / "hold").unlink()
        assert flow.wait(180) == 2
        (line,) = [line for line in log.read_text().splitlines() if line.startswith("pipeline: ")]
    assert f"server at {url} failed on the way" in line
    assert "what the stages have done is kept" in line
    code, said = run(repository, "flows.pipeline", "--no-server")
    assert code == 0
    assert "every stage is up to date (2 cached)" in said


def test_a_prefect_home_that_can_not_be_written_is_named(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, said = run(repository, "flows.pipeline", PREFECT_HOME=str(tmp_path / "file/home"))
    assert code == 2
    assert "PREFECT_HOME" in said.splitlines()[-1]
    assert "Traceback" not in said


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A folder for a file system of its own; skips the test where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not can_mount(folder):
        pytest.skip("can't mount here")
    return folder


def test_a_full_prefect_home_is_named(repository: Path, disk: Path) -> None:
    with small_disk(disk, 64 << 10):
        code, said = run(repository, "flows.pipeline", PREFECT_HOME=str(disk / "home"))
    assert code == 2
    assert said.splitlines()[-1].startswith("pipeline: Prefect's server can't start")
    assert "room in PREFECT_HOME" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert not (repository / "ran").exists()


def test_a_full_disk_is_named_and_room_is_all_that_it_takes(
    prefect_home: Path, disk: Path, tmp_path: Path
) -> None:
    with small_disk(disk, 2 << 20):
        folder = disk / "repository"
        live.repository(folder, PIPELINE, STAGE, "one")
        home = {"PREFECT_HOME": str(shutil.copytree(prefect_home, tmp_path / "prefect"))}
        assert run(folder, "flows.pipeline", **home)[0] == 0
        (folder / "work.py").write_text(STAGE.replace('Path("first").read_text()', '"x" * 4_000_000'))
        (folder / "source").write_text("two")
        log = tmp_path / "said"
        with log.open("w") as stream:  # beside the disk that is full
            code = subprocess.run(
                [sys.executable, "-m", "flows.pipeline"],
                cwd=folder,
                env=environment(folder, **home),
                check=False,
                stdout=stream,
                stderr=stream,
            ).returncode
        said = log.read_text()
        assert code == 2, said
        assert said.splitlines()[-1].startswith("work: No space left on device")
        assert "Traceback" not in said
        assert (folder / "result").read_text() == "one", "the earlier result is back"
        subprocess.run(["mount", "-o", "remount,size=40m", str(disk)], check=True)
        assert run(folder, "flows.pipeline", **home)[0] == 0
        assert (folder / "result").stat().st_size == 4_000_000
