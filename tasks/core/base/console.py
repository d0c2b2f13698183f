"""Lines for a person on stdout and stderr, and keeping others from writing there."""

import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

_STDERR = threading.RLock()


def say(text: str) -> None:
    """Prints a line of progress, at once, also into a pipe; nobody reading any more doesn't end the work."""
    try:
        print(_plain(text, sys.stdout), flush=True)
    except BrokenPipeError:
        silence()


def warn(text: str) -> None:
    """Prints a line on stderr, at once."""
    with suppress(OSError):  # nobody reads it any more
        print(_plain(text, sys.stderr), file=sys.stderr, flush=True)


def silence() -> None:
    """Points stdout nowhere, so that Python doesn't complain of a closed pipe at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _plain(text: str, stream: TextIO) -> str:
    """One line that a terminal can show: the names of files may hold line ends, control codes and worse."""
    plain = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    encoding = stream.encoding or "utf-8"
    return plain.encode(encoding, "backslashreplace").decode(encoding)


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
