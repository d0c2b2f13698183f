"""How a stage or a command starts, and how it ends: exit 0, 1 for a no, 2 for a mistake."""

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tasks.core.base import console, inputs, leftovers, mending, process
from tasks.core.base.errors import AGAIN, DarkroomError, Rejected, brief, remedy
from tasks.core.base.files import remove

INTERRUPT_DELAY = 0.01  # seconds
MAX_DIGITS = 20  # of a number


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

    def work() -> int:
        if stage := process.stage():
            _work_for_dvc(stage, main)
        else:
            main()
        return 0

    code = _guard(work)
    if code not in (0, Rejected.exit_code):  # a verdict is whole, and someone wants to read it
        process.restore_outputs()
    sys.exit(code)


def _work_for_dvc(stage: str, main: Callable[[], None]) -> None:
    """Does a stage's work, and sees to it that what DVC records of it is true."""
    if process.is_first_of_dvc():
        leftovers.sweep(inputs.outputs())
    for predecessor in process.predecessors:  # which has put back what DVC removed for this run
        for output in inputs.outputs(predecessor):
            remove(Path(output))
    if false := inputs.withdraw_false_records():
        raise DarkroomError(false[0])
    mending.copy_lock()
    before = inputs.look(stage)
    try:
        main()
    except DarkroomError:
        raise
    except Exception:
        if at_fault := inputs.blame(stage, before):
            raise DarkroomError(f"{at_fault} isn't as it was made, or was changed; {AGAIN}") from None
        raise
    written = inputs.look_at_outputs(stage)
    inputs.check_unchanged(stage, before)
    inputs.leave_note(stage, before, written)


def command(main: Callable[[], int]) -> NoReturn:
    """Runs a command for a person; `main` reads its own arguments and returns the exit code."""

    def work() -> int:
        try:
            return main()
        except BrokenPipeError:  # `| head` is no error
            console.silence()
            return 0

    sys.exit(_guard(work))


def parser(doc: str | None) -> argparse.ArgumentParser:
    """An argument parser that shows the module's docstring as its help."""
    return argparse.ArgumentParser(
        prog=f"python -m {Path(sys.argv[0]).parent.name}.{name()}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def whole(least: int, most: int = sys.maxsize) -> Callable[[str], int]:
    """A type of an argument: a whole number, how small it may be, and how large."""

    def number(text: str) -> int:
        # The length first: Python refuses to read a number of thousands of digits.
        if text.isdecimal() and (len(text) > MAX_DIGITS or int(text) > most):
            raise argparse.ArgumentTypeError(f"{text[:MAX_DIGITS]} must be a whole number of at most {most}")
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least {least}")
        return int(text)

    return number


def given(text: str) -> str:
    """A type of an argument: a text; an empty one is an unset variable, and would be what nobody meant."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty; give a name")
    return text


def path(text: str) -> Path:
    """A type of an argument: the path of a file or folder."""
    return Path(given(text))


def name() -> str:
    """The stage's or command's own name: the module that was started."""
    return Path(sys.argv[0]).stem


def _guard(work: Callable[[], int]) -> int:
    """Turns every failure into one line on stderr and an exit code; from then on a signal ends it at once."""
    code = _attempt(work)
    if code != process.INTERRUPTED:
        process.end_on_signals()
    return code


def _attempt(work: Callable[[], int]) -> int:
    if sys.flags.optimize > 1:
        text = "Python is to leave docstrings out (-OO), which other packages need; unset PYTHONOPTIMIZE"
        return _complain(text, DarkroomError.exit_code)
    for number in process.SIGNALS:
        signal.signal(number, _interrupt)
    sys.unraisablehook = _unheard
    try:
        leftovers.use_own_temporary_folder()
        return work()
    except DarkroomError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        process.ignore_signals()
        return _complain("interrupted", process.INTERRUPTED)
    except Exception as error:
        if os.environ.get("DARKROOM_DEBUG"):
            traceback.print_exc()
        if isinstance(error, OSError) or remedy(error):
            return _complain(_describe(error), DarkroomError.exit_code)
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return _complain(f"a fault of ours, {text[:300]}; DARKROOM_DEBUG=1 shows where", process.INTERNAL)


def _describe(error: Exception) -> str:
    """What the machine has refused, in one line."""
    what = brief(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        what = f"{error.strerror}: {error.filename or 'no file named'}"
    todo = remedy(error)
    return f"{what}; {todo}, and run it again" if todo else what


def _complain(text: str, code: int) -> int:
    console.warn(f"{name()}: {text}")
    return code


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _unheard(lost: "sys.UnraisableHookArgs") -> None:
    """Interrupts again where Python has to ignore what is raised: when it clears away what nobody refers to.

    TensorFlow makes so much of that while it traces a model that one ctrl-c in three went by unheard.
    """
    if lost.exc_type is KeyboardInterrupt:
        signal.signal(signal.SIGALRM, _interrupt)  # no sooner: Prefect's timeouts need it to be nobody's
        signal.setitimer(signal.ITIMER_REAL, INTERRUPT_DELAY)
    else:
        sys.__unraisablehook__(lost)
