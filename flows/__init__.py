"""Prefect only: chain, schedule, observe. The work itself is in `tasks`."""
