"""Parameters of training, and of what it runs on."""

from dataclasses import astuple, dataclass, fields
from typing import Annotated, Any, Literal, Self

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
Statistics = Literal["batch", "frozen"]
Optimizer = Literal["sgd", "adam", "adamw"]
ClassWeight = Literal["none", "root", "balanced"]
WrongLabels = Literal["auto", "keep"]
Auto = Literal["auto"]
Precision = Literal["auto", "float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class Augment(Section):
    rotation: Auto | Annotated[Number, Field(ge=0, le=180)]
    translation: Auto | Fraction
    zoom: Auto | Fraction
    crop: Auto | Fraction
    horizontal_flip: Auto | Switch
    brightness: Auto | Fraction
    contrast: Auto | Fraction

    @property
    def changes(self) -> bool:
        """Whether images are changed at all, as far as that is decided."""
        return any(value and value != "auto" for value in astuple(self))


@dataclass(frozen=True)
class Train(Section):
    seed: Seed
    batch_size: Auto | Count
    effort: Effort
    head: Switch
    fine_tune: Auto | Switch
    unfreeze: Auto | Annotated[Number, Field(gt=0, le=1)]
    epochs: Auto | Count
    patience: Count
    refit: Switch
    batch_norm: Auto | Statistics
    optimizer: Auto | Optimizer
    learning_rate: Auto | Positive
    schedule: Literal["cosine", "constant"]
    warmup: NotNegative
    momentum: Fraction
    weight_decay: NotNegative
    label_smoothing: Fraction
    class_weight: Auto | ClassWeight
    wrong_labels: WrongLabels
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
                "train.head and train.fine_tune are false, and no value of train.augment changes images: "
                "nothing is left to train; change one of them"
            )


@dataclass(frozen=True)
class Recipe(Train):
    """The parameters of training with nothing left to decide, but for what the head is asked first."""

    batch_size: int
    fine_tune: bool
    unfreeze: float
    epochs: int
    batch_norm: Statistics
    optimizer: Optimizer
    learning_rate: float

    @classmethod
    def of(cls, params: Train, **decided: Any) -> Self:
        known = {field.name: getattr(params, field.name) for field in fields(Train)}
        return cls(**known | decided)

    @property
    def goes_on(self) -> bool:
        """Whether anything is trained after the head."""
        return self.epochs > 0 and (self.fine_tune or (self.augment.changes and self.effort != "quick"))

    @property
    def refits(self) -> bool:
        """Whether a head is fitted to what fine-tuning makes of the backbone."""
        return self.refit and self.head and self.fine_tune


@dataclass(frozen=True)
class Compute(Section):
    """Those of compute that say how a model is trained."""

    strategy: Strategy
    precision: Precision
    jit: Auto | Switch
    deterministic: Switch
    tensorboard: Switch
