"""Processes in a terminal, as a person starts them: some packages do there what they don't in a pipe."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Terminal:
    """A process in a terminal, and what it has printed."""

    process: subprocess.Popen[bytes]
    printed: bytearray = field(default_factory=bytearray)

    def text(self) -> str:
        return self.printed.decode(errors="replace")


@contextmanager
def terminal(
    words: Sequence[str], environment: Mapping[str, str], folder: Path | None = None
) -> Iterator[Terminal]:
    """Starts a process in a terminal; waits for its end."""
    screen, end = os.openpty()
    process = subprocess.Popen(
        words, cwd=folder, env=environment, stdin=end, stdout=end, stderr=end, start_new_session=True
    )
    os.close(end)
    running = Terminal(process)

    def read() -> None:
        with suppress(OSError):  # which is how a terminal says that nobody writes there any more
            while data := os.read(screen, 65536):
                running.printed.extend(data)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield running
        process.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # strace would let go of what it has started
        process.wait()
        reader.join(10)
        os.close(screen)


def in_terminal(words: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Runs a process in a terminal; returns its exit code and what it has printed."""
    with terminal(words, environment) as running:
        pass
    return running.process.returncode, running.text()
