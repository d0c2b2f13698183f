"""Parameters of training, and of what it runs on."""

from dataclasses import astuple, dataclass
from typing import Annotated, Literal

from pydantic import Field

from tasks.core.base.errors import ParamError
from tasks.core.base.params import (
    Count,
    Fraction,
    NotNegative,
    Number,
    Positive,
    Section,
    Seed,
    Switch,
)

Strategy = Literal["auto", "one", "mirrored", "multi_worker"]
Effort = Literal["quick", "standard", "thorough"]
Precision = Literal["auto", "float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class Augment(Section):
    rotation: Annotated[Number, Field(ge=0, le=180)]
    translation: Fraction
    zoom: Fraction
    crop: Fraction
    horizontal_flip: Literal["auto"] | Switch
    brightness: Fraction
    contrast: Fraction

    @property
    def changes(self) -> bool:
        """Whether images are changed at all. A flip that is still to be decided changes nothing."""
        return any(value and value != "auto" for value in astuple(self))


@dataclass(frozen=True)
class Train(Section):
    seed: Seed
    batch_size: Count
    effort: Effort
    head: Switch
    fine_tune: Literal["auto"] | Switch
    unfreeze: Literal["auto"] | Annotated[Number, Field(gt=0, le=1)]
    epochs: Literal["auto"] | Count
    patience: Count
    interpolate: Switch
    batch_norm: Literal["batch", "frozen"]
    optimizer: Literal["sgd", "adam", "adamw"]
    learning_rate: Positive
    schedule: Literal["cosine", "constant"]
    warmup: NotNegative
    momentum: Fraction
    weight_decay: NotNegative
    label_smoothing: Fraction
    class_weight: Literal["none", "balanced"]
    mixup: NotNegative
    augment: Augment

    def __post_init__(self) -> None:
        if self.effort == "quick" and not (self.head and self.fine_tune in ("auto", False)):
            key, value = ("fine_tune", "true") if self.head else ("head", "false")
            raise ParamError(
                f"train.effort is quick, which trains the head alone, but train.{key} is {value}; "
                "change one of them"
            )
        if not (self.head or self.fine_tune or self.augment.changes):
            raise ParamError(
                "train.head and train.fine_tune are false and train.augment changes nothing, which leaves "
                "nothing to train; change one of them"
            )


@dataclass(frozen=True)
class Compute(Section):
    """Those of compute that say how a model is trained."""

    strategy: Strategy
    precision: Precision
    jit: Literal["auto"] | Switch
    deterministic: Switch
    tensorboard: Switch
