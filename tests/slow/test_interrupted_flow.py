"""A flow that is ended ends its stage too, with the earlier outputs back and nothing left running."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests import live
from tests.live import environment, until, working

pytestmark = pytest.mark.slow

PIPELINE = """
stages:
  work:
    cmd: python work.py
    deps: [source]
    outs: [result]
"""
STAGE = """
import time
from pathlib import Path
from tasks.core.base import cli

def main():
    Path("result").write_text(Path("source").read_text())
    if Path("source").read_text() == "second":
        Path("started").touch()
        time.sleep(100)

cli.stage(main)
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC repository whose one stage has run once."""
    folder = tmp_path_factory.mktemp("prepared") / "repository"
    live.repository(folder, PIPELINE, STAGE, "first")
    subprocess.run(["dvc", "repro", "-q"], cwd=folder, env=environment(folder), check=True)
    return folder


@pytest.fixture
def repository(prepared: Path, prefect_home: Path, tmp_path: Path) -> Path:
    """Its copy, in which that stage takes long next time."""
    folder = tmp_path / "repository"
    shutil.copytree(prepared, folder)
    shutil.copytree(prefect_home, tmp_path / "prefect")
    (folder / "source").write_text("second")
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="looks for left-over processes in /proc")
@pytest.mark.parametrize("way", ["ctrl-c", "terminated", "killed"])
def test_a_flow_that_is_ended_leaves_all_as_it_was(repository: Path, way: str) -> None:
    log = repository.parent / "log"
    with log.open("w") as stream:
        flow = subprocess.Popen(
            [sys.executable, "-m", "flows.pipeline"],
            cwd=repository,
            env=environment(repository),
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    until((repository / "started").exists, 120)
    if way == "ctrl-c":
        os.killpg(flow.pid, signal.SIGINT)  # as a terminal does
    else:
        flow.send_signal(signal.SIGTERM if way == "terminated" else signal.SIGKILL)
    code = flow.wait(30)
    text = log.read_text()
    if way != "killed":
        assert code == 130
        assert text.splitlines()[-1] == "pipeline: interrupted"
    assert "Traceback" not in text
    until(lambda: not working(repository), 30)
    assert (repository / "result").read_text() == "first"
    with closing(sqlite3.connect(repository.parent / "prefect/prefect.db")) as database:
        states = database.execute("select state_name from flow_run").fetchall()
    assert states == [("Running" if way == "killed" else "Cancelled",)]
