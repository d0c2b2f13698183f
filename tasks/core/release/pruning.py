"""What takes room on this disk, was made here, and is needed by nothing that is kept."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from ruamel.yaml import YAML

from tasks.core.base.paths import MODELS, cache_folder
from tasks.core.release import git
from tasks.core.release.dvc_api import Run, Store

CACHED = ("features", "scores")  # folders of our cache that grow with each other model or data set


@dataclass(frozen=True)
class Unused:
    """Files that may go. runs: records of what stages gave. contents: of DVC's cache. cached: of ours."""

    runs: list[Path]
    contents: list[Path]
    cached: list[Path]

    def sizes(self) -> tuple[int, int]:
        """Bytes in DVC's cache, and in ours."""
        first, second = (
            sum(file.stat().st_size for file in files) for files in (self.runs + self.contents, self.cached)
        )
        return first, second

    def remove(self) -> None:
        """Records go first: one whose contents are gone would promise what can't be had."""
        for file in chain(self.runs, self.contents, self.cached):
            file.unlink(missing_ok=True)
            with suppress(OSError):  # it has others
                file.parent.rmdir()


def find_unused(store: Store, keep: int) -> Unused:
    """Finds what earlier runs of the stages made, and nothing names that is kept.

    What was given, images and labels of any commit, is not looked at: it can't be made again.

    Args:
        keep: runs of each stage, the last ones.
    """
    stages = defaultdict(list)
    for run in store.runs():
        stages[run.stage].append(run)
    kept = list(chain.from_iterable(runs[:keep] for runs in stages.values()))
    dropped = list(chain.from_iterable(runs[keep:] for runs in stages.values()))
    needed = store.in_use() | store.with_files(_given()) | _contents(kept)
    made = map(store.file, sorted(_contents(dropped) - needed))
    return Unused(
        [run.file for run in dropped], [file for file in made if file.is_file()], list(_cached(dropped))
    )


def _contents(runs: Iterable[Run]) -> set[str]:
    return set().union(*(run.contents for run in runs))


def _given() -> Iterator[str]:
    """Digests of data that was ever committed: by `dvc add`, not by a stage."""
    words = ("log", "--all", "--raw", "--no-abbrev", "--no-renames", "--diff-filter=AM", "--format=")
    listed = git.attempt(*words, "--", "*.dvc").stdout.splitlines()  # nothing where there is no git
    for blob in {line.split()[3] for line in listed}:
        for out in YAML(typ="safe").load(git.run("cat-file", "blob", blob)).get("outs", []):
            if digest := out.get("md5"):
                yield digest


def _cached(dropped: list[Run]) -> Iterator[Path]:
    """Files of our cache that are older than any training that is kept."""
    last = max((run.time for run in dropped if str(MODELS) in run.outputs), default=0.0)
    for folder in CACHED:
        for file in (cache_folder() / folder).rglob("*"):
            if file.is_file() and file.stat().st_mtime < last:
                yield file
