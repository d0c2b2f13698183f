"""Prefect only: chain, schedule, observe. The work itself is in `tasks`."""

from flows import server

server.begin()
