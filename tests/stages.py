"""Stages and commands, called in the test's own process: importing what they need takes seconds each time."""

import importlib
from unittest.mock import patch

from tasks.core.base.errors import DarkroomError


def end(stage: str) -> tuple[int, str]:
    """How a stage ends in the current folder: its exit code, and the one line that it says where it fails."""
    try:
        with patch("sys.argv", [stage]):
            importlib.import_module(f"tasks.{stage}").main()
    except DarkroomError as error:
        assert "\n" not in str(error)
        return error.exit_code, str(error)
    return 0, ""
