"""Features of one scale, and a head's weights on features as they are."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from tasks.core.base.arrays import Array
from tasks.core.base.matrix import blocks, total

MIN_DEVIATION = 0.1  # of a feature, as a share of the mean one
STEP = 10.0  # how much smaller scaled features are where the backbone trains, too


@dataclass(frozen=True)
class Scaling:
    """What makes features of one scale: (features - mean) / scale, each float32 (width,).

    step: how many times smaller than of unit variance they come out.
    """

    mean: Array
    scale: Array
    step: float = 1.0

    @classmethod
    def of(cls, values: Array) -> Self:
        """Of features, float32 (n, width): they get zero mean and about unit variance.

        Those that hardly vary stay small: made as large as the others, what is noise in them would be, too.
        """
        count = len(values)
        mean = total(part.sum(axis=0) for (part,) in blocks(values)) / count
        squares = total(np.square(part - mean).sum(axis=0) for (part,) in blocks(values))
        deviations = np.sqrt(squares / count)
        least = MIN_DEVIATION * deviations.mean() or 1.0
        return cls(mean, np.hypot(deviations, least).astype(np.float32))

    def apply(self, values: Any) -> Any:
        """Scales features: an array, or a tensor of Keras."""
        return (values - self.mean) / self.scale

    @classmethod
    def none(cls, width: int) -> Self:
        """One that changes nothing."""
        return cls(np.zeros(width, np.float32), np.ones(width, np.float32))

    def reduce(self) -> Self:
        """One that leaves features STEP times smaller.

        Adam changes each weight of the head by as much as one of the backbone. On some thousand features of
        unit variance that is too much at once.
        """
        return type(self)(self.mean, self.scale * np.float32(STEP), self.step * STEP)

    def fold(self, kernel: Array, bias: Array) -> list[Array]:
        """The weights on the features as they are that do what these do on scaled ones."""
        folded = kernel / self.scale[:, None]
        return [folded, bias - self.mean @ folded]

    def unfold(self, kernel: Array, bias: Array) -> list[Array]:
        """What `fold` takes back."""
        return [kernel * self.scale[:, None], bias + self.mean @ kernel]
