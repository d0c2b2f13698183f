"""What a data set's images are expected to be like: suggested from those there are, edited by a person."""

from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import Field
from ruamel.yaml import YAML

from tasks.core.base import params
from tasks.core.base.errors import ParamError
from tasks.core.base.params import Count, Section, Text

ROOM = 2  # times beyond the sizes seen that a suggestion lets in
DRIFT = 0.2  # suggested; by chance alone, 0.1 is rare from 400 images on


@dataclass(frozen=True)
class Range(Section):
    """Pixels, both ends allowed."""

    min: Count
    max: Count

    def __post_init__(self) -> None:
        if self.min > self.max:
            raise ParamError(f"a range has min {self.min} and max {self.max}; min must not be larger")


@dataclass(frozen=True)
class Schema(Section):
    """What is not said is not looked at.

    `drift` is the largest Kolmogorov-Smirnov statistic (0-1: the largest difference of the cumulative
    distributions) that a measure may have between the manifest accepted last and this one.
    """

    classes: tuple[Text, ...] | None = None
    formats: tuple[Text, ...] | None = None
    width: Range | None = None
    height: Range | None = None
    drift: Annotated[params.Number, Field(ge=0, le=1)] | None = None


def load(file: Path) -> Schema:
    """Reads a schema.

    Raises:
        ParamError: names the file, the key, the value and what is allowed.
    """
    if not file.is_file():
        raise ParamError(f"data.schema: {file} is not there; `python -m tasks.validate --suggest` writes it")
    return params.read(file, Schema)


def suggest(images: pd.DataFrame) -> Schema:
    """A schema that lets these readable images in, and such as are like them."""
    return Schema(
        classes=tuple(sorted(images["label"].unique())),
        formats=tuple(sorted(images["format"].unique())),
        width=_range(images["width"]),
        height=_range(images["height"]),
        drift=DRIFT,
    )


def _range(sides: pd.Series) -> Range:
    return Range(max(1, int(sides.min()) // ROOM), int(sides.max()) * ROOM)


def text(schema: Schema) -> str:
    """The schema as YAML, for a person to edit."""
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.sort_base_mapping_type_on_output = False
    yaml.default_flow_style = None  # a list or a range on one line
    yaml.allow_unicode = True
    yaml.width = 100
    yaml.representer.add_representer(str, _text_node)
    stream = StringIO()
    yaml.dump(asdict(schema), stream)
    return HEAD + stream.getvalue()


def _text_node(representer: Any, text: str) -> Any:
    """Text that begins as the key of a mapping does goes into quotes, which ruamel.yaml forgets."""
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style='"' if text[:1] == "?" else None)


HEAD = """\
# What your images have to be like: suggested from those there were, for you to edit. Leave out what
# doesn't matter. Width and height are in pixels. `drift` is how far the distribution of a quality
# measure may move from the images accepted last (Kolmogorov-Smirnov, 0-1). params.yaml:
# validate.severity says what is an error.
"""
