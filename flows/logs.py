"""What Prefect's log need not say."""

from __future__ import annotations

import logging

from flows import server


def tidy() -> None:
    """Leaves out what is of no use to who reads along."""
    logging.getLogger("prefect.task_runs").addFilter(_without_empty_traceback)
    logging.getLogger("prefect.flow_runs").addFilter(_of_a_page_that_is_there)
    logging.getLogger("EventsWorker").setLevel(logging.ERROR)  # it says that it isn't done yet, and is soon


def _without_empty_traceback(record: logging.LogRecord) -> bool:
    """Of a task that failed without an exception Prefect logs the traceback of none, as "NoneType: None"."""
    if record.exc_info and record.exc_info[0] is None:
        record.exc_info = None
    return True


def _of_a_page_that_is_there(record: logging.LogRecord) -> bool:
    """A server for the time being has no UI, which Prefect names all the same."""
    return server.temporary is None or not record.getMessage().startswith("View at ")
