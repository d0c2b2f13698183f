"""Parameters of the model: its backbone, and what is put upon it."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from tasks.core.base.params import Fraction, NotNegative, Section, Text, Whole

Features = Literal["last", "inner"]  # of a backbone: its own feature vector, or what inner layers say with it
MIN_SIDE, MAX_SIDE = 32, 1024  # pixels


@dataclass(frozen=True)
class Model(Section):
    backbone: Text
    sha256: Literal["none"] | Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    image_size: Literal["auto"] | Annotated[Whole, Field(ge=MIN_SIDE, le=MAX_SIDE)]
    features: Literal["auto"] | Features
    dropout: Fraction
    l2: Literal["auto"] | NotNegative
