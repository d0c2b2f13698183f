"""Processes that the flows start, and which end with them."""

import subprocess
import sys
from typing import Any

from tasks.core.base import process


def start(*words: str, **options: Any) -> subprocess.Popen[Any]:
    """Starts `python -m WORDS` by `Popen`, in a session of its own: a ctrl-c is ours to pass on."""
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        start_new_session=True,
        preexec_fn=process.die_with_parent,  # noqa: PLW1509 (two system calls, found beforehand)
        **options,
    )
