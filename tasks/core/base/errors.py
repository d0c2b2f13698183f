"""Everything that can be a user's to mend, as one tree: each ends as one clear line on stderr."""

from collections.abc import Sequence


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


def first_of(texts: Sequence[str], count: int) -> str:
    """The first few of what a line can hold, and how many more there are."""
    more = f" and {len(texts) - count} more" if len(texts) > count else ""
    return ", ".join(texts[:count]) + more
