"""A stage's process among others: it ends with the one that started it, and restores what DVC removed.

It begins before the rest of a stage is imported, which takes seconds in which a process can be ended too.
"""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType

import psutil

from tasks.core.base import console

INTERRUPTED = 130
INTERNAL = 70  # EX_SOFTWARE of sysexits.h: our fault, not the user's
# Of a terminal that is closed too, but under nohup.
SIGNALS = [signal.SIGINT, signal.SIGTERM]
SIGNALS += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []
PR_SET_PDEATHSIG = 1
QUIET = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)  # as Python has it
# What git tells a hook of its repository: of `git rev-parse --local-env-vars` those that aren't settings.
OF_GIT_HOOKS = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX", "GIT_NAMESPACE"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH", "GIT_SHALLOW_FILE"),
)
STAGE = "DVC_STAGE"  # in the environment of what DVC starts: the stage's name
RECORDS = Path(".dvc/tmp/stages")  # what stages tell those that come after them
OWN_PID = "DARKROOM_PID"  # in the environment, which a stage's children get too, with a pid that isn't theirs

closed: set[str] = set()  # of stdin, stdout and stderr, by whoever started this process
started: list[float] = []  # when this stage did, before it imported anything
_held: list[int] = []  # the lock of this stage
predecessors: list[str] = []  # this stage's name, if it had to wait for one
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def open_streams() -> None:
    """Opens what the caller has closed: the next file would take its number, and get what is meant for it."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for number, stream in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, stream) is None:
            closed.add(stream)
            setattr(sys, stream, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115


def install_stage_handlers() -> None:
    """Prepares this process for its end, if DVC has started it as a stage."""
    started.append(time.time())
    if STAGE in os.environ:
        os.environ.setdefault(OWN_PID, str(os.getpid()))
    if stage():
        end_on_signals()
        sys.excepthook = _fail_early
        end_with_dvc()
        with suppress(OSError):  # a file system without locks
            _wait_for_predecessor()


def _wait_for_predecessor() -> None:
    """Waits for this same stage of a run whose DVC was killed: it lives for seconds, and puts outputs back.

    The lock is held until this process and those that put outputs back have ended.
    """
    RECORDS.mkdir(parents=True, exist_ok=True)
    lock = os.open(RECORDS / f"{stage()}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    _held.append(lock)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        predecessors.append(str(stage()))
        console.say(f"{stage()}: waiting for this stage of an earlier run to end")
        fcntl.flock(lock, fcntl.LOCK_EX)


def end_on_signals() -> None:
    """Has signals end this process where an exception would come out of the middle of Python's own work.

    That is while it imports, and once its work is done.
    """
    for number in SIGNALS:
        signal.signal(number, _stop_early if stage() else signal.SIG_DFL)


def undo_warnings_as_errors() -> None:
    """Takes back Python's `-W error`, here and in what is started: other packages do warn."""
    if any(option.startswith("error") for option in sys.warnoptions):
        os.environ.pop("PYTHONWARNINGS", None)
        sys.warnoptions.clear()
        warnings.resetwarnings()
        for category in QUIET:
            warnings.simplefilter("ignore", category)


def forget_git_hook() -> None:
    """Has git look for the repository from this folder on, as DVC does.

    A hook is told which repository it is of, and what it starts is, too: a deployment that a push to another
    repository starts would read and make tags over there.
    """
    for name in OF_GIT_HOOKS:
        os.environ.pop(name, None)


def stage() -> str | None:
    """The name of the stage that this process is; none for a command, and for what a stage has started.

    DVC that was started elsewhere puts the way from there to dvc.yaml before it: `../dvc.yaml:validate`.
    """
    if os.environ.get(OWN_PID) != str(os.getpid()):
        return None
    return os.environ[STAGE].rpartition(":")[2] if STAGE in os.environ else None


def end_with_dvc() -> None:
    """Ends this stage once DVC is gone, even by SIGKILL: it would be an orphan that goes on writing.

    The kernel's parent-death signal won't do: DVC starts a stage by way of a shell, and not every shell
    hands its process over to the stage (Debian's sh does not).
    """
    link = _child_of_dvc()
    starter = link.ppid()

    def watch() -> None:
        with suppress(psutil.Error):
            while link.ppid() == starter:
                time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def dvc_pid() -> int | None:
    """The process of DVC that has started this one; none for a command."""
    return _child_of_dvc().ppid() if stage() else None


def is_first_of_dvc() -> bool:
    """Whether the DVC that has started this stage had started none before; asked once by each."""
    with suppress(OSError):
        file, dvc = RECORDS / "dvc", str(dvc_pid())
        if file.is_file() and file.read_text("utf-8") == dvc:
            return False
        file.write_text(dvc, "utf-8")
    return True


def _child_of_dvc() -> psutil.Process:
    """This stage, or the shell by which DVC has started it."""
    link = psutil.Process()
    with suppress(psutil.Error):
        while (parent := link.parent()) and STAGE in parent.environ():
            link = parent
    return link


def is_alive(pid: int) -> bool:
    """Whether a process is at work; one that has ended, and that nobody has waited for, is not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def die_with_parent() -> None:
    """Has the kernel end this process with the one that started it (Linux only), and lets it be interrupted.

    For a program that isn't ours, in the moment before it starts. It would else inherit that an interrupt is
    ignored, as by all that a script starts with `&`.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if _libc:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _stop_early(_signum: int, _frame: FrameType | None) -> None:
    """Ends a stage that isn't at work yet, or no more."""
    console.warn(f"{stage()}: interrupted")
    restore_outputs()
    os._exit(INTERRUPTED)


def _fail_early(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ends a stage that can't start: a module is missing, or has a slip."""
    if os.environ.get("DARKROOM_DEBUG"):
        sys.__excepthook__(kind, error, trace)
    remedy = "`make ready` installs what is missing" if isinstance(error, ImportError) else "mend it"
    where = f" ({error.filename}, line {error.lineno})" if isinstance(error, SyntaxError) else ""
    text = " ".join(f"{kind.__name__}: {error}".split()) if not where else f"{kind.__name__}{where}"
    console.warn(f"{stage()}: can't start, {text}; {remedy}")
    restore_outputs()
    os._exit(INTERNAL)


def restore_outputs() -> None:
    """Brings back the outputs that DVC removed before it started this stage.

    `persist: true` would keep them too, but takes the stage out of DVC's run cache. Where the stage has begun
    to write again, `--force` lets the old output win.
    """
    name = stage()
    if not name:
        return
    ignore_signals()  # another ctrl-c would leave half of it restored
    check_out(name)


def ignore_signals() -> None:
    """For a process that is ending already."""
    for number in (*SIGNALS, signal.SIGALRM):  # the last interrupts again where one went unheard
        signal.signal(number, signal.SIG_IGN)


def check_out(name: str) -> None:
    """Brings back the outputs that a stage had when it last ran to its end."""
    words = [sys.executable, "-m", "dvc", "checkout", "--force", "--quiet", name]
    done = subprocess.run(words, check=False, capture_output=True, start_new_session=True, pass_fds=_held)
    if done.returncode and _has_run(name):
        console.warn(f"{name}: earlier outputs are not back; try `dvc checkout {name}`")


def _has_run(name: str) -> bool:
    lock = Path("dvc.lock")
    return lock.is_file() and f"\n  {name}:\n" in lock.read_text("utf-8")
