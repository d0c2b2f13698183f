"""Prefect only: chain, schedule, observe. The work itself is in `tasks`."""

import tasks.telemetry  # noqa: F401 (first of all: it must be set before Prefect is imported)
