"""What takes room in DVC's cache, was made by earlier runs of stages, and is named by nothing that stays."""

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import psutil

from tasks.core.base import leftovers, params
from tasks.core.base.mending import EXPERIMENTS
from tasks.core.release import git
from tasks.core.release.dvc_api import Store

# Whatever a file of DVC's names, be it whole, half merged or of an earlier format.
DIGEST = re.compile(r"\bmd5: ['\"]?([0-9a-f]{32}(?:\.dir)?)\b")
CHAMPION = re.compile(r"(?m)^\s+champion: ['\"]?([^\s'\"]+)")  # of params.yaml, which may not be sound now


@dataclass(frozen=True)
class Unused:
    """Files that may go: contents, those of a folder before its list of them; notes of runs."""

    contents: list[Path]
    notes: list[Path]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(file.stat().st_size for file in self.contents)

    def remove(self) -> None:
        """In an order in which a kill leaves notes whose contents are gone: DVC runs such a stage again."""
        for file in chain(self.contents, self.notes):
            file.unlink(missing_ok=True)
        for note in self.notes:
            with suppress(OSError):  # it has others
                note.parent.rmdir()


def is_at_work() -> bool:
    """Whether a stage, or an experiment in a folder of its own, reads or writes the cache."""
    if leftovers.are_others_at_work():
        return True
    home = EXPERIMENTS.absolute()
    for each in psutil.process_iter():
        with suppress(psutil.Error):  # of another user
            if Path(each.cwd()).is_relative_to(home):
                return True
    return False


def find_unused(store: Store, keep: int) -> Unused:
    """Finds what stages' earlier runs made, if nothing names it.

    What was given, images and labels of any commit, is not looked at: it can't be made again.

    Args:
        keep: runs of each stage, the last ones of those whose contents are here.

    Raises:
        DarkroomError: git can't say what it has.
    """
    stages = defaultdict(list)
    for run in store.runs():
        stages[run.stage].append(run)
    kept = chain.from_iterable(runs[:keep] for runs in stages.values())
    needed = store.with_files(named()).union(*(run.contents for run in kept))
    dropped = [run for runs in stages.values() for run in runs[keep:] if not needed.issuperset(run.contents)]
    contents = set[str]().union(*(run.contents for run in dropped)) - needed
    files = map(store.file, sorted(contents, key=lambda digest: (digest.endswith(".dir"), digest)))
    return Unused([file for file in files if file.is_file()], [run.file for run in dropped])


def named() -> set[str]:
    """Digests that are named here: by outputs in the working copy, and at HEAD of each worktree, by branches,
    those of remotes, tags, experiments and stashes, and by the champion; by data that was ever committed.
    """
    found: set[str] = set()
    for file in chain(Path().rglob("*.dvc"), Path().rglob("dvc.lock")):
        if file.is_file():
            found.update(DIGEST.findall(file.read_text("utf-8", "replace")))
    for blob in _blobs() if git.is_here() else ():
        found.update(DIGEST.findall(git.run("cat-file", "blob", blob)))
    return found


def _blobs() -> set[str]:
    """What git has of DVC's files, by its own ids: `dvc.lock` of commits that have a name, `.dvc` of all."""
    words = (
        "--all",
        "--reflog",
        "-m",
        "--raw",
        "--no-abbrev",
        "--no-renames",
        "--diff-filter=AM",
        "--format=",
    )
    found = {line.split()[3] for line in git.run("log", *words, "--", "*.dvc").splitlines()}
    for tip in _tips():
        # A name may be of a file, or of what a shallow clone hasn't.
        for line in git.attempt("ls-tree", "-r", "--full-tree", tip).stdout.splitlines():
            facts, _, name = line.partition("\t")
            if name.endswith((".dvc", "dvc.lock")):
                found.add(facts.split()[2])
    return found


def _tips() -> Iterator[str]:
    yield from set(git.run("for-each-ref", "--format=%(objectname)").splitlines())
    yield from git.attempt("log", "--walk-reflogs", "--format=%H", "refs/stash", "--").stdout.split()
    for line in git.run("worktree", "list", "--porcelain").splitlines():
        if line.startswith("HEAD "):
            yield line.split()[1]
    with suppress(FileNotFoundError):
        yield from CHAMPION.findall(params.FILE.read_text("utf-8", "replace"))
