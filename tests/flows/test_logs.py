"""What a flow's log shows of an exception: to who runs a command, and to who operates a worker."""

import errno
import logging
import sys

import pytest

from flows import logs
from flows.run import Run

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "by_hand", "debug", "shown"),
    [
        (KeyError("x"), True, False, False),
        (KeyError("x"), True, True, True),
        (KeyError("x"), False, False, True),
        (FileNotFoundError(2, "No such file or directory", "own.json"), False, False, True),
        (FULL, False, False, False),
        (FULL, False, True, True),
    ],
)
def test_a_traceback_is_shown_to_whom_it_is_of_use(
    error: Exception, by_hand: bool, debug: bool, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DARKROOM_DEBUG", raising=False)
    if debug:
        monkeypatch.setenv("DARKROOM_DEBUG", "1")
    monkeypatch.setattr(Run, "is_by_hand", lambda: by_hand)
    try:
        raise error
    except Exception:
        record = logging.makeLogRecord({"exc_info": sys.exc_info()})
    assert logs._without_traceback(record)
    assert bool(record.exc_info) == shown
