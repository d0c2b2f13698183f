"""How a flow ends, and what the command that ran it makes of that."""

from __future__ import annotations

import sys
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Failed

from tasks.core.errors import DarkroomError


def mistaken(error: Exception) -> State[Any]:
    """A state that says what the user can mend, in one line."""
    code = error.exit_code if isinstance(error, DarkroomError) else DarkroomError.exit_code
    return Failed(message=" ".join(str(error).split()), data=code)


def code_of(state: State[Any]) -> int:
    """The exit code that a failed step or run stands for: 2 where it has none, as when it was killed."""
    code = state.result(raise_on_failure=False)
    return code if isinstance(code, int) and code > 0 else DarkroomError.exit_code


def told(state: State[Any], prefix: str = "") -> int:
    """Says why a run failed, if it did; returns the exit code."""
    if state.is_completed():
        return 0
    print(f"{prefix}{state.message or state.name}", file=sys.stderr)
    return code_of(state)
