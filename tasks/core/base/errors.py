"""Everything that can be a user's to mend, as one tree: each ends as one clear line on stderr."""

import signal
from collections.abc import Sequence


class DarkroomError(Exception):
    """Something the user can mend; its text names the file or key, the value and the remedy."""

    exit_code = 2


AGAIN = "run it again"  # the remedy where an input moved: nothing else is to be mended


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


# What a machine refuses, in words of the system and of SQLite that other libraries pass on, and the remedy.
REFUSALS = {
    ("No space left on device", "disk is full", "errno = 28"): "make room on the disk",
    ("Disk quota exceeded",): "make room within your quota",
    ("Too many open files",): "let it open more, as by `ulimit -n 4096`",
    ("Read-only file system",): "have the disk mounted so that it can be written",
    ("readonly database",): "check its owner and permissions, and that its disk can be written",
    ("Permission denied", "Operation not permitted"): "check owner and permissions",
    ("unable to open database",): "check owner and permissions",
    ("Resource temporarily unavailable", "can't start new thread"): (
        "let this user or container have more processes, as by `ulimit -u 4096`"
    ),
    ("Cannot allocate memory", "Unable to allocate"): "free some memory, or lower compute.workers",
    ("Input/output error", "disk I/O error"): "check the disk",
    ("image is malformed", "is not a database"): (
        "remove DVC's own database, .cache/dvc or what DVC_SITE_CACHE_DIR names, which it makes anew"
    ),
}


def remedy(error: BaseException) -> str | None:
    """What to do about an error of the machine's, whichever library met it; none for others."""
    text = f"{error}{' Cannot allocate memory' * isinstance(error, MemoryError)}"
    return next((what for words, what in REFUSALS.items() if any(word in text for word in words)), None)


def ended_by(what: str, number: int) -> str:
    """Says that a process was ended by a signal, which tells nothing of its work."""
    name = signal.Signals(number).name
    return f"{what} was ended by {name}, as it happens when memory runs out; run it again"


def brief(error: object) -> str:
    """What another's error says, on one line and no longer than fits there."""
    return " ".join(str(error).split())[:200]


def first_of(texts: Sequence[str], count: int) -> str:
    """The first few of what a line can hold, and how many more there are."""
    more = f" and {len(texts) - count} more" if len(texts) > count else ""
    return ", ".join(texts[:count]) + more
