"""How sure one can be of a number that was measured on so many images: intervals at 95 %."""

import warnings
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from tasks.core.base.arrays import Array

Z_95 = NormalDist().inv_cdf(0.975)
UNDEFINED = 0.025  # of the resamples, at most


def wilson(hits: Array) -> tuple[float, float]:
    """The score interval of a share of n trials (Wilson, 1927), from bool (n,)."""
    from scipy.stats import binomtest  # half a second, for all who compare

    low, high = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return float(low), float(high)


def agresti_min(after: Array, before: Array) -> tuple[float, float]:
    """The interval of a difference of two shares of the same n trials (Agresti and Min, 2005).

    Wald's, with half a trial more of each of the four outcomes that a pair may have: it has a width also
    where all pairs agree.

    Args:
        after, before: bool (n,).
    """
    n = len(after) + 2
    gained, lost = np.sum(after & ~before) + 0.5, np.sum(before & ~after) + 0.5
    difference = (gained - lost) / n
    spread = Z_95 * np.sqrt(gained + lost - (gained - lost) ** 2 / n) / n
    return max(-1.0, float(difference - spread)), min(1.0, float(difference + spread))


def bootstrap(of: Callable[[Array], Array | float], count: int, resamples: int, seed: int) -> Array:
    """Percentile intervals of values, over images drawn with replacement (Efron, 1979), and moved.

    They are moved by what the resamples are off by on average: means over classes come out lower there,
    where some of the small classes get lost.

    Args:
        of: from the places of the images drawn to a value, or to several. What compares two models of the
            same images draws them in pairs by using the places for both.
        count: of images.

    Returns:
        Low and high of the value, or a row of them for each of several. Resamples of which it is NaN are left
        out; it is NaN itself if these are more than what lies outside of the interval.
    """
    rng = np.random.default_rng(seed)
    draws = np.array([of(rng.integers(count, size=count)) for _ in range(resamples)])
    is_undefined = np.isnan(draws).mean(axis=0) > UNDEFINED
    with warnings.catch_warnings(action="ignore"):  # where all are
        off = np.nanmean(draws, axis=0) - of(np.arange(count))
        ends: Array = np.nanpercentile(draws, [2.5, 97.5], axis=0).T - np.expand_dims(off, -1)
    return np.where(np.expand_dims(is_undefined, -1), np.nan, ends)
