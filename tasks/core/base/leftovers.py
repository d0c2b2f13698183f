"""What killed processes leave: temporary files of this machine, in DVC's cache, and beside outputs."""

import atexit
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from tasks.core.base import mending, process
from tasks.core.base.files import HOST, is_json, read_json, remove
from tasks.core.base.mending import OLD, RECORD

LOCK = "lock"  # in a temporary folder: held by the process that it is of
PREFIX, SUFFIX = "darkroom-", ".tmp"
CACHE = Path(".dvc/cache/files/md5")  # a cache elsewhere may be at work for others
OF_DVC = re.compile(r"\.[\w-]{22}\.tmp")
OF_OURS = re.compile(rf"\..+\.{re.escape(HOST)}\.(\d+)\.(?:new|old)\.tmp")


def use_own_temporary_folder() -> None:
    """Has this process, and those that it starts, put temporary files into one folder, which ends with it.

    Packages leave theirs where they are killed: AutoGraph a module for each function that it has read. So the
    next process of ours removes the folder, of which nobody holds the lock any more.
    """
    with suppress(OSError):  # no room: they will see for themselves
        _remove_abandoned(Path(tempfile.gettempdir()))
        folder, lock = _locked_folder()
        while not (Path(folder) / LOCK).exists():  # another has taken it for abandoned, in the moment before
            folder, lock = _locked_folder()
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        atexit.register(_remove_own, folder, os.getpid(), lock)


def _locked_folder() -> tuple[str, TextIO]:
    folder = tempfile.mkdtemp(SUFFIX, PREFIX)
    lock = (Path(folder) / LOCK).open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return folder, lock


def _remove_own(folder: str, pid: int, lock: object) -> None:
    if os.getpid() == pid:  # and not a fork, which has its parent's functions
        shutil.rmtree(folder, ignore_errors=True)
    del lock


def _remove_abandoned(top: Path) -> None:
    for folder in top.glob(f"{PREFIX}*{SUFFIX}"):
        with suppress(OSError):  # of another user, or gone by now
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / LOCK).open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)


def sweep(outputs: Iterable[str]) -> None:
    """Removes what killed runs left in DVC's cache and beside outputs.

    Args:
        outputs: of all stages.
    """
    with suppress(OSError):  # a cache that can't be written needs no sweeping
        for file in _dead({Path(), *(Path(out).parent for out in outputs)}):
            remove(file)


def _dead(folders: Iterable[Path]) -> Iterator[Path]:
    """Temporary files whose maker is dead.

    Those of DVC don't tell whose they are: none else may be at work here, and they must be some minutes old,
    since an experiment in a folder of its own, or a clone that shares the cache, is not seen.
    """
    places = [entry for folder in folders if folder.is_dir() for entry in folder.iterdir()]
    for entry in places:
        found = OF_OURS.fullmatch(entry.name)
        if found and not process.is_alive(int(found[1])):
            yield entry
    if not are_others_at_work():
        places += CACHE.glob("*/*") if CACHE.is_dir() else ()
        for entry in places:
            if OF_DVC.fullmatch(entry.name) and entry.lstat().st_mtime < time.time() - OLD:
                yield entry


def are_others_at_work() -> bool:
    """Whether a DVC that hasn't started this process reads or writes something here."""
    records = read_json(RECORD) if RECORD.is_file() and is_json(RECORD) else {}
    pids = {int(one["pid"]) for one in mending.holders(records) if not mending.is_of_another(one)}
    return any(map(process.is_alive, pids - {process.dvc_pid()}))
