"""Runs DVC's command line, which ends with the run that it is for."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
from prefect import get_run_logger

from flows.children import start
from flows.run import Run
from flows.working_copy import Busy, Say, retry_while_busy
from tasks.core.base import process
from tasks.core.release import dvc_api

GRACE, AGAIN = 60, 3  # seconds that a stage has for its end, and between two demands for it


def run(*words: str) -> tuple[int, list[str]]:
    """Runs a command and passes its output on to the run's log as it comes; returns exit code and lines.

    It waits while another DVC command is at work on the same files.
    """
    say = get_run_logger().info
    return retry_while_busy(partial(_run_once, words, say), say)


def _run_once(words: Sequence[str], say: Say) -> tuple[int, list[str]]:
    own = str(Path(sys.executable).parent)
    child = start(
        "dvc",
        *words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PATH": own + os.pathsep + os.environ.get("PATH", ""), "PYTHONUNBUFFERED": "1"},
        text=True,
        errors="replace",
    )
    lines = []
    _repeat_alarm(ends=False)
    with child, Run.current().undoing(partial(stop, child, words)):
        try:
            for line in child.stdout or []:
                if text := line.rstrip():
                    lines.append(text)
                    if not dvc_api.CHATTER.match(text):
                        say(text)
        except BaseException:  # Prefect turns a SIGTERM, and the end of a task's time, into an exception
            _repeat_alarm(ends=True)
            stop(child, words)
            raise
    if child.returncode and dvc_api.was_busy(lines):
        raise Busy("another DVC command is at work here")
    return child.returncode, lines


def _repeat_alarm(ends: bool) -> None:
    """Has the end of a task's time, an alarm in the main thread, come again and again, or no more.

    Prefect's exception may be raised where Python ignores it, as in a finalizer: the stage would never end.
    """
    left, _ = signal.getitimer(signal.ITIMER_REAL)
    if left and threading.current_thread() is threading.main_thread():
        signal.setitimer(signal.ITIMER_REAL, 0 if ends else left, 0 if ends else AGAIN)


def stop(child: subprocess.Popen[str], words: Sequence[str]) -> None:
    """Ends what DVC does for us, once the stage has restored its earlier outputs, or after a while.

    DVC may end before its stage, which it has only just started; so the whole group of processes counts.
    """
    began = asked = time.monotonic()
    _signal(child, signal.SIGINT)  # DVC itself ignores it, and waits for its stage
    output = child.stdout.fileno() if child.stdout else -1
    while (is_deaf := has_group(child)) and time.monotonic() < began + GRACE:
        if time.monotonic() > asked + AGAIN:  # a process that is just being started may not have heard it
            asked = time.monotonic()
            _signal(child, signal.SIGINT)
        # Read past Python's buffer, which the loop that was interrupted may hold: a full pipe would stop it.
        if select.select([output], [], [], 0.1)[0] and not os.read(output, 65536):
            time.sleep(0.1)
    if is_deaf:
        _signal(child, signal.SIGKILL)
    child.wait()
    if is_deaf and "repro" in words:
        process.check_out(words[-1])


def _signal(child: subprocess.Popen[str], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, number)


def has_group(child: subprocess.Popen[str]) -> bool:
    """Whether a process of the child's group runs; one that nobody has waited for is no such."""
    for found in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.Error):
            if os.getpgid(found.pid) == child.pid and found.status() != psutil.STATUS_ZOMBIE:
                return True
    return False
