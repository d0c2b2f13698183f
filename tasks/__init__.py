"""The work: a module for each stage and each command. Importing it costs nothing, but for a stage."""

from tasks.core import process

process.begin()
