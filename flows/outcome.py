"""How a flow ends, and what the command that ran it makes of that."""

import sys
from typing import Any

from prefect.client.schemas.objects import State
from prefect.exceptions import PrefectException
from prefect.states import Failed

from tasks.core.base.errors import DarkroomError, Rejected
from tasks.core.release.dvc_api import DvcError

EXPECTED_ERRORS = (DarkroomError, DvcError)


class Stopped(DarkroomError):
    """What has ended a step; `exit_code` is negative if that was a signal."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def stopped(message: str, exit_code: int | None = None, name: str = "Failed") -> State[Any]:
    """A failed state; its data is an exception, since Prefect raises it where nobody asks for the state."""
    code = DarkroomError.exit_code if exit_code is None else exit_code
    return Failed(name=name, message=_line(message), data=Stopped(message, code))


def failed_by(error: Exception) -> State[Any]:
    """A failed state of an expected error, in one line; `Rejected` where that is a verdict."""
    cause = error if isinstance(error, DarkroomError) else Stopped(str(error), DarkroomError.exit_code)
    name = "Rejected" if isinstance(error, Rejected) else "Failed"
    return Failed(name=name, message=_line(str(error)), data=cause)


def _line(text: str) -> str:
    """A text on one line, as Prefect can keep it: the name of a file may be no text."""
    return " ".join(text.split()).encode("utf-8", "backslashreplace").decode()


def code_of(state: State[Any]) -> int | None:
    """The exit code that a failed step or run stands for; none if nothing of ours has ended it."""
    cause = state.result(raise_on_failure=False)
    return cause.exit_code if isinstance(cause, DarkroomError) else None


def raise_unexpected(state: State[Any]) -> None:
    """Raises what has ended a step or a run, if it is no error that is reported in its own words."""
    cause = state.result(raise_on_failure=False)
    is_expected = isinstance(cause, (*EXPECTED_ERRORS, PrefectException))
    if state.is_failed() and isinstance(cause, Exception) and not is_expected:
        raise cause


def report_failure(state: State[Any], prefix: str = "") -> int:
    """Says why a run failed, if it did; returns the exit code.

    Raises:
        Exception: what nobody expects, which `cli.command` reports as such.
    """
    if state.is_completed():
        return 0
    raise_unexpected(state)
    print(f"{prefix}{state.message or state.name}", file=sys.stderr)
    code = code_of(state)
    return code if code and code > 0 else DarkroomError.exit_code
