"""How a stage or a command starts, and how it ends: exit 0, 1 for a no, 2 for a mistake."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tasks.core.errors import DarkroomError, Rejected
from tasks.core.serialize import sha256

INTERNAL = 70  # EX_SOFTWARE of sysexits.h: our fault, not the user's
_STDERR = threading.RLock()


def stage(main: Callable[[], None], **instead: Callable[[], int]) -> NoReturn:
    """Runs a DVC stage, with its earlier outputs back if it can't do its work.

    Args:
        instead: what a person may ask for in the stage's place, with an option of that name; its docstring
            is the option's help.
    """
    arguments = parser(sys.modules["__main__"].__doc__)
    for option, function in instead.items():
        arguments.add_argument(f"--{option}", action="store_true", help=function.__doc__)
    chosen = vars(arguments.parse_args())
    for option, function in instead.items():
        if chosen[option]:
            command(function)
    die_with_parent()
    before = _sources()

    def work() -> int:
        main()
        _check_unchanged(before)
        return 0

    code = _guarded(work)
    if code not in (0, Rejected.exit_code):  # a verdict is whole, and someone wants to read it
        _give_back()
    sys.exit(code)


def command(main: Callable[[], int]) -> NoReturn:
    """Runs a command for a person; `main` reads its own arguments and returns the exit code."""
    sys.exit(_guarded(main))


def parser(doc: str | None) -> argparse.ArgumentParser:
    """An argument parser that shows the module's docstring as its help."""
    return argparse.ArgumentParser(
        prog=f"python -m {Path(sys.argv[0]).parent.name}.{name()}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def name() -> str:
    """The stage's or command's own name: the module that was started."""
    return Path(sys.argv[0]).stem


def say(text: str) -> None:
    """Prints a line of progress, at once, also into a pipe."""
    print(_plain(text), flush=True)


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps stderr's file shut: TensorFlow's C++ writes there whatever its log level is.

    What goes wrong is raised as an exception all the same. One thread at a time: of two, the second to leave
    would leave it shut.
    """
    with _STDERR:
        sys.stderr.flush()
        saved, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 2)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # tensorflow-hub's pkg_resources, among others
                yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(nothing)


def _guarded(work: Callable[[], int]) -> int:
    """Turns every failure into one line on stderr and an exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return work()
    except DarkroomError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `| head` is no error
        return 0
    except OSError as error:
        return _complain(f"{error.strerror or error}: {error.filename or 'no file named'}", 2)
    except Exception as error:
        if os.environ.get("DARKROOM_DEBUG"):
            traceback.print_exc()
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return _complain(f"a fault of ours, {text[:300]}; DARKROOM_DEBUG=1 shows where", INTERNAL)


def _complain(text: str, code: int) -> int:
    print(_plain(f"{name()}: {text}"), file=sys.stderr, flush=True)
    return code


def _plain(text: str) -> str:
    """One line that any terminal can show: the names of files may hold line ends, control codes and worse."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _terminate(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def die_with_parent() -> None:
    """Has the kernel end this process when the one that started it dies, even by SIGKILL.

    Otherwise a killed `dvc repro` or flow leaves a stage behind that goes on writing. Linux only;
    elsewhere a terminal's ctrl-c reaches the whole process group as it always does.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _sources() -> dict[Path, str]:
    """Digests of every file of our own code that is loaded, and of params.yaml."""
    own = [Path(file) for m in list(sys.modules.values()) if (file := getattr(m, "__file__", None))]
    root = Path.cwd()
    files = [file for file in own if file.is_relative_to(root / "tasks")] + [root / "params.yaml"]
    return {file: sha256(file) for file in files if file.exists()}


def _check_unchanged(before: dict[Path, str]) -> None:
    """Refuses to end well if the code or params.yaml was edited meanwhile.

    DVC hashes dependencies when a stage ends: it would record the new text beside the old result.
    """
    for file, digest in before.items():
        if not file.exists() or sha256(file) != digest:
            shown = file.relative_to(Path.cwd())
            raise DarkroomError(f"{shown} was changed while this stage ran; run it again")


def _give_back() -> None:
    """Brings back the outputs that DVC removed before it started this stage.

    `persist: true` would keep them too, but takes the stage out of DVC's run cache.
    """
    if stage_name := os.environ.get("DVC_STAGE"):
        subprocess.run(
            [sys.executable, "-m", "dvc", "checkout", "--quiet", stage_name],
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
