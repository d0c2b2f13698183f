"""What Prefect's log need not say, and what it need not end for."""

import logging
import os
import re

from httpx import HTTPError
from rich.console import Console

from flows.run import Run
from tasks.core.base.errors import DarkroomError, remedy


def tidy() -> None:
    """Leaves out what is of no use to who reads along, and has runs go on when nobody does any more."""
    for name in ("prefect.task_runs", "prefect.flow_runs", "prefect.engine"):
        for known in (_is_of_use, _without_traceback):
            logging.getLogger(name).addFilter(known)
    logging.getLogger("EventsWorker").setLevel(logging.ERROR)  # it says that it isn't done yet, and is soon
    Console.on_broken_pipe = _go_on  # type: ignore[method-assign, assignment]


def _without_traceback(record: logging.LogRecord) -> bool:
    """Of what a machine or a server refuses one line is enough, and of no exception Prefect shows "None".

    Of what nobody has foreseen a worker's log keeps it; a command shows it where it is asked for.
    """
    error = record.exc_info and record.exc_info[1]
    is_foreseen = isinstance(error, HTTPError) or (error and remedy(error))
    is_wanted = os.environ.get("DARKROOM_DEBUG") or not (is_foreseen or Run.is_by_hand())
    if not (error and is_wanted):
        record.exc_info = None
    return True


def _is_of_use(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    # An ephemeral server has no UI, but Prefect prints an address for one.
    has_no_page = Run.current().server is not None and text.startswith("View at ")
    # A task has failed for good, which its state says.
    has_failed = record.levelno == logging.ERROR and text.startswith("Task run failed with ")
    is_a_hook = re.match(r"(Running hook '|Hook '.*successfully$)", text)
    # In a worker's process Prefect raises what a failed run holds, and shows two tracebacks of that.
    is_known = record.exc_info and isinstance(record.exc_info[1], DarkroomError)
    return not (has_no_page or has_failed or is_a_hook or is_known)


def _go_on(_console: Console) -> None:
    """Rich, by which Prefect prints, would end the process when a pipe closes, as a killed worker's does."""
