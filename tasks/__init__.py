"""The work: a module for each stage and each command. Importing it costs nothing, but for a stage."""

import sys

import tasks.telemetry  # noqa: F401 (first of all: it must be set before other packages are imported)

try:
    from tasks.core.base import process
except ModuleNotFoundError as error:
    python = f"{sys.executable} isn't the Python that `make ready` sets up: put .venv/bin first in PATH"
    print(f"{error}; {python}", file=sys.stderr)
    raise SystemExit(2) from None

process.open_streams()
process.undo_warnings_as_errors()
process.forget_git_hook()
process.install_stage_handlers()
