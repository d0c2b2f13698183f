"""What is common to all that counts with arrays."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]


def rounded(value: float) -> float:
    """Rounds to the six decimals that are stored."""
    return round(float(value), 6)
