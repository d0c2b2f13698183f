"""Prefect only: chain, schedule, observe. The work itself is in `tasks`."""

from flows import server

server.begin()  # first: it starts what takes as long as all imports that follow

from flows import logs  # noqa: E402

logs.tidy()
