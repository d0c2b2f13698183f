"""What Prefect's log need not say, and what it need not end for."""

from __future__ import annotations

import logging

from rich.console import Console

from flows import server


def tidy() -> None:
    """Leaves out what is of no use to who reads along, and has runs go on when nobody does any more."""
    logging.getLogger("prefect.task_runs").addFilter(_without_empty_traceback)
    logging.getLogger("prefect.flow_runs").addFilter(_of_a_page_that_is_there)
    logging.getLogger("EventsWorker").setLevel(logging.ERROR)  # it says that it isn't done yet, and is soon
    Console.on_broken_pipe = _go_on  # type: ignore[method-assign, assignment]


def _without_empty_traceback(record: logging.LogRecord) -> bool:
    """Of a task that failed without an exception Prefect logs the traceback of none, as "NoneType: None"."""
    if record.exc_info and record.exc_info[0] is None:
        record.exc_info = None
    return True


def _of_a_page_that_is_there(record: logging.LogRecord) -> bool:
    """A server for the time being has no UI, which Prefect names all the same."""
    return server.temporary is None or not record.getMessage().startswith("View at ")


def _go_on(_console: Console) -> None:
    """Rich, by which Prefect prints, would end the process when a pipe closes, as a killed worker's does."""
