"""A stage's process among others: it ends with the one that started it, and gives back what DVC took.

It begins before the rest of a stage is imported, which takes seconds in which a process can be ended too.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

INTERRUPTED = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM)
PR_SET_PDEATHSIG = 1
OWN_PID = "DARKROOM_PID"  # in the environment, which a stage's children get too, with a pid that isn't theirs

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def begin() -> None:
    """Prepares this process for its end, if DVC has started it as a stage."""
    if "DVC_STAGE" in os.environ:
        os.environ.setdefault(OWN_PID, str(os.getpid()))
    if stage():
        die_with_parent()
        for number in SIGNALS:
            signal.signal(number, _stop_early)


def stage() -> str | None:
    """The name of the stage that this process is; none for a command, and for what a stage has started."""
    return os.environ.get("DVC_STAGE") if os.environ.get(OWN_PID) == str(os.getpid()) else None


def die_with_parent() -> None:
    """Has the kernel end this process when the one that started it dies, even by SIGKILL.

    Otherwise a killed `dvc repro` or flow leaves a stage behind that goes on writing. Linux only;
    elsewhere a terminal's ctrl-c reaches the whole process group as it always does.
    """
    if _libc:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _stop_early(_signum: int, _frame: FrameType | None) -> None:
    """Ends a stage that is still importing: an exception would come out of the middle of an import."""
    tell(f"{stage()}: interrupted")
    give_back()
    os._exit(INTERRUPTED)


def give_back() -> None:
    """Brings back the outputs that DVC removed before it started this stage.

    `persist: true` would keep them too, but takes the stage out of DVC's run cache. Where the stage has begun
    to write anew, `--force` lets the old output win.
    """
    name = stage()
    if not name:
        return
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # another ctrl-c would find half of it given back
    words = [sys.executable, "-m", "dvc", "checkout", "--force", "--quiet", name]
    done = subprocess.run(words, check=False, capture_output=True, start_new_session=True)
    if done.returncode and _has_run(name):
        tell(f"{name}: earlier outputs are not back; try `dvc checkout {name}`")


def tell(line: str) -> None:
    """Writes a line to stderr, if there is still someone who reads it."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def _has_run(name: str) -> bool:
    lock = Path("dvc.lock")
    return lock.is_file() and f"\n  {name}:\n" in lock.read_text("utf-8")
