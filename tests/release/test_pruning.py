"""What is removed to free room can be made again; what is named anywhere, or was given, stays."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.core.base.files import remove, write_json
from tasks.core.base.mending import RECORD
from tests.project import ME
from tests.release.test_dvc_api import dvc
from tests.structure import ROOT

PIPELINE = """
stages:
  train:
    cmd: mkdir models; cp source models/model; echo ran >> ran
    deps: [source]
    outs: [models]
"""
RUNS = ("one", "two", "three", "four", "five")
GIVEN = RUNS[:2]


def git(*words: str) -> None:
    subprocess.run(["git", *ME, *words], check=True, capture_output=True)


def run(source: str) -> bool:
    """Runs the pipeline on a source; whether the stage had to run, and was not brought back."""
    Path("ran").unlink(missing_ok=True)
    Path("source").write_text(source)
    code, said = dvc("repro")
    assert code == 0, said
    assert Path("models/model").read_text() == source
    return Path("ran").exists()


@pytest.fixture(scope="module")
def five_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute apart; the first two are tagged, with data that is replaced since."""
    folder = tmp_path_factory.mktemp("five") / "here"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        git("init", "-q", "--initial-branch", "main")
        dvc("init", "-q")
        Path("dvc.yaml").write_text(PIPELINE)
        seen: set[Path] = set()
        for minute, source in enumerate(RUNS):
            run(source)
            for file in set(Path(".dvc/cache/runs").glob("*/*/*")) - seen:
                os.utime(file, (minute * 60, minute * 60))
                seen.add(file)
            if source in GIVEN:
                Path("images").write_text(f"images of {source}")
                dvc("add", "images")
            git("add", "--all")
            git("commit", "-q", "-m", source)
            if source in GIVEN:
                git("tag", source)
    return folder


@pytest.fixture(autouse=True)
def repository(five_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(five_runs, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "here"


def prune(*words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tasks.prune", *words],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    return done.returncode, (done.stdout + done.stderr).strip()


def objects() -> int:
    return sum(file.is_file() for file in Path(".dvc/cache/files").rglob("*"))


def test_what_is_kept_is_brought_back_and_what_is_gone_is_made_again(tmp_path: Path) -> None:
    for name, minute in (("old", 1), ("new", 4)):
        file = tmp_path / "cache/features" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        os.utime(file, (minute * 60, minute * 60))
    before = objects()
    code, said = prune("--runs", "2", "--dry-run")
    assert code == 0 and "would free" in said and "of 3 earlier runs" in said
    assert objects() == before
    code, said = prune("--runs", "2")
    assert code == 0 and said.startswith("prune: freed") and "of 3 earlier runs" in said
    # Of "three" the folder and its file; "one" and "two" have tags.
    assert objects() == before - 2
    assert [file.name for file in (tmp_path / "cache/features").iterdir()] == ["new"]
    assert dvc("status")[1] == ["Data and pipelines are up to date."]
    assert not run("four")
    assert run("three")
    code, said = prune("--runs", "2")
    assert "of 1 earlier runs" in said


def test_what_a_tag_names_and_what_was_given_stays() -> None:
    git("tag", "--delete", "two")
    assert prune("--runs", "1")[0] == 0
    git("checkout", "-q", "--force", "one")
    assert dvc("checkout", "--force")[0] == 0
    assert Path("models/model").read_text() == "one"
    git("checkout", "-q", "--force", "main~3")
    dvc("checkout", "--force", "images")
    assert Path("images").read_text() == "images of two"
    assert dvc("checkout", "--force", "models")[0] != 0


def test_where_there_is_no_git_the_working_copy_and_the_last_runs_stay(repository: Path) -> None:
    remove(repository / ".git")
    dvc("config", "core.no_scm", "true")
    code, said = prune("--runs", "1")
    assert code == 0 and "of 4 earlier runs" in said
    assert not run("five")


def test_a_cache_that_may_be_of_others_is_left_alone(repository: Path) -> None:
    dvc("cache", "dir", str(repository.parent / "shared"))
    code, said = prune()
    assert code == 2 and "may be of others too" in said and "\n" not in said


def test_nothing_is_removed_while_a_stage_is_at_work() -> None:
    write_json(RECORD, {"models": {"write": {"pid": os.getppid(), "cmd": "dvc repro"}}})
    code, said = prune()
    assert code == 2 and said == "prune: a stage is at work here; run it again when that has ended"


def test_where_nothing_ever_ran_nothing_is_to_go(repository: Path) -> None:
    remove(repository / ".dvc/cache")
    code, said = prune()
    assert code == 0 and said.startswith("prune: freed 0.0 MB")
