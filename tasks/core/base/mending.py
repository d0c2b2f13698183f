"""Mends what DVC leaves half written where it is killed, interrupted or out of room.

It writes dvc.lock, and its record of what runs, in place; after that no command of DVC's starts any more, and
nothing of ours runs when it does. So the first stage that a DVC starts begins this module as a process of its
own, which waits for the end of that DVC.
"""

import fcntl
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.core.base import process
from tasks.core.base.errors import DarkroomError
from tasks.core.base.files import is_json

LOCK = Path("dvc.lock")
COPY = process.RECORDS / "dvc.lock"  # as it was when a stage began
RECORD = Path(".dvc/tmp/rwlock")  # which process reads and writes what
RECORD_HELD, LOCK_HELD = Path(".dvc/tmp/rwlock.lock"), Path(".dvc/tmp/lock")  # by who writes these
POLL = 0.05  # seconds
CONFLICT = "<<<<<<<"  # of git, which a person has to resolve


def copy_lock() -> None:
    """Keeps dvc.lock as it is now, if it is sound: while a stage is at work, its DVC doesn't write."""
    with suppress(OSError):
        if _is_sound(LOCK):
            shutil.copyfile(LOCK, COPY.with_suffix(".new"))
            COPY.with_suffix(".new").replace(COPY)


def watch() -> None:
    """Starts the process that waits for the end of DVC; in a session of its own, to outlive a ctrl-c."""
    words = [sys.executable, "-m", "tasks.core.base.mending", str(process.dvc_pid())]
    nothing = subprocess.DEVNULL  # who reads the output of DVC waits for all that could write there
    with suppress(OSError):
        subprocess.Popen(words, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)


def mend() -> list[str]:
    """Removes a record that can't be read, and brings back the last dvc.lock that could.

    Returns:
        A line for each.

    Raises:
        DarkroomError: another process holds the record.
    """
    lines = []
    if RECORD.is_file() and not is_json(RECORD):
        with _holding(RECORD_HELD) as held:
            if not held:
                raise DarkroomError(f"another DVC is running here and holds {RECORD}; wait for its end")
            if not is_json(RECORD):
                RECORD.unlink()
                lines.append(f"{RECORD} could not be read, as after a full disk; it is removed")
    if LOCK.is_file() and not _is_sound(LOCK) and CONFLICT not in LOCK.read_text("utf-8", "replace"):
        with _holding(LOCK_HELD) as held:
            if held and not _is_sound(LOCK):
                if COPY.is_file():
                    COPY.replace(LOCK)
                else:
                    LOCK.unlink()
                lines.append(f"{LOCK} was half written, as when DVC is killed; it is as it was before")
    return lines


def _is_sound(lock: Path) -> bool:
    """Whether DVC can read it: it may lack the last stages, which then run again, but not half of one."""
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


def _wait_for(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        dvc = psutil.Process(pid)
        while dvc.is_running() and dvc.status() != psutil.STATUS_ZOMBIE:
            time.sleep(POLL)


if __name__ == "__main__":
    _wait_for(int(sys.argv[1]))
    with suppress(OSError, DarkroomError):
        mend()
