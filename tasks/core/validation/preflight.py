"""What can be checked before anything runs: that what params.yaml names is there."""

import shutil
import subprocess
from pathlib import Path

from tasks.core.base.errors import DataError
from tasks.core.base.paths import DATASET, DIGITS, EXPORT, MANIFEST, METRICS, MODELS

WRITTEN = (DIGITS, MANIFEST, DATASET, MODELS, METRICS.parent, EXPORT, Path(".dvc"))


def check(images: Path, labels: Path, schema: Path) -> None:
    """Looks for what would end the run later, when DVC has less to say or an hour has passed.

    Raises:
        DataError: names the key, the value and the remedy.
    """
    if images != DIGITS and not images.is_dir():
        home = "; write ~ out in full" if str(images).startswith("~") else ""
        raise DataError(f"data.images: {images} is not a folder; point it at your images{home}")
    _check_apart(images)
    if not labels.is_file():
        raise DataError(f"data.labels: {labels} is not a file; give a CSV or Parquet of path,label")
    if not schema.is_file():
        raise DataError(f"data.schema: {schema} is not there; `python -m tasks.validate --suggest` writes it")


def _check_apart(images: Path) -> None:
    """Refuses a folder that holds what the pipeline writes, or that the pipeline writes itself."""
    if images == DIGITS:
        return
    place = images.resolve()
    for name in WRITTEN:
        other = Path(name).resolve()
        if other.is_relative_to(place):
            raise DataError(
                f"data.images: {images} is where {name} lies, which the pipeline writes; give your images a "
                "folder of their own"
            )
        if place.is_relative_to(other):
            raise DataError(
                f"data.images: {images} lies in {name}, which the pipeline writes; move it elsewhere"
            )


def check_repository() -> None:
    """Looks for a git repository without a commit, in which DVCLive can't start: after all was built.

    Raises:
        DataError: it is one.
    """
    if _git("--git-dir") and not _git("HEAD"):
        raise DataError("this git repository has no commit yet; make one: git add -A && git commit -m Begin")


def _git(what: str) -> bool:
    git = shutil.which("git")
    if not git:
        return False
    return subprocess.run([git, "rev-parse", what], check=False, capture_output=True).returncode == 0
