"""A flow's run in the process of a command: the server that it has, and how an interrupt ends it.

A server starts in the time that importing Prefect takes, so a command begins its run before that, and this
module imports little.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import FrameType

import psutil

from flows import server
from tasks.core.base import console, process

QUIET = {"-h", "--help", "--verify", "--card", "--changelog"}  # which have nothing to report


@dataclass
class Run:
    """What a process holds for a run.

    server: its own, which ends with it; none: it reports to one that is there.
    undo: what to do, the last first, if an interrupt ends the process: no `finally` would.
    """

    server: server.Temporary | None = None
    undo: list[Callable[[], object]] = field(default_factory=list)

    @classmethod
    def begin(cls) -> Run:
        """Begins a command's: starts a server, if it wants one and finds none."""
        run = cls()
        for number in process.SIGNALS:
            signal.signal(number, run._stop_early)
        gc.disable()  # it looks in vain through what imports make, for a quarter of their time
        if not QUIET & set(sys.argv) and (
            server.ALONE in sys.argv or not (server.is_up(server.url()) or server.is_wanted())
        ):
            run.server = server.start_temporary()
        server.check_settings()
        return run

    @classmethod
    def current(cls) -> Run:
        """The one that a command is about; in a worker's process, which Prefect ends, an empty one."""
        return _current.get(None) or cls()

    @staticmethod
    def is_by_hand() -> bool:
        """Whether a command is about a run, and no worker."""
        return _current.get(None) is not None

    @contextmanager
    def by_hand(self) -> Iterator[None]:
        """Lets whoever has started a run on a command line end it with ctrl-c or SIGTERM."""
        token = _current.set(self)
        self.heed_signals()
        try:
            yield
        finally:
            _current.reset(token)

    def heed_signals(self) -> None:
        """Again within a flow, as Prefect puts a handler in place that calls the run crashed."""
        if _current.get(None) is self:
            for number in process.SIGNALS:
                signal.signal(number, self._interrupt)

    @contextmanager
    def undoing(self, work: Callable[[], object]) -> Iterator[None]:
        """Has something done if the run is interrupted within the block."""
        self.undo.append(work)
        try:
            yield
        finally:
            self.undo.remove(work)

    def end_workers(self) -> None:
        """Ends the processes that have scored images for us: a later run starts its own."""
        own = self.server.child.pid if self.server else None
        for child in psutil.Process().children(recursive=True):
            if child.pid != own:
                with suppress(psutil.Error):
                    child.kill()

    def _stop_early(self, _signum: int, _frame: FrameType | None) -> None:
        """Ends a command that is still importing: an exception would come out of the middle of an import."""
        if self.server:
            self.server.child.terminate()
        sys.stderr = sys.__stderr__  # not what keeps Prefect's first words
        console.warn("interrupted before it began")
        os._exit(process.INTERRUPTED)

    def _interrupt(self, _signum: int, _frame: FrameType | None) -> None:
        """Ends the run: first the stage, which gives its earlier outputs back, then the server that is ours.

        Prefect would take an exception for a crash, tell of that, and wait for the server.
        """
        from prefect import get_client, runtime
        from prefect.states import Cancelled

        from tasks.core.base import cli

        process.ignore_signals()
        for work in reversed(self.undo):
            with suppress(Exception):  # of every kind: what follows is to be done too
                work()
        with suppress(Exception), get_client(sync_client=True) as client:
            client.set_flow_run_state(runtime.flow_run.id, Cancelled(message="interrupted"), force=True)
        if self.server:
            self.server.child.terminate()
        self.end_workers()
        console.warn(f"{cli.name()}: interrupted")
        os._exit(process.INTERRUPTED)


_current: ContextVar[Run] = ContextVar("run")
