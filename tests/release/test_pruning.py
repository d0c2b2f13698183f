"""What is removed to free room can be made again; what is named anywhere, or was given, stays."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.lock import make_lock

from tasks.core.base.files import remove, write_json
from tasks.core.base.leftovers import CACHE
from tasks.core.base.mending import LOCK_HELD, RECORD, RUNS
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
SOURCES = ("one", "two", "three", "four", "five")


def git(*words: str) -> str:
    done = subprocess.run(["git", *ME, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def run(source: str) -> bool:
    """Runs the pipeline on a source; whether the stage had to run, and was not brought back."""
    Path("ran").unlink(missing_ok=True)
    Path("source").write_text(source)
    code, said = dvc("repro")
    assert code == 0, said
    assert Path("models/model").read_text() == source
    return Path("ran").exists()


def objects() -> set[Path]:
    return {file for file in CACHE.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def five_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A commit for each, on one branch, and what they made a minute apart."""
    folder = tmp_path_factory.mktemp("five") / "here"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        git("init", "-q", "--initial-branch", "main")
        dvc("init", "-q")
        Path("dvc.yaml").write_text(PIPELINE)
        seen: set[Path] = set()
        for minute, source in enumerate(SOURCES):
            run(source)
            for file in objects() - seen:
                os.utime(file, (minute * 60, minute * 60))
            seen = objects()
            git("add", "--all")
            git("commit", "-q", "-m", source)
    return folder


@pytest.fixture(autouse=True)
def repository(five_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(five_runs, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def prune(*words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tasks.prune", *words],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert "\n" not in done.stdout.strip() + done.stderr.strip()
    return done.returncode, (done.stdout + done.stderr).strip()


def kept() -> set[str]:
    """The sources whose models are in the cache."""
    return {text for file in objects() if (text := file.read_text("utf-8", "replace")) in SOURCES}


def test_what_is_kept_is_brought_back_and_what_is_gone_is_made_again() -> None:
    before = objects()
    assert prune("--runs", "2", "--dry-run") == (
        0,
        "prune: would free 0.0 MB in DVC's cache, of 3 earlier runs of stages",
    )
    assert objects() == before
    code, said = prune("--runs", "2")
    assert code == 0 and said.startswith("prune: freed") and "of 3 earlier runs" in said
    assert kept() == {"four", "five"}
    assert len(objects()) == 4, "a folder and a file each"
    assert len(list(RUNS.glob("*/*"))) == 2, "DVC can't do with an empty folder"
    assert dvc("status")[1] == ["Data and pipelines are up to date."]
    assert not run("four")
    assert run("three")


def commit(source: str) -> str:
    return git("rev-parse", f"main~{len(SOURCES) - 1 - SOURCES.index(source)}")


def name_champion() -> None:
    Path("params.yaml").write_text(f"gate:\n  champion: {commit('one')}  # of last year\n")


def experiment() -> None:
    git("update-ref", "refs/exps/ab/cd/name", commit("one"))


def damage_a_branch() -> None:
    """Of which DVC reads nothing."""
    git("checkout", "-q", "-b", "bad", commit("one"))
    Path("dvc.yaml").write_text("stages: [")
    Path("dvc.lock").write_text(f"<<<<<<< HEAD\n{Path('dvc.lock').read_text()}=======\n>>>>>>> other\n")
    git("commit", "-q", "-a", "-m", "bad")
    git("checkout", "-q", "main")


def stash_twice() -> None:
    """Of which git's names have the last alone."""
    Path("dvc.lock").write_text(git("show", f"{commit('one')}:dvc.lock") + "\n")
    git("stash", "push", "-q")
    Path("source").write_text("of nothing yet")
    git("stash", "push", "-q")


def begin_a_history() -> None:
    git("tag", "one", commit("one"))
    git("checkout", "-q", "--orphan", "fresh")


NAMES: dict[str, Callable[[], object]] = {
    "tag": lambda: git("tag", "-a", "-m", "it", "one", commit("one")),
    "branch": lambda: git("branch", "one", commit("one")),
    "branch of a remote": lambda: git("update-ref", "refs/remotes/origin/one", commit("one")),
    "experiment": experiment,
    "HEAD that is detached": lambda: git("checkout", "-q", "--force", commit("one")),
    "working copy": lambda: git("checkout", "-q", commit("one"), "--", "dvc.lock"),
    "worktree": lambda: git("worktree", "add", "-q", "--detach", "../other", commit("one")),
    "champion": name_champion,
    "older stash": stash_twice,
    "branch that is damaged": damage_a_branch,
    "tag, and a HEAD without commits": begin_a_history,
}


@pytest.mark.parametrize("what", NAMES)
def test_what_has_a_name_stays(what: str) -> None:
    NAMES[what]()
    code, said = prune("--runs", "1")
    assert code == 0 and "of 3 earlier runs" in said
    assert kept() == {"one", "five"}


def test_what_loses_its_name_goes_the_next_time() -> None:
    git("tag", "one", commit("one"))
    prune("--runs", "1")
    git("tag", "--delete", "one")
    assert "of 1 earlier runs" in prune("--runs", "1")[1]
    assert kept() == {"five"}


@pytest.mark.parametrize("in_a_merge", [False, True])
def test_data_of_any_commit_stays_though_a_stage_made_the_same(in_a_merge: bool) -> None:
    """Here "two" was given, once: nobody could make it again, were no stage there."""
    git("branch", "side")
    Path("given").write_text("two" if not in_a_merge else "other")
    dvc("add", "given")
    git("add", "--all")
    git("commit", "-q", "-m", "given")
    if in_a_merge:
        git("checkout", "-q", "side")
        git("commit", "-q", "--allow-empty", "-m", "side")
        git("merge", "-q", "--no-commit", "main")
        Path("given").write_text("two")
        dvc("add", "given")
        git("add", "--all")
        git("commit", "-q", "-m", "merged")
    Path("given").write_text("another")
    dvc("add", "given")
    git("commit", "-q", "-a", "-m", "another")
    prune("--runs", "1")
    assert kept() == {"two", "five"}


def test_where_there_is_no_git_the_working_copy_and_the_last_runs_stay(repository: Path) -> None:
    git("checkout", "-q", commit("one"), "--", "dvc.lock")
    remove(repository / ".git")
    dvc("config", "core.no_scm", "true")
    assert prune("--runs", "1")[0] == 0
    assert kept() == {"one", "five"}


def test_what_git_cannot_read_is_not_taken_for_no_git(repository: Path) -> None:
    """As after a power cut; all but the last run's results would go, branches' and tags' among them."""
    git("tag", "one", commit("one"))
    Path(".git/HEAD").write_text("")
    before = objects()
    code, said = prune("--runs", "1")
    assert code == 2 and said.startswith(f"prune: git can't read {repository / '.git'}: ")
    assert objects() == before


def test_a_cache_that_may_be_of_others_is_left_alone(repository: Path) -> None:
    dvc("cache", "dir", str(repository.parent / "shared"))
    code, said = prune()
    assert code == 2 and "may be of others too" in said


def test_nothing_is_removed_while_a_stage_or_dvc_is_at_work(repository: Path) -> None:
    write_json(RECORD, {"models": {"write": {"pid": os.getppid(), "cmd": "dvc repro"}}})
    assert prune() == (2, "prune: a stage is at work here; run it again when that has ended")
    RECORD.unlink()
    folder = repository / ".dvc/tmp/exps/tmpabc"
    folder.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"], cwd=folder) as of_an_experiment:
        assert prune() == (2, "prune: a stage is at work here; run it again when that has ended")
        of_an_experiment.kill()
    with make_lock(str(LOCK_HELD), tmp_dir=str(RECORD.parent)):
        code, said = prune()
    assert code == 2 and "DVC is at work here" in said
    assert kept() == set(SOURCES)


def damage_a_list() -> None:
    for file in CACHE.rglob("*.dir"):
        file.chmod(0o644)
        file.write_bytes(b"\xff")


def damage_notes() -> None:
    for place, text in enumerate((b"", b"cmd:", b"\xff\xfe", b"cmd: x\nouts: [1]\n", b"outs:\n")):
        note = next(RUNS.glob("*/*/*")).with_name(f".{place}.tmp")
        note.write_bytes(text)


def damage_old_data() -> None:
    for text in (b"outs:\n", b"- a\n", b"\xff\xfe", b""):
        Path("naïve.dvc").write_bytes(text)
        git("add", "--all")
        git("commit", "-q", "--allow-empty", "-m", "bad")


@pytest.mark.parametrize("damage", [damage_a_list, damage_notes, damage_old_data])
def test_what_is_damaged_ends_nothing(damage: Callable[[], None]) -> None:
    damage()
    code, said = prune("--runs", "1")
    assert code == 0 and said.startswith("prune: freed")
    assert "five" in kept()
    if damage is not damage_a_list:
        assert kept() == {"five"}


def test_a_damaged_database_of_dvcs_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    dvc("status")
    files = list((tmp_path / "site").rglob("cache.db"))
    for file in files:
        file.write_bytes(b"x" * 5000)
    code, said = prune()
    assert files and code == 2 and "remove DVC's own database, .cache/dvc" in said


def test_one_that_was_killed_on_its_way_is_ended_by_the_next() -> None:
    for file in objects():
        if file.read_text() == "one":
            file.unlink()
    assert prune("--runs", "1")[0] == 0
    assert (kept(), len(list(RUNS.glob("*/*")))) == ({"five"}, 1)


def test_where_nothing_ever_ran_nothing_is_to_go(repository: Path) -> None:
    remove(repository / ".dvc/cache")
    code, said = prune()
    assert code == 0 and said.startswith("prune: freed 0.0 MB")
