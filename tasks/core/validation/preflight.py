"""What can be checked before anything runs: that what params.yaml names is there."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tasks.core.base import presence
from tasks.core.base.errors import DataError
from tasks.core.base.files import is_hidden
from tasks.core.base.paths import DATASET, DIGITS, EXPORT, MANIFEST, METRICS, MODELS, cache_folder

PATTERN = "*?[\\"  # characters
BEGIN = "git add -A && git commit -m Begin"
SHA1 = f"mv .git ../git-of-sha256 && git init --object-format=sha1 && {BEGIN}"
SAFE = re.compile(r"safe\.directory .+")
OTHER_REPOSITORY = "makes another DVC repository there, into which DVC doesn't look from here; move .dvc away"
UNSEEN = (".git", ".hg", ".dvc")  # by DVC itself
LOCK = ".#"  # of Emacs, a link to nothing, which .dvcignore has
WRITTEN = (DIGITS, MANIFEST, DATASET, MODELS, METRICS.parent, EXPORT, Path(".dvc"))


def check(images: Path, labels: Path, schema: Path) -> None:
    """Looks for what would end the run later, when DVC has less to say or an hour has passed.

    Raises:
        DataError: names the key, the value and the remedy.
    """
    if images != DIGITS:
        presence.check_images(images)
    _check_apart(images)
    _check_recordable(images)
    presence.check_labels(labels)
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


def _check_recordable(images: Path) -> None:
    """Refuses what DVC can't record, would wait for without end, or doesn't look at, so as to miss edits."""
    if images == DIGITS:
        return
    place, here = Path(os.path.abspath(images)), Path.cwd()  # noqa: PTH100, which leaves .. in
    is_inside = place.is_relative_to(here)
    for above in place.parents[: place.parents.index(here)] if is_inside else ():
        if (above / ".dvc").is_dir():
            raise DataError(f"data.images: {above / '.dvc'} {OTHER_REPOSITORY}")
    folders = [str(images)]
    while folders:
        folder = folders.pop()
        if not (os.access(folder, os.R_OK | os.X_OK) or is_hidden(Path(folder).name)):
            raise DataError(f"data.images: {folder} can't be listed; check its owner and permissions")
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(LOCK):
                    continue
                if fault := _unrecordable(entry, is_inside):
                    raise DataError(f"data.images: {entry.path} {fault}")
                if entry.is_dir(follow_symlinks=False) and entry.name not in UNSEEN:
                    folders.append(entry.path)


def _unrecordable(entry: os.DirEntry[str], is_inside: bool) -> str | None:
    """What DVC has against a file or folder, and what to do; its own files count within the project alone."""
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        return "has a name that isn't UTF-8, which DVC can't record; rename it"
    if is_inside and entry.name == ".dvcignore":
        return "is DVC's list of what it doesn't look at, which may not lie here; remove it"
    if is_inside and entry.name == ".dvc" and entry.is_dir():
        return OTHER_REPOSITORY
    if entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110, a third of Path's time
        return "is a link that leads nowhere; fetch what it is of (as by git annex get), or remove it"
    if not (entry.is_file() or entry.is_dir()):
        return "is neither a file nor a folder; move it out of there"
    return None


def check_repository() -> None:
    """Looks for what DVC, DVCLive and TensorFlow can't work in, which they would say after all was built.

    Raises:
        DataError: a path that is a pattern, no git repository, one of another user, of SHA-256, or without a
            commit.
    """
    here = Path.cwd()
    if odd := sorted(set(PATTERN) & set(str(here))):
        raise DataError(
            f"the project's folder {here} has {' and '.join(odd)} in its path, which TensorFlow reads as a "
            "pattern of names; call it otherwise"
        )
    if not any((folder / ".git").exists() for folder in (here, *here.parents)):
        if not _works_without_git():
            raise DataError(f"{here} is in no git repository, which DVC needs; make one: git init && {BEGIN}")
        return
    if said := _refusal("--git-dir"):
        found = SAFE.search(said)
        if found:
            remedy = f"allow it: git config --global --add {found[0]}"
            raise DataError(f"this git repository is of another user, and git refuses it; {remedy}")
        raise DataError(f"git refuses this repository: {said.splitlines()[0]}")
    _check_digests()
    if _refusal("HEAD"):
        raise DataError(f"this git repository has no commit yet; make one: {BEGIN}")


def check_cache() -> None:
    """Looks for a folder that DVC's database can be in, without which it ends by an unexpected error.

    Raises:
        DataError: names the folder, and what hinders.
    """
    named = os.environ.get("DVC_SITE_CACHE_DIR")  # by the start of .venv, if not by the user
    if not named:
        return
    place, why = Path(named), "it may not be written to"
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = str(error.strerror)
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        is_ours = place.absolute() == (cache_folder() / "dvc").absolute()
        variable = "DARKROOM_CACHE" if is_ours else "DVC_SITE_CACHE_DIR"
        raise DataError(
            f"DVC can't keep its database in {place} ({why}); set {variable} to a folder that you may use"
        )


def _check_digests() -> None:
    """Refuses a repository of SHA-256: DVC runs stages there, and can't compare or promote what they give."""
    done = _rev_parse("--show-object-format")
    if done and done.stdout.strip() == "sha256":
        raise DataError(f"this git repository is of SHA-256, which DVC can't read; make one anew: {SHA1}")


def _works_without_git() -> bool:
    """Whether `dvc config core.no_scm true` has been said, here or for all projects."""
    words = [sys.executable, "-m", "dvc", "config", "core.no_scm"]
    return subprocess.run(words, check=False, capture_output=True, text=True).stdout.strip() == "true"


def _refusal(what: str) -> str:
    """What git has to say against it; nothing where there is no git, or it knows it."""
    done = _rev_parse(what)
    return done.stderr.strip() or "nothing" if done and done.returncode else ""


def _rev_parse(what: str) -> subprocess.CompletedProcess[str] | None:
    git = shutil.which("git")
    words = [str(git), "rev-parse", what]
    return subprocess.run(words, check=False, capture_output=True, text=True) if git else None
