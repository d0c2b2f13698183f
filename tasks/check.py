"""Checks params.yaml, and that what it names is there; `make run` and the flow begin with this.

A slip is reported in a second, before DVC starts, whose own messages don't name the parameter.
"""

from dataclasses import dataclass
from pathlib import Path

from tasks.core.artifacts.config import Export
from tasks.core.backbones import catalogue
from tasks.core.backbones.config import Model
from tasks.core.base import cli, console, inputs, leftovers, mending, params
from tasks.core.base.errors import ParamError
from tasks.core.base.params import Data, Section
from tasks.core.data.config import Build, Processes
from tasks.core.evaluation.config import NONE, Evaluate, Gate
from tasks.core.inference.config import Monitor
from tasks.core.reporting.config import Report
from tasks.core.training import config as training
from tasks.core.training.config import Train
from tasks.core.validation import preflight
from tasks.core.validation.config import Validate


@dataclass(frozen=True)
class Compute(training.Compute, Processes):
    pass


@dataclass(frozen=True)
class Params(Section):
    """All of params.yaml."""

    data: Data
    validate: Validate
    build: Build
    model: Model
    train: Train
    evaluate: Evaluate
    gate: Gate
    export: Export
    report: Report
    monitor: Monitor
    compute: Compute

    def __post_init__(self) -> None:
        for place, rule in enumerate(self.gate.rules):
            if rule.metric.startswith("robustness.") and not self.evaluate.robustness:
                raise ParamError(
                    f"gate.rules.{place}.metric is {rule.metric!r}, but evaluate.robustness is 0; raise it"
                )


def check() -> None:
    """Reads all parameters, and looks for what they name.

    Raises:
        ParamError, DataError: names the key, the value and the remedy.
    """
    _mend()
    p = params.read(params.FILE, Params)
    preflight.check(Path(p.data.images), Path(p.data.labels), Path(p.data.schema))
    catalogue.check(p.model.backbone)
    preflight.check_repository()
    preflight.check_cache()
    if p.gate.champion != NONE:
        from tasks.core.release import champion  # half a second

        champion.predictions(p.gate.champion)


def _mend() -> None:
    """Sees to what runs have left that were killed or out of room."""
    for line in mending.mend():
        console.warn(f"check: {line}")
    leftovers.sweep(inputs.outputs())
    for line in inputs.withdraw_false_records():
        console.warn(f"check: {line.partition(';')[0]}; it runs again")


def main() -> int:
    cli.parser(__doc__).parse_args()
    check()
    return 0


if __name__ == "__main__":
    cli.command(main)
