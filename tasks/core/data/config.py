"""Parameters of the data set, and of the processes that read images."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from tasks.core.base.contract import Packing, Resize
from tasks.core.base.errors import ParamError
from tasks.core.base.params import Natural, Section, Seed, Share

LOCAL = "none"  # the compute.scheduler that stands for processes of this machine


@dataclass(frozen=True)
class Build(Section):
    validation_split: Share
    test_split: Share
    seed: Seed
    resize: Resize
    record: Packing

    def __post_init__(self) -> None:
        held_out = self.validation_split + self.test_split
        if held_out >= 1:
            raise ParamError(
                f"build.validation_split and build.test_split are {held_out:g} together; "
                "they must leave something to train on: make the sum less than 1"
            )


@dataclass(frozen=True)
class Processes(Section):
    """Those of compute that say where work is spread."""

    workers: Natural
    scheduler: Literal["none"] | Annotated[str, Field(pattern=r"^(tcp|tls|ws|wss)://.+:\d+$")]
