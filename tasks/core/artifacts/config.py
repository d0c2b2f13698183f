"""Parameters of the artifacts, and what each of them must reach."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import Field

from tasks.core.artifacts.formats import Format
from tasks.core.base.errors import ParamError
from tasks.core.base.params import Count, Limit, Natural, Section, Switch

Timed = Literal["latency_ms", "latency_ratio", "latency_32_ms", "peak_memory_bytes"]
TIMED: tuple[str, ...] = get_args(Timed)  # measured again each time
Bounded = Literal[  # shares, and differences of probabilities
    "agreement",
    "sure_disagreement",
    "max_probability_difference",
    "accuracy",
    "accuracy_drop",
    "sum_error",
    "golden_agreement",
    "golden_difference",
]


@dataclass(frozen=True)
class ArtifactRule(Limit):
    """What an artifact must reach; without `artifact` it is for all that have none of their own."""

    metric: Bounded | Literal["bytes"] | Timed
    artifact: Format | None = None


@dataclass(frozen=True)
class Export(Section):
    formats: Annotated[tuple[Format, ...], Field(min_length=1)]
    representative: Count
    calibrate: Switch
    golden: Natural
    required: tuple[Format, ...]
    rules: tuple[ArtifactRule, ...]

    def __post_init__(self) -> None:
        if missing := [kind for kind in self.required if kind not in self.formats]:
            raise ParamError(f"export.required has {missing[0]}, which export.formats doesn't; add it there")
        for place, rule in enumerate(self.rules):
            key = f"export.rules.{place}"
            rule.check_one(key)
            if rule.metric in get_args(Bounded) and not (rule.artifact and rule.max == 1):  # which exempts it
                rule.check_share(key)
            if rule.metric == "latency_ratio" and "saved_model" not in self.formats:
                raise ParamError(
                    f"{key} is about latency_ratio, to the SavedModel's; put saved_model in export.formats"
                )
