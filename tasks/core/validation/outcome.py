"""What a check found."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Outcome:
    """What a check found, in values that JSON can hold."""

    kind: str
    name: str
    severity: Literal["error", "warning"]
    passed: bool
    expected: str
    observed: Any  # where the check looks at single images: how many offend
    count: int  # images that offend, tolerated ones among them
    paths: tuple[str, ...]  # all of these, in order
    remedy: str
    details: str
