"""Mends what DVC leaves half written where it is killed, interrupted or out of room.

It writes dvc.lock, and its record of what runs, in place; from such a moment on no command of DVC's starts.
`.ci/install` has each `dvc` of .venv begin with this module, and so does `tasks.check`, for another one. It
imports nothing of ours.
"""

import atexit
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

LOCK = Path("dvc.lock")
COPY = Path(".dvc/tmp/stages/dvc.lock")  # as it was when a stage began
RECORD = Path(".dvc/tmp/rwlock")  # which process reads and writes what
EXPERIMENTS = Path(".dvc/tmp/exps")  # in folders of their own
RUNS = Path(".dvc/cache/runs")  # a folder for each set of inputs, with what a stage gave for them
RECORD_HELD, LOCK_HELD = Path(".dvc/tmp/rwlock.lock"), Path(".dvc/tmp/lock")  # by who writes these
MADE = Path("export/artifacts.json")
TIMED = Path("export/export.json")  # that with times of this machine, at which DVC doesn't look
MEASURE = "`python -m tasks.latency` writes that of these"
CHANGED = 2  # exit code
OLD = 600  # seconds
RESTORING = {"repro", "exp", "experiments", "stage"}  # DVC's commands that restore stages from its run cache
CONFLICT = "<<<<<<<"  # of git, which a person has to resolve


def copy_lock() -> None:
    """Keeps dvc.lock as it is now, if it is sound: while a stage is at work, its DVC doesn't write."""
    with suppress(OSError):
        if _is_sound(LOCK):
            new = COPY.with_suffix(".new")
            shutil.copyfile(LOCK, new)
            new.replace(COPY)


def mend() -> list[str]:
    """Removes records that can't be read, are unfinished or of nobody, and brings back a sound dvc.lock.

    Returns:
        A line for each. Nothing is done while DVC holds them.
    """
    lines = []
    if RECORD.is_file() and not _is_record(RECORD):
        with _holding(RECORD_HELD) as held:
            if held and not _is_record(RECORD):
                RECORD.unlink()
                lines.append(f"{RECORD} could not be read, as after a full disk; it is removed")
    if RECORD.is_file():
        with _holding(RECORD_HELD) as held:
            if held and _forget_dead_holders():
                lines.append(
                    f"{RECORD} named a process that is gone, whose number another has now; it is mended"
                )
    if LOCK.is_file() and not _is_sound(LOCK) and _is_ours(LOCK):
        with _holding(LOCK_HELD) as held:
            if held and not _is_sound(LOCK):
                half = COPY.with_suffix(".half")
                LOCK.replace(half)  # it may be somebody's work
                now = "gone, for no stage had begun"
                if COPY.is_file():
                    shutil.copyfile(COPY, LOCK)
                    now = "as it was when a stage began"
                lines.append(f"{LOCK} was half written, and is {now}; {half} has what there was")
    with _holding(LOCK_HELD) as held:
        if held:
            _remove_unfinished()
    return lines


def holders(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The processes that DVC's record names: of a path one that writes it, or several that read it."""
    found = [each for kind in record.values() for each in kind.values()]
    return [one for each in found for one in (each if isinstance(each, list) else [each])]


def is_of_another(holder: dict[str, Any]) -> bool:
    """Whether the number of a process in DVC's record is another's by now, or nobody has waited for its end.

    DVC looks for the number alone, and so waits for ever where that is taken again, as each container's first
    is. This process has just begun, and holds nothing yet. Times tell nothing: a file's may be a server's.
    """
    with suppress(psutil.Error, OSError, ValueError, LookupError, TypeError):
        now = psutil.Process(int(holder["pid"]))
        if now.pid == os.getpid() or now.status() == psutil.STATUS_ZOMBIE:
            return True
        program, words = Path(now.exe()).name.lower(), now.cmdline()
        if not ("python" in program or "dvc" in program):
            return True
        # DVC notes the arguments. Of a module that Python runs it has the file in place of the name.
        return not ("-m" in words[:-1] or holder["cmd"].endswith(words[-1]))
    return False


def _forget_dead_holders() -> bool:
    """Takes those out of DVC's record whose numbers are others'."""
    record = json.loads(RECORD.read_text("utf-8"))
    gone = [one for one in holders(record) if is_of_another(one)]
    if gone:
        read, write = record.get("read", {}), record.get("write", {})
        read = {path: [one for one in each if one not in gone] for path, each in read.items()}
        write = {path: one for path, one in write.items() if one not in gone}
        RECORD.write_text(json.dumps({"read": read, "write": write}), "utf-8")
    return bool(gone)


def _remove_unfinished() -> None:
    """Removes what a DVC left that ended as it noted a run. It needs one in a folder, and takes the latest.

    Experiments note theirs here too, and hold a lock of their own; where there are any, it must be old.
    """
    are_others = any(EXPERIMENTS.glob("tmp*"))
    for entry in (*RUNS.glob("*/*/.*.tmp"), *RUNS.glob("*/*")):
        with suppress(OSError):  # a folder that has some
            if not are_others or entry.stat().st_mtime < time.time() - OLD:
                entry.rmdir() if entry.is_dir() else entry.unlink()


def _is_ours(lock: Path) -> bool:
    """Whether stages of this project have run, and no conflict of git's is to be resolved by a person."""
    return COPY.parent.is_dir() and CONFLICT not in lock.read_text("utf-8", "replace")


def _is_record(file: Path) -> bool:
    """Whether it is JSON of DVC's form."""
    try:
        record = json.loads(file.read_text("utf-8"))
        return all(isinstance(each, dict) for each in record.values())
    except (ValueError, AttributeError):
        return False


def _is_sound(lock: Path) -> bool:
    """Whether DVC can read it: it may lack the last stages, which then run again, but not half of one."""
    from ruamel.yaml import YAML  # which DVC imports too
    from ruamel.yaml.error import YAMLError

    try:
        text = lock.read_text("utf-8")
        found = YAML(typ="safe").load(text)
        entries = found["stages"].values()
        parts = [part for entry in entries for kind in ("deps", "outs") for part in entry.get(kind, ())]
        words = [entry["cmd"] for entry in entries] + [part["path"] for part in parts]
        values = [value for part in parts for value in part.values()]
        are_whole = all(words) and all(value is not None for value in values)
        return text.endswith("\n") and "schema" in found and are_whole
    except (OSError, ValueError, LookupError, TypeError, AttributeError, YAMLError):
        return False


@contextmanager
def _holding(file: Path) -> Iterator[bool]:
    """Holds a lock of DVC's, if nobody else does; it is made by DVC alone, of whose kinds one is its name."""
    if _locks_by_links():
        yield False
        return
    if not file.is_file():
        yield True
        return
    with file.open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _locks_by_links() -> bool:
    """Whether DVC has been told `core.hardlink_lock`, for a file system that can't lock."""
    files = [file for file in Path(".dvc").glob("config*") if file.is_file()]
    return any("hardlink_lock" in file.read_text("utf-8", "replace") for file in files)


def begin_dvc() -> None:
    """What a `dvc` that starts does first, and last, in the project that it is in."""
    sys.unraisablehook = lambda _: None  # such as of a progress bar that ctrl-c met half made
    with _interrupts_waiting():
        if RESTORING.intersection(sys.orig_argv):
            with suppress(ImportError, AttributeError):  # another DVC than the lock's
                guard_restores()
        _begin_in_project()


def _begin_in_project() -> None:
    here = Path.cwd()
    project = next((folder for folder in (here, *here.parents) if (folder / RECORD.parent).is_dir()), None)
    if not project:
        return
    os.chdir(project)
    try:
        with suppress(OSError):
            for line in mend():
                print(f"dvc: {line}", file=sys.stderr)
            judge()
    finally:
        os.chdir(here)
    atexit.register(_end_dvc, project, os.getpid())


@contextmanager
def _interrupts_waiting() -> Iterator[None]:
    """Has ctrl-c wait here, and in what is started, and then end this process without Python's traceback."""
    handler = signal.getsignal(signal.SIGINT)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if handler is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)


def guard_restores() -> None:
    """Has DVC restore a stage from its run cache only if its inputs stay, and from files as it made.

    DVC looks for a run of the inputs, brings back what that gave, and records it beside the inputs as they
    are by then: what was edited meanwhile would be clean and wrong. And it takes each read-only file of its
    cache for sound. Its own check of others, which reads what has another time or size than in its list of
    digests, removes what was changed, and the stage runs. It is asked again after files were copied.
    A note of a run is named for its own digest, at which DVC doesn't look: one that was cut short may still
    be YAML, of which half is there.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it may be that they are errors still
        from dvc.exceptions import DvcException
        from dvc.stage import Stage
        from dvc.stage.cache import RunCacheNotFoundError, StageCache, _get_cache_hash
        from dvc_data.hashfile.db import HashFileDB
        from dvc_data.hashfile.db.local import LocalHashFileDB

    restore, save_deps, check = StageCache.restore, Stage.save_deps, LocalHashFileDB.check
    checkout, load = Stage.checkout, StageCache._load_cache
    restored: dict[str, list[Any]] = {}  # the inputs of each stage that was, which DVC saves next

    def restoring(self: Any, stage: Any, *words: Any, **options: Any) -> None:
        LocalHashFileDB.check = HashFileDB.check  # type: ignore[method-assign]
        try:
            restore(self, stage, *words, **options)
        finally:
            LocalHashFileDB.check = check  # type: ignore[method-assign]
        restored[stage.addressing] = _digests(stage)

    def checking_out(self: Any, *words: Any, **options: Any) -> Any:
        found = checkout(self, *words, **options)
        is_restoring = LocalHashFileDB.check is HashFileDB.check
        if is_restoring and not self.outs_cached():
            self.remove_outs()  # what was copied is damaged; the stage, which runs now, isn't to find it
            raise RunCacheNotFoundError(self)
        return found

    def loading(self: Any, key: str, name: str) -> Any:
        note = load(self, key, name)
        if note and _get_cache_hash(note) != name:
            Path(self._get_cache_path(key, name)).unlink()
            return None
        return note

    def saving(self: Any, *words: Any, **options: Any) -> None:
        before = restored.pop(self.addressing, None)
        save_deps(self, *words, **options)
        if changed := [dep for dep in _digests(self) if before is not None and dep not in before]:
            path = changed[0][0]
            raise DvcException(f"{path} was changed while DVC restored {self.addressing}; run it again")

    StageCache.restore, Stage.save_deps = restoring, saving
    Stage.checkout, StageCache._load_cache = checking_out, loading


def _digests(stage: Any) -> list[Any]:
    return [(dep.def_path, dep.hash_info) for dep in stage.deps]


def judge() -> int:
    """Withdraws what DVC has recorded wrongly, in a process that may import this project; its exit code."""
    if not any(COPY.parent.glob("*.json")):
        return 0
    words = [sys.executable, "-m", "tasks.core.base.inputs", str(os.getpid())]
    return subprocess.run(words, check=False).returncode


def _are_times_of_others() -> bool:
    """Whether the times are of other artifacts than DVC has brought."""
    try:
        facts = [json.loads(file.read_text("utf-8"))["artifacts"] for file in (TIMED, MADE)]
        digests = [{kind: fact.get("sha256") for kind, fact in each.items()} for each in facts]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False
    return digests[0] != digests[1]


def _end_dvc(project: Path, pid: int) -> None:
    """Removes times that DVC has left beside other artifacts, and judges what its last stage was given.

    Where that is something else than is recorded, DVC ends with an exit code of its own.
    """
    if os.getpid() != pid:  # a fork, which has its parent's functions
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # in what judges too; the work is done
    with suppress(OSError):
        os.chdir(project)
        if _are_times_of_others():
            TIMED.unlink()
            print(f"dvc: {TIMED} was of other artifacts, and is removed; {MEASURE}", file=sys.stderr)
        if judge() == CHANGED:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(CHANGED)
