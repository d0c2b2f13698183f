"""Everything that can be a user's to mend, as one tree.

DarkroomError       one clear line on stderr
├── ParamError      a value in params.yaml                  exit 2
├── DataError       an image, a folder, a labels file      exit 2
├── BackboneError   a backbone that can't be read           exit 2
│   └── Unreachable one that a network keeps from us        exit 75, which may pass
├── ModelError      an artifact that can't be read          exit 2
├── WorkerError     worker processes or a cluster           exit 2
└── Rejected        a check or a gate said no               exit 1
"""

from __future__ import annotations


class DarkroomError(Exception):
    """Something the user can mend; its text names the file or key, the value and the remedy."""

    exit_code = 2


class ParamError(DarkroomError):
    """A value in params.yaml that is missing, unknown, of the wrong type or out of range."""


class DataError(DarkroomError):
    """An image, a folder or a labels file that can't be used."""


class BackboneError(DarkroomError):
    """A backbone that can't be found or read."""


class Unreachable(BackboneError):
    """A network or a server failed; it may be there again later."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


class ModelError(DarkroomError):
    """A trained model or an exported artifact that can't be found or read."""


class WorkerError(DarkroomError):
    """Worker processes that keep dying, or a cluster that doesn't answer."""


class Rejected(DarkroomError):
    """A check or a gate that looked and said no."""

    exit_code = 1


def brief(error: object) -> str:
    """What another's error says, on one line and no longer than fits there."""
    return " ".join(str(error).split())[:200]
