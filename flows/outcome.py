"""How a flow ends, and what the command that ran it makes of that."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import psutil
from prefect import get_client, runtime
from prefect.client.schemas.objects import State
from prefect.exceptions import PrefectException
from prefect.states import Cancelled, Failed

from flows import repo, server
from tasks.core.base import cli, console, process
from tasks.core.base.errors import DarkroomError, Rejected

_by_hand = False
_undone: list[Callable[[], object]] = []  # at an interrupt


class Stopped(DarkroomError):
    """What has ended a step; `exit_code` is negative if that was a signal."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def stopped(message: str, exit_code: int | None = None, name: str = "Failed") -> State[Any]:
    """A failed state; its data is an exception, since Prefect raises it where nobody asks for the state."""
    code = DarkroomError.exit_code if exit_code is None else exit_code
    return Failed(name=name, message=message, data=Stopped(message, code))


def failed_by_user_error(error: Exception) -> State[Any]:
    """A failed state that says what the user can mend, in one line; `Rejected` where that is a verdict."""
    name = "Rejected" if isinstance(error, Rejected) else "Failed"
    return stopped(" ".join(str(error).split()), getattr(error, "exit_code", None), name)


def code_of(state: State[Any]) -> int | None:
    """The exit code that a failed step or run stands for; none if nothing of ours has ended it."""
    cause = state.result(raise_on_failure=False)
    return cause.exit_code if isinstance(cause, DarkroomError) else None


def raise_unforeseen(state: State[Any]) -> None:
    """Raises what has ended a step or a run, if it is no error that is told in its own words."""
    cause = state.result(raise_on_failure=False)
    expected = isinstance(cause, (DarkroomError, PrefectException))
    if state.is_failed() and isinstance(cause, Exception) and not expected:
        raise cause


def told(state: State[Any], prefix: str = "") -> int:
    """Says why a run failed, if it did; returns the exit code.

    Raises:
        Exception: what nobody has foreseen, which `cli.command` tells as such.
    """
    if state.is_completed():
        return 0
    raise_unforeseen(state)
    print(f"{prefix}{state.message or state.name}", file=sys.stderr)
    code = code_of(state)
    return code if code and code > 0 else DarkroomError.exit_code


@contextmanager
def undoing(work: Callable[[], object]) -> Iterator[None]:
    """Has something done if a run is interrupted within the block: that ends it without any `finally`."""
    _undone.append(work)
    try:
        yield
    finally:
        _undone.remove(work)


@contextmanager
def by_hand() -> Iterator[None]:
    """Lets whoever has started a run on a command line end it with ctrl-c or SIGTERM."""
    global _by_hand  # noqa: PLW0603
    _by_hand = True
    heed_signals()
    try:
        yield
    finally:
        _by_hand = False


def heed_signals() -> None:
    """Again within a flow, as Prefect puts a handler in place that calls the run crashed."""
    if _by_hand:
        for number in process.SIGNALS:
            signal.signal(number, _interrupt)


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    """Ends the run: first the stage, which gives its earlier outputs back, then the server that is ours.

    Prefect itself would wait for that server.
    """
    process.ignore_signals()
    for work in reversed(_undone):
        with suppress(Exception):
            work()
    for child in list(repo.running):
        repo.stop(child)
    with suppress(Exception), get_client(sync_client=True) as client:
        client.set_flow_run_state(runtime.flow_run.id, Cancelled(message="interrupted"), force=True)
    server.stop()
    end_workers()
    console.warn(f"{cli.name()}: interrupted")
    os._exit(process.INTERRUPTED)


def end_workers() -> None:
    """Ends the processes that have scored pictures for us: those who go on where this ended need others."""
    own = server.temporary.child.pid if server.temporary else None
    for child in psutil.Process().children(recursive=True):
        if child.pid != own:
            with suppress(psutil.Error):
                child.kill()
