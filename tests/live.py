"""Processes that are started and waited for, and a small repository for them to work in."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.project import FIRST_COMMIT, without_server
from tests.structure import ROOT


def until(come: Callable[[], object], seconds: int = 60, said: Callable[[], str] = str) -> None:
    """Waits for something to come.

    Args:
        said: what those have said who were to bring it, for the message if they don't.
    """
    end = time.monotonic() + seconds
    while not come():
        assert time.monotonic() < end, f"waited in vain\n{said()}"
        time.sleep(0.1)


def free_ports(count: int = 1) -> list[int]:
    """Ports of this machine that nobody listens at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def working(folder: Path, words: str = "") -> list[psutil.Process]:
    """Processes that work in a folder, with these words in their command lines."""

    def is_one(process: psutil.Process) -> bool:
        try:
            return process.cwd() == str(folder) and words in " ".join(process.cmdline())
        except psutil.Error:
            return False

    return [one for one in psutil.process_iter() if is_one(one)]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Of a command that works in a folder: with this project to import, and a Prefect home beside it."""
    path = str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]
    own = {"PYTHONPATH": str(ROOT), "PATH": path, "PREFECT_HOME": str(folder.parent / "prefect")}
    return os.environ | own | more


def repository(folder: Path, pipeline: str, stage: str, source: str) -> None:
    """Makes a DVC repository of a dvc.yaml, a `work.py` that it starts, and a `source` that it reads."""
    (folder / "data").mkdir(parents=True)
    for name in ("params.yaml", "prefect.toml", "data/labels.csv", "data/schema.yaml"):
        (folder / name).write_text(without_server((ROOT / name).read_text("utf-8")))
    for name, text in (("dvc.yaml", pipeline), ("work.py", stage), ("source", source)):
        (folder / name).write_text(text)
    for words in (["git", "init", "-q"], FIRST_COMMIT, ["dvc", "init", "-q"]):
        subprocess.run(words, cwd=folder, env=environment(folder), check=True)


def held_stage(source: str, result: str, log: str, said: str) -> str:
    """The text of a stage that copies a file, and waits before that for as long as `hold` is there.

    Args:
        log: a file that it adds `said` to when it starts; then it makes `started`.
    """
    return f"""
import time
from pathlib import Path
from tasks.core.base import cli

def main():
    with open("{log}", "a") as file:
        file.write({said!r})
    Path("started").touch()
    while Path("hold").exists():
        time.sleep(0.1)
    Path("{result}").write_text(Path("{source}").read_text())

cli.stage(main)
"""


def unprivileged() -> list[str]:
    """What takes from root the right to read everything; others never had it."""
    if os.geteuid() != 0:
        return []
    if not shutil.which("setpriv"):
        pytest.skip("root reads everything, and setpriv, which takes that away, is not installed")
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
