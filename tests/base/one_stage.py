"""A DVC repository of one stage, whose `main` a test writes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.structure import ROOT

Done = subprocess.CompletedProcess[str]


STAGE = """'Stage `work`: a stage for a test.'
import os, time
from pathlib import Path
from tasks.core.base import cli, console
from tasks.core.base.errors import DataError, Rejected

def main():
    {body}

cli.stage(main)
"""

DVC_YAML = """
stages:
  work:
    cmd: python work.py
    deps: [source, "${images}", tasks/code.py, tasks/core/room]
    params: [train]
    outs: [result, folder]
"""

FIRST = "Path('result').write_text('first'); Path('folder').mkdir(); Path('folder/first').touch()"
HALF = "assert not Path('result').exists()\nPath('folder').mkdir(); Path('folder/half').touch()\n"


def script(folder: Path, body: str) -> Path:
    """Writes `work.py`, a stage whose `main` has this body."""
    file = folder / "work.py"
    file.write_text(STAGE.format(body=body.replace("\n", "\n    ")))
    return file


def environment(**more: str) -> dict[str, str]:
    own = str(Path(sys.executable).parent)
    path = own + os.pathsep + os.environ["PATH"]
    return os.environ | {"PYTHONPATH": str(ROOT), "PATH": path} | more


def finish(
    words: list[str],
    folder: Path,
    preexec_fn: Callable[[], None] | None = None,
    env: dict[str, str] | None = None,
) -> Done:
    """Runs a command in a folder to its end, whatever that is."""
    return subprocess.run(
        words,
        cwd=folder,
        env=env or environment(),
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=preexec_fn,
    )


def repro(folder: Path, body: str) -> Done:
    script(folder, body)
    return finish(["dvc", "repro"], folder)


def is_as_the_first_run_left_it(folder: Path) -> bool:
    names = [path.name for path in (folder / "folder").iterdir()]
    return (folder / "result").read_text() == "first" and names == ["first"]
