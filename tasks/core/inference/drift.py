"""How far new images are from those that a model was made with: statistics, and when they say drift.

A check reports drift if the effect size (its statistic) is above a limit and the p-value of a test of the
same comparison is below `significance`. The effect size alone isn't enough: 50 images just like the old
ones have a stability index of 0.18 on average, by the number of images alone.
"""

from dataclasses import dataclass
from heapq import nlargest
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2_contingency, ks_2samp

from tasks.core.data.manifest import MEASURES
from tasks.core.inference.config import DriftLimits

MIN_P_VALUE = 1e-16  # a p-value that is as good as none
BINS = 10  # of the stability index: tenths of the old images
MAX_MOVED_BINS = 3  # bins to name that have changed most
CONFIDENCE, CLASSES = "confidence", "predicted class"

Numbers = npt.NDArray[np.float64]
Counts = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Check:
    """A comparison; `old` and `new` are shares of the images in each bin, which add up to 1."""

    name: str
    statistic: str
    value: float
    limit: float
    p_value: float
    drifted: bool
    bins: tuple[str, ...]
    old: tuple[float, ...]
    new: tuple[float, ...]

    @property
    def chance(self) -> str:
        return f"p {self.p_value:.2g}" if self.p_value > MIN_P_VALUE else f"p < {MIN_P_VALUE:g}"

    @property
    def moved(self) -> list[tuple[str, float, float]]:
        """The bins that have changed most, each with its share of the old and of the new images."""
        rows = [row for row in zip(self.bins, self.old, self.new, strict=True) if row[1] != row[2]]
        return nlargest(MAX_MOVED_BINS, rows, key=lambda row: abs(row[2] - row[1]))

    @property
    def why(self) -> str:
        far = "above" if self.value > self.limit else "within"
        doubt = "" if self.drifted or self.value <= self.limit else ", as chance may have it"
        return (
            f"{self.statistic} of {self.name} is {self.value:.3f}, {far} {self.limit:g} "
            f"({self.chance}){doubt}"
        )


def checks(old: pd.DataFrame, answered: pd.DataFrame, new: pd.DataFrame, limits: DriftLimits) -> list[Check]:
    """Compares new images with the old ones.

    Args:
        old: the manifest's readable rows, for the measures of quality.
        answered: those of the test images, which the model was not trained on either.
        new: the readable rows of a table of `scoring`.
        limits: of each statistic, and the p-value below which it is no chance.
    """
    numbers = [*((name, old) for name in MEASURES), (CONFIDENCE, answered)]
    found = [
        check
        for name, before in numbers
        for check in compare_numbers(name, before[name].to_numpy(float), new[name].to_numpy(float), limits)
    ]
    return [*found, compare_classes(answered["predicted"], new["predicted"], limits)]


def compare_numbers(name: str, old: Numbers, new: Numbers, limits: DriftLimits) -> list[Check]:
    """Compares a number by the population stability index and by Kolmogorov's and Smirnov's statistic.

    Where the old images are all alike the index can't see a fall, which is in the same bin; the other can.
    """
    edges = np.unique(np.quantile(old, np.arange(1, BINS) / BINS))
    counts = np.stack(
        [np.bincount(np.searchsorted(edges, each), minlength=len(edges) + 1) for each in (old, new)]
    )
    within = [f"{low:.3g} to {high:.3g}" for low, high in pairwise(edges)]
    bins = (f"up to {edges[0]:.3g}", *within, f"above {edges[-1]:.3g}")
    ks = ks_2samp(old, new)
    return [
        _check(name, "PSI", stability(counts), limits.psi, independence(counts), limits, bins, counts),
        _check(name, "KS", float(ks.statistic), limits.ks, float(ks.pvalue), limits, bins, counts),
    ]


def compare_classes(old: pd.Series, new: pd.Series, limits: DriftLimits) -> Check:
    """Compares the mix of classes by Jensen's and Shannon's distance: the root of Lin's (1991), base 2."""
    names = sorted({*old, *new})
    counts = np.stack([one.value_counts().reindex(names, fill_value=0).to_numpy() for one in (old, new)])
    distance = float(jensenshannon(*counts, base=2))
    p_value = independence(counts)
    return _check(CLASSES, "JS distance", distance, limits.js, p_value, limits, tuple(names), counts)


def _check(
    name: str,
    statistic: str,
    value: float,
    limit: float,
    p_value: float,
    limits: DriftLimits,
    bins: tuple[str, ...],
    counts: Counts,
) -> Check:
    value, p_value = round(value, 6), float(f"{p_value:.3g}")
    drifted = value > limit and p_value < limits.significance
    old, new = (counts / counts.sum(axis=1, keepdims=True)).tolist()
    return Check(name, statistic, value, limit, p_value, drifted, bins, tuple(old), tuple(new))


def stability(counts: Counts) -> float:
    """The population stability index of two rows of counts: the sum of (b - a) ln(b / a) of their shares.

    Siddiqi, Credit Risk Scorecards, 2006. Half an image is added to each bin, since none has no logarithm.
    """
    shares = (counts + 0.5) / (counts + 0.5).sum(axis=1, keepdims=True)
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def independence(counts: Counts) -> float:
    """The p-value of two rows of counts having one distribution, by a G-test."""
    used = counts[:, counts.sum(axis=0) > 0]
    if used.shape[1] < 2:
        return 1.0
    return float(chi2_contingency(used, correction=False, lambda_="log-likelihood").pvalue)
