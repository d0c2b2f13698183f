"""Prefect only: chain, schedule, observe. The work itself is in `tasks`."""

from flows import logs, server

server.begin()
logs.tidy()
