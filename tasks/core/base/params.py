"""The one reader of params.yaml.

Every value has its one home there: nothing has a default here. The whole file is checked whenever
any stage starts, so that a slip in `export` is found before an hour of training and not after it.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, Field, Strict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.core.base.contract import Packing, Resize
from tasks.core.base.errors import ParamError
from tasks.core.base.files import flat

FILE = Path("params.yaml")
MEASURED = (  # of test and validation
    "accuracy",
    "top_5_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "log_loss",
    "ece",
    "n",
)
MEASURED_PARTS = ("test", "validation", "per_class", "slices", "calibration", "baselines", "robustness")
BOUNDED = (  # from 0 to 1
    "accuracy",
    "top_5_accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "ece",
)
MEASURED_OF_BASELINES = ("accuracy", "macro_precision", "macro_recall", "macro_f1")
LOCAL = "none"  # the compute.scheduler that stands for processes of this machine

Format = Literal["saved_model", "h5", "tflite", "tflite_fp16", "tflite_dynamic", "tflite_int8", "onnx"]

TIMED = ("latency_ms", "latency_ratio", "latency_32_ms", "peak_memory_bytes")  # measured anew each time
CHAMPION = "champion"
Reference = Literal["champion", "majority", "colours"]  # what a rule may compare with
NONE = "none"

Severity = Literal["error", "warning", "ignore"]

Strategy = Literal["auto", "one", "mirrored", "multi_worker"]
Precision = Literal["auto", "float32", "float16", "bfloat16"]

# Leaves are strict: `epochs: "8"` and `fine_tune: 1` are slips, not values to be guessed at.
Text = Annotated[str, Field(min_length=1)]
Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Switch = Annotated[bool, Strict()]
Count = Annotated[Whole, Field(ge=1)]
Natural = Annotated[Whole, Field(ge=0)]
Seed = Annotated[Whole, Field(ge=0, lt=2**32)]  # what NumPy and Keras take
Fraction = Annotated[Number, Field(ge=0, lt=1)]
Share = Annotated[Number, Field(gt=0, lt=1)]
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]


T = TypeVar("T")


class Section:
    """A part of the file: names with values, and no other names."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Data(Section):
    images: Text
    labels: Text
    schema: Text


@dataclass(frozen=True)
class Severities(Section):
    unreadable: Severity
    small: Severity
    too_few: Severity
    imbalance: Severity
    spelling: Severity
    label_conflict: Severity
    duplicate: Severity
    near_duplicate: Severity
    split_conflict: Severity
    group_conflict: Severity
    tied: Severity
    dark: Severity
    light: Severity
    blurry: Severity
    low_information: Severity
    odd_aspect_ratio: Severity
    odd_size: Severity
    shortcut: Severity
    new_class: Severity
    missing_class: Severity
    unexpected_format: Severity
    size_range: Severity
    drift: Severity


@dataclass(frozen=True)
class Validate(Section):
    max_unreadable: Natural
    min_per_class: Annotated[Whole, Field(ge=3)]  # one for each split
    max_imbalance: Count
    min_side: Count
    near_distance: Annotated[Whole, Field(ge=0, le=16)]
    dark: Fraction
    light: Fraction
    blurry: Fraction
    low_information: Fraction
    odd_aspect_ratio: Fraction
    odd_size: NotNegative
    shortcut: Fraction
    severity: Severities


@dataclass(frozen=True)
class Build(Section):
    validation_split: Share
    test_split: Share
    seed: Seed
    resize: Resize
    record: Packing


@dataclass(frozen=True)
class Model(Section):
    backbone: Text
    sha256: Literal["none"] | Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    image_size: Literal["auto"] | Annotated[Whole, Field(ge=32, le=1024)]
    dropout: Fraction
    l2: NotNegative


@dataclass(frozen=True)
class Augment(Section):
    rotation: Annotated[Number, Field(ge=0, le=180)]
    translation: Fraction
    zoom: Fraction
    crop: Fraction
    horizontal_flip: Switch
    brightness: Fraction
    contrast: Fraction

    @property
    def changes(self) -> bool:
        """Whether pictures are changed at all."""
        return any(astuple(self))


@dataclass(frozen=True)
class Train(Section):
    seed: Seed
    batch_size: Count
    head_epochs: Natural
    fine_tune: Switch
    epochs: Count
    patience: Count
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


@dataclass(frozen=True)
class Evaluate(Section):
    batch_size: Count
    calibration_bins: Count
    bootstrap: Annotated[Whole, Field(ge=100)]
    seed: Seed
    min_slice: Count
    robustness: Natural


@dataclass(frozen=True)
class Limit(Section):
    """A metric with a lower or an upper limit: exactly one of the two is given."""

    metric: str
    min: Number | None = None
    max: Number | None = None

    @property
    def threshold(self) -> float:
        """The one that is given."""
        return self.min if self.min is not None else self.max or 0.0

    def said(self, form: str) -> str:
        """The limit in words, its number in a format of Python's."""
        return f"at {'least' if self.min is not None else 'most'} {self.threshold:{form}}"

    def margin(self, low: float, high: float) -> float:
        """How far all of an interval is within the limit; below 0 if some of it is not."""
        return low - self.threshold if self.min is not None else self.threshold - high

    def check_one(self, key: str) -> None:
        """Checks that there is exactly one limit.

        Raises:
            ParamError: names the rule by its `key`.
        """
        if (self.min is None) == (self.max is None):
            raise ParamError(f"{key} ({self.metric}) needs either `min` or `max`: give one of the two")


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
        if split in ("test", "validation") and name not in MEASURED:
            raise ParamError(f"{key}.metric is {self.metric!r}; {split} has {', '.join(MEASURED)}")
        if self.slice or self.against:
            trivial = self.against not in (None, CHAMPION)
            known = MEASURED_OF_BASELINES if trivial else tuple(m for m in MEASURED if m != "n")
            if split != "test" or name not in known:
                allowed = ", ".join(f"test.{measure}" for measure in known)
                partner = f"against {self.against}" if self.against else "of a slice"
                raise ParamError(f"{key}.metric is {self.metric!r}; {partner} it must be one of {allowed}")
        if name in BOUNDED and not self.relative and abs(self.threshold) > 1:
            raise ParamError(
                f"{key} asks for a {self.metric} of {self.threshold:g}; it is a share: 90 % are 0.9"
            )
        if self.relative and not self.against:
            raise ParamError(f"{key}.relative is true, but there is no `against`: give one, or leave it out")


@dataclass(frozen=True)
class ArtifactRule(Limit):
    """What an artifact must reach; without `artifact` it is for all that have none of their own."""

    metric: Literal[
        "agreement",
        "max_probability_difference",
        "accuracy",
        "accuracy_drop",
        "sum_error",
        "golden_agreement",
        "golden_difference",
        "bytes",
        "latency_ms",
        "latency_ratio",
        "latency_32_ms",
        "peak_memory_bytes",
    ]
    artifact: Format | None = None

    def check(self, key: str, formats: tuple[Format, ...]) -> None:
        """Checks what goes together.

        Raises:
            ParamError: names the rule by its `key`.
        """
        self.check_one(key)
        if self.metric == "latency_ratio" and "saved_model" not in formats:
            raise ParamError(
                f"{key} is about latency_ratio, to the SavedModel's; put saved_model in export.formats"
            )


@dataclass(frozen=True)
class Gate(Section):
    champion: Text
    on_inconclusive: Literal["pass", "fail"]
    rules: tuple[Rule, ...]
    artifacts: tuple[ArtifactRule, ...]


@dataclass(frozen=True)
class Export(Section):
    formats: Annotated[tuple[Format, ...], Field(min_length=1)]
    representative: Count
    calibrate: Switch
    golden: Natural


@dataclass(frozen=True)
class Report(Section):
    intended_use: Text
    mistakes: Natural
    thumbnails: Natural


@dataclass(frozen=True)
class Processes(Section):
    workers: Natural
    scheduler: Literal["none"] | Annotated[str, Field(pattern=r"^(tcp|tls|ws|wss)://.+:\d+$")]


@dataclass(frozen=True)
class DriftLimits(Section):
    psi: Positive
    ks: Fraction
    js: Fraction
    significance: Share


@dataclass(frozen=True)
class Monitor(DriftLimits):
    model: Text
    pictures: Text
    batch_size: Count
    retrain_on_drift: Switch


@dataclass(frozen=True)
class Compute(Processes):
    strategy: Strategy
    precision: Precision
    jit: Literal["auto"] | Switch
    deterministic: Switch
    tensorboard: Switch


@dataclass(frozen=True)
class Params(Section):
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
        held_out = self.build.validation_split + self.build.test_split
        if held_out >= 1:
            raise ParamError(
                f"build.validation_split and build.test_split are {held_out:g} together; "
                "they must leave something to train on: make the sum less than 1"
            )
        if not (self.train.head_epochs or self.train.fine_tune or self.train.augment.changes):
            raise ParamError(
                "train.head_epochs is 0, train.fine_tune is false and train.augment changes nothing, which "
                "leaves nothing to train; change one of them"
            )
        for place, rule in enumerate(self.gate.rules):
            rule.check(f"gate.rules.{place}")
            if rule.metric.startswith("robustness.") and not self.evaluate.robustness:
                raise ParamError(
                    f"gate.rules.{place}.metric is {rule.metric!r}, but evaluate.robustness is 0; raise it"
                )
        for place, needed in enumerate(self.gate.artifacts):
            needed.check(f"gate.artifacts.{place}", self.export.formats)


@cache
def load(file: Path = FILE) -> Params:
    """Reads and checks params.yaml.

    Raises:
        ParamError: names the file, the dotted key, the value that came and what is allowed.
    """
    return read(file, Params)


def read(file: Path, kind: type[T]) -> T:
    """Reads a YAML file into a frozen dataclass; an empty file is one without any name.

    Raises:
        ParamError: names the file, the dotted key, the value that came and what is allowed.
    """
    try:
        raw = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamError(f"{file} is not here; run from the root of the repository") from None
    except (YAMLError, UnicodeDecodeError) as error:
        where = " ".join(str(error).split())
        raise ParamError(f"{file} is not valid YAML: {where}") from None
    try:
        return TypeAdapter(kind).validate_python({} if raw is None else raw)
    except ValidationError as error:
        raise ParamError(f"{file}: " + _explain(error.errors(), kind)) from None
    except ParamError as error:
        raise ParamError(f"{file}: {error}") from None


def _explain(problems: list[ErrorDetails], root: type) -> str:
    """Says what is wrong in the words of the file: key, value, what is allowed."""
    # A misspelt key is both unknown and missing; the unknown one is what the user wrote.
    problem = min(problems, key=lambda p: p["type"] != "unexpected_keyword_argument")
    parts = _key(problem)
    key = ".".join(parts) or "the file"
    match problem["type"]:
        case "unexpected_keyword_argument":
            return f"{key} is not a parameter; known here: {', '.join(_known(parts, root))}"
        case "missing":
            return f"{key} is missing; give it a value"
        case "dataclass_type":
            return f"{key} is {problem['input']!r}; it must hold names with values"
    if problem["input"] is None:
        return f"{key} has no value; give it one"
    allowed = " or ".join(_allowed(other["msg"]) for other in problems if _key(other) == parts)
    return f"{key} is {problem['input']!r}; {allowed}"


def _key(problem: ErrorDetails) -> list[str]:
    """The dotted key's parts, without the arm of a union that pydantic adds at the end."""
    return [str(part) for part in problem["loc"] if not re.match(r"constrained-|.*\[", str(part))]


_PLAIN = {
    "Input should": "it must",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid string": "text",
    "a valid tuple": "a list",
    "Tuple": "the list",
    "String": "the text",
}


def _allowed(message: str) -> str:
    for term, plain in _PLAIN.items():
        message = message.replace(term, plain)
    return message


def _known(parts: list[str], root: type) -> list[str]:
    """Lists the keys that may stand beside the one at fault."""
    kind: Any = root
    for part in parts[:-1]:
        kind = get_args(kind)[0] if part.isdigit() else get_type_hints(kind)[part]
    return [field.name for field in dataclasses.fields(kind)]


def shown(values: dict[str, Any]) -> dict[str, str]:
    """Parameters by their dotted keys, as params.yaml may write them: 3.0 as 3, a list of rules one by one.

    Where they come from makes no difference: what a rule doesn't set isn't there, and its keys are sorted.
    """
    one_by_one: dict[str, Any] = {}
    for key, value in flat(values).items():
        rules = isinstance(value, (list, tuple)) and value and isinstance(value[0], dict)
        one_by_one |= {f"{key}.{place}": rule for place, rule in enumerate(value)} if rules else {key: value}
    return {key: text(value) for key, value in one_by_one.items()}


def text(value: Any) -> str:
    """A parameter's value, as params.yaml may write it."""
    if isinstance(value, dict):
        keys = [key for key in sorted(value) if value[key] is not None and value[key] is not False]
        return ", ".join(f"{key}: {text(value[key])}" for key in keys)
    whole = isinstance(value, float) and value.is_integer()
    return value if isinstance(value, str) else json.dumps(int(value) if whole else value, ensure_ascii=False)
