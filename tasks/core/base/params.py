"""The one reader of params.yaml. Every value has its one home there: nothing has a default in code.

The sections stand in the `config.py` of their room; here is what they are made of, and `data`, which
is of several.
"""

import dataclasses
import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, Field, Strict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import ScalarNode

from tasks.core.base.errors import ParamError
from tasks.core.base.presence import tell_pointer

FILE = Path("params.yaml")
RENAMED = {  # keys of earlier versions, and what they are called now
    "gate.artifacts": "export.rules",
    "monitor.pictures": "monitor.images",
    "train.head_epochs": "train.head",
    "validate.severity.tied": "validate.severity.groups_merged",
}

# Leaves are strict: `epochs: "8"` and `fine_tune: 1` are slips, not values to be guessed at.
MOST = 2**31 - 1  # far beyond all that is of use, and no product of two is too large for 64 bits
Text = Annotated[str, Field(min_length=1)]
Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Switch = Annotated[bool, Strict()]
Count = Annotated[Whole, Field(ge=1, le=MOST)]
Natural = Annotated[Whole, Field(ge=0, le=MOST)]
Seed = Annotated[Whole, Field(ge=0, lt=2**32)]  # what NumPy and Keras take
Fraction = Annotated[Number, Field(ge=0, lt=1)]
Share = Annotated[Number, Field(gt=0, lt=1)]
Positive = Annotated[Number, Field(gt=0, le=MOST)]
NotNegative = Annotated[Number, Field(ge=0, le=MOST)]


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

    def check_share(self, key: str) -> None:
        """Checks the limit of a share, which no percentage is: one of at most 1 or more lets all through.

        Raises:
            ParamError: names the rule by its `key`.
        """
        if self.max == 1:
            raise ParamError(
                f"{key} asks for a {self.metric} of at most 1, which all are; leave it out, or make it 0.01"
            )
        if abs(self.threshold) > 1:
            raise ParamError(
                f"{key} asks for a {self.metric} of {self.said('g')}; it is a share: 90 % are 0.9"
            )


def load(kind: type[T]) -> T:
    """Reads from params.yaml the sections and keys that a stage or command names.

    The whole file is checked first, so that a slip in `export` is reported before an hour of training. That
    check knows every room, is asked for by name, and can only refuse: it is no dependency of a stage.

    Raises:
        ParamError: names the file, the dotted key, the value that came and what is allowed.
    """
    raw = _parse(FILE)
    _validate(FILE, raw, importlib.import_module("tasks.check").Params)
    return _validate(FILE, _select(raw, kind), kind)


def read(file: Path, kind: type[T]) -> T:
    """Reads a YAML file into a frozen dataclass; an empty file is one without any name.

    Raises:
        ParamError: names the file, the dotted key, the value that came and what is allowed.
    """
    return _validate(file, _parse(file), kind)


def _parse(file: Path, constructor: type[SafeConstructor] | None = None) -> Any:
    reader: Any = YAML(typ="safe", pure=True)
    reader.Constructor = constructor or _TextKeys
    try:
        if told := tell_pointer(file):
            raise ParamError(told)
        raw = reader.load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamError(f"{file} is not here; run from the root of the repository") from None
    except (YAMLError, UnicodeDecodeError) as error:
        where = " ".join(str(error).split())
        if "yaml.org,2002:value" in where:  # a type of its own in YAML 1.1, also for DVC
            line = error.problem_mark.line + 1  # type: ignore[union-attr]
            raise ParamError(f"{file} has = as a value in line {line}; put it in quotes") from None
        raise ParamError(f"{file} is not valid YAML: {where}") from None
    return {} if raw is None else raw


class _TextKeys(SafeConstructor):
    """Every key is the text that stands in the file, be it 1 or ~."""

    def flatten_mapping(self, node: Any) -> None:
        super().flatten_mapping(node)
        for key, _ in node.value:
            if isinstance(key, ScalarNode):
                key.tag = "tag:yaml.org,2002:str"


class _AllText(_TextKeys):
    """Every value too: numbers and dates as they were written."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        return node.value if isinstance(node, ScalarNode) else super().construct_object(node, deep)


def _select(raw: Any, kind: type) -> dict[str, Any]:
    """Of a file that is sound, what a dataclass and those of its fields that are dataclasses name."""
    types = get_type_hints(kind)
    sections = {field.name: types[field.name] for field in dataclasses.fields(kind)}
    return {
        name: {key.name: raw[name][key.name] for key in dataclasses.fields(section) if key.name in raw[name]}
        if dataclasses.is_dataclass(section)
        else raw[name]
        for name, section in sections.items()
    }


def _validate(file: Path, raw: Any, kind: type[T]) -> T:
    try:
        return TypeAdapter(kind).validate_python(raw)
    except ValidationError as error:
        raise ParamError(f"{file}: " + _explain(error.errors(), kind, file)) from None
    except ParamError as error:
        raise ParamError(f"{file}: {error}") from None


def _explain(problems: list[ErrorDetails], root: type, file: Path) -> str:
    """Says what is wrong in the words of the file: key, value, what is allowed."""
    # A misspelt key is both unknown and missing; the unknown one is what the user wrote.
    problem = min(problems, key=lambda p: p["type"] != "unexpected_keyword_argument")
    parts = _key(problem)
    key = ".".join(parts) or "the file"
    if key in RENAMED:
        return f"{key} is called {RENAMED[key]} now; move what it holds there"
    match problem["type"]:
        case "unexpected_keyword_argument":
            return f"{key} is not a parameter; known here: {', '.join(_known(parts, root))}"
        case "missing":
            return f"{key} is missing; give it a value"
        case "dataclass_type":
            return f"{key} is {problem['input']!r}; it must hold names with values"
    if problem["input"] is None:
        return f"{key} has no value; give it one"
    allowed = " or ".join(_allowed(other) for other in problems if _key(other) == parts)
    is_text = _ALLOWED["string_type"] in allowed and not isinstance(problem["input"], list | dict)
    written = _as_written(file, parts) if is_text else repr(problem["input"])
    return f"{key} is {written}; {allowed}"


def _as_written(file: Path, parts: list[str]) -> Any:
    value = _parse(file, _AllText)
    for part in parts:
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


_ARM = r"constrained-|bool$|literal\["


def _key(problem: ErrorDetails) -> list[str]:
    """The dotted key's parts, without the arm of a union that pydantic adds to that of a value."""
    parts = [str(part) for part in problem["loc"]]
    is_of_value = problem["type"] not in ("unexpected_keyword_argument", "missing")
    return parts[:-1] if is_of_value and parts and re.match(_ARM, parts[-1]) else parts


# What is allowed, by the type of pydantic's error; the names in braces are those of its context.
_ALLOWED = {
    "int_type": "it must be a whole number",
    "float_type": "it must be a number",
    "finite_number": "it must be a finite number",
    "bool_type": "it must be true or false",
    "string_type": "it must be text: put it in quotes",
    "tuple_type": "it must be a list",
    "literal_error": "it must be {expected}",
    "greater_than": "it must be greater than {gt:.10g}",
    "greater_than_equal": "it must be greater than or equal to {ge:.10g}",
    "less_than": "it must be less than {lt:.10g}",
    "less_than_equal": "it must be less than or equal to {le:.10g}",
    "string_too_short": "the text must have at least {min_length} character",
    "string_pattern_mismatch": "the text must match pattern '{pattern}'",
    "too_short": "the list must have at least {min_length} item",
}


def _allowed(problem: ErrorDetails) -> str:
    words = _ALLOWED.get(problem["type"])
    return words.format_map(problem.get("ctx", {})) if words else problem["msg"]


def _known(parts: list[str], root: type) -> list[str]:
    """Lists the keys that may stand beside the one at fault."""
    return [field.name for field in dataclasses.fields(_kind(root, parts[:-1]))]


def takes_text(root: type, path: list[str]) -> bool:
    """Whether the value of a key that is there may be any text."""
    try:
        return _kind(root, path) is str
    except KeyError:  # no parameter, which is told elsewhere
        return False


def _kind(root: Any, parts: list[str]) -> Any:
    """The type of what stands under a key; that of the section where it may be none."""
    for part in parts:
        root = get_args(root)[0] if part.isdigit() else get_type_hints(root)[part]
        if isinstance(root, UnionType):
            root = next(filter(dataclasses.is_dataclass, get_args(root)), root)
    return root
