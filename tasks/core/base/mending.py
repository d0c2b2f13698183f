"""Mends what DVC leaves half written where it is killed, interrupted or out of room.

It writes dvc.lock, and its record of what runs, in place; from such a moment on no command of DVC's starts.
`.ci/install` has each `dvc` of .venv begin with this module, and so does `tasks.check`, for another one. It
imports nothing of ours.
"""

import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = Path("dvc.lock")
COPY = Path(".dvc/tmp/stages/dvc.lock")  # as it was when a stage began
RECORD = Path(".dvc/tmp/rwlock")  # which process reads and writes what
RECORD_HELD, LOCK_HELD = Path(".dvc/tmp/rwlock.lock"), Path(".dvc/tmp/lock")  # by who writes these
CONFLICT = "<<<<<<<"  # of git, which a person has to resolve


def copy_lock() -> None:
    """Keeps dvc.lock as it is now, if it is sound: while a stage is at work, its DVC doesn't write."""
    with suppress(OSError):
        if _is_sound(LOCK):
            new = COPY.with_suffix(".new")
            shutil.copyfile(LOCK, new)
            new.replace(COPY)


def mend() -> list[str]:
    """Removes a record that can't be read, and brings back the last dvc.lock that could.

    Returns:
        A line for each. Nothing is done while DVC holds them.
    """
    lines = []
    if RECORD.is_file() and not _is_json(RECORD):
        with _holding(RECORD_HELD) as held:
            if held and not _is_json(RECORD):
                RECORD.unlink()
                lines.append(f"{RECORD} could not be read, as after a full disk; it is removed")
    if LOCK.is_file() and not _is_sound(LOCK) and CONFLICT not in LOCK.read_text("utf-8", "replace"):
        with _holding(LOCK_HELD) as held:
            if held and not _is_sound(LOCK):
                COPY.parent.mkdir(exist_ok=True)
                LOCK.replace(COPY.with_suffix(".half"))  # it may be somebody's work
                if COPY.is_file():
                    shutil.copyfile(COPY, LOCK)
                lines.append(f"{LOCK} was half written, as when DVC is killed; it is as it was before")
    return lines


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_text("utf-8"))
    except ValueError:
        return False
    return True


def _is_sound(lock: Path) -> bool:
    """Whether DVC can read it: it may lack the last stages, which then run again, but not half of one."""
    from ruamel.yaml import YAML  # which DVC imports too
    from ruamel.yaml.error import YAMLError

    try:
        found = YAML(typ="safe").load(lock.read_text("utf-8"))
        entries = found["stages"].values()
        parts = [part for entry in entries for kind in ("deps", "outs") for part in entry.get(kind, ())]
        are_whole = all("path" in dict(part) for part in parts)
        return "schema" in found and are_whole and all("cmd" in entry for entry in entries)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, YAMLError):
        return False


@contextmanager
def _holding(file: Path) -> Iterator[bool]:
    """Holds a lock of DVC's, if nobody else does."""
    with file.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def begin_dvc() -> None:
    """What a `dvc` that starts does first, in the project that it is in."""
    here = Path.cwd()
    project = next((folder for folder in (here, *here.parents) if (folder / RECORD.parent).is_dir()), None)
    if project:
        os.chdir(project)
        try:
            with suppress(OSError):
                for line in mend():
                    print(f"dvc: {line}", file=sys.stderr)
        finally:
            os.chdir(here)
