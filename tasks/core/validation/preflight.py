"""What can be checked before anything runs: that what params.yaml names is there."""

import shutil
import subprocess
from pathlib import Path

from tasks.core.base.errors import DataError
from tasks.core.base.paths import DIGITS


def check(images: Path, labels: Path, schema: Path) -> None:
    """Looks for what would end the run later, when DVC has less to say or an hour has passed.

    Raises:
        DataError: names the key, the value and the remedy.
    """
    if images != DIGITS and not images.is_dir():
        home = "; write ~ out in full" if str(images).startswith("~") else ""
        raise DataError(f"data.images: {images} is not a folder; point it at your images{home}")
    if not labels.is_file():
        raise DataError(f"data.labels: {labels} is not a file; give a CSV or Parquet of path,label")
    if not schema.is_file():
        raise DataError(f"data.schema: {schema} is not there; `python -m tasks.validate --suggest` writes it")


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
