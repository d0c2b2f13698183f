"""Parameters of evaluation and of its gates."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from tasks.core.base.errors import ParamError
from tasks.core.base.params import Count, Limit, Natural, Section, Seed, Switch, Text, Whole
from tasks.core.evaluation.metrics import METRICS

MEASURED_PARTS = ("test", "validation", "per_class", "slices", "calibration", "baselines", "robustness")
CHAMPION = "champion"
Reference = Literal["champion", "majority", "colours"]  # what a rule may compare with
NONE = "none"
OF_A_CLASS = ("precision", "recall", "f1")


@dataclass(frozen=True)
class Evaluate(Section):
    batch_size: Count
    calibration_bins: Annotated[Whole, Field(ge=1, le=10_000)]
    bootstrap: Annotated[Whole, Field(ge=100, le=1_000_000)]
    seed: Seed
    min_slice: Count
    robustness: Natural


@dataclass(frozen=True)
class Rule(Limit):
    """What a model must reach; what may be left out has a default here."""

    metric: Text
    slice: Text | None = None
    against: Reference | None = None
    relative: Switch = False

    def check(self, key: str) -> None:
        """Checks what goes together.

        Raises:
            ParamError: names the rule by its `key`.
        """
        self.check_one(key)
        if self.slice not in (None, "worst") and "=" not in str(self.slice):
            raise ParamError(f"{key}.slice is {self.slice!r}; it must be worst, or as brightness=q1")
        split, _, name = self.metric.partition(".")
        if split not in MEASURED_PARTS or not name:
            parts = ", ".join(f"{part}." for part in MEASURED_PARTS)
            raise ParamError(f"{key}.metric is {self.metric!r}; it must begin with one of {parts}")
        if split in ("test", "validation") and name not in (*METRICS, "n"):
            raise ParamError(f"{key}.metric is {self.metric!r}; {split} has {', '.join(METRICS)}, n")
        if self.slice or self.against:
            trivial = self.against not in (None, CHAMPION)
            known = [m.name for m in METRICS.values() if m.needs == "classes" or not trivial]
            if split != "test" or name not in known:
                allowed = ", ".join(f"test.{metric}" for metric in known)
                partner = f"against {self.against}" if self.against else "of a slice"
                raise ParamError(f"{key}.metric is {self.metric!r}; {partner} it must be one of {allowed}")
        if not self.relative and _is_share(split, name.rpartition(".")[2]):
            self.check_share(key)
        if self.relative and not self.against:
            raise ParamError(f"{key}.relative is true, but there is no `against`: give one, or leave it out")


def _is_share(split: str, last: str) -> bool:
    """By the last part of a metric's name: before it, the name of a class or a slice may have any dots."""
    if split == "robustness":
        return last != "n"  # all others are accuracies
    return last in OF_A_CLASS or (last in METRICS and METRICS[last].bounded)


@dataclass(frozen=True)
class Gate(Section):
    champion: Text
    on_inconclusive: Literal["pass", "fail"]
    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        for place, rule in enumerate(self.rules):
            rule.check(f"gate.rules.{place}")
