"""Parameters of the report."""

from dataclasses import dataclass

from tasks.core.base.params import Natural, Section, Text


@dataclass(frozen=True)
class Report(Section):
    intended_use: Text
    mistakes: Natural
    thumbnails: Natural
