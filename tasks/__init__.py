"""The work: a module for each stage and each command. Importing it costs nothing, but for a stage."""

import tasks.telemetry  # noqa: F401 (first of all: it must be set before other packages are imported)
from tasks.core.base import process

process.undo_warnings_as_errors()
process.install_stage_handlers()
