import shutil
import subprocess
from pathlib import Path

import pytest

from tests.base.one_stage import DVC_YAML, FIRST, environment, repro


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC repository whose one stage has run once, and left `result` and `folder`."""
    folder = tmp_path_factory.mktemp("repository")
    for words in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        subprocess.run(words, cwd=folder, env=environment(), check=True)
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / "params.yaml").write_text("train: {epochs: 1}\nreport: {mistakes: 1}\nimages: pictures\n")
    (folder / "source").write_text("good")
    (folder / "pictures/cat").mkdir(parents=True)
    (folder / "pictures/cat/1.png").write_text("one")
    (folder / "tasks/core/room").mkdir(parents=True)
    for name in ("code.py", "core/room/code.py"):
        (folder / "tasks" / name).touch()
    done = repro(folder, FIRST)
    assert done.returncode == 0, done.stderr
    (folder / "source").write_text("bad")
    return folder


@pytest.fixture
def repository(run_once: Path, tmp_path: Path) -> Path:
    """A copy of it for each test."""
    return shutil.copytree(run_once, tmp_path, symlinks=True, dirs_exist_ok=True)
