"""Metrics with their intervals: of one model, and of the change from one to another."""

from typing import Any

import numpy as np

from tasks.core.base.arrays import Array, rounded
from tasks.core.evaluation.intervals import agresti_min, bootstrap, wilson
from tasks.core.evaluation.metrics import METRICS, Answers, Metric, measure


def headline(answers: Answers, bins: int, resamples: int, seed: int) -> dict[str, Any]:
    """The numbers of a split, and under `interval_95` the interval of each as [low, high].

    Wilson's interval for shares; for the others the percentile bootstrap over images.
    """
    drawn = [metric for metric in METRICS.values() if not metric.hits]

    def values(rows: Array) -> Array:
        part = answers[rows]
        return np.array([metric.of(part, bins) for metric in drawn])

    ends = bootstrap(values, len(answers), resamples, seed)
    intervals = {
        metric.name: np.clip(pair, 0, 1 if metric.bounded else None)
        for metric, pair in zip(drawn, ends, strict=True)
    }
    intervals |= {name: wilson(metric.hits(answers)) for name, metric in METRICS.items() if metric.hits}
    rows = {name: [rounded(end) for end in intervals[name]] for name in METRICS}
    return measure(answers, bins) | {"n": len(answers), "interval_95": rows}


def change(
    candidate: Answers,
    reference: Answers,
    metric: Metric,
    relative: bool,
    bins: int,
    resamples: int,
    seed: int,
) -> tuple[float, tuple[float, float]]:
    """How much the candidate's metric is above the reference's, of the same images, and its 95 % interval.

    Images are compared in pairs: what is hard for both tells nothing of the difference, which is known
    better for it than either metric.

    Args:
        relative: as a share of the reference's, which must not be 0. The interval is NaN if it is in too many
            resamples.
    """

    def of(rows: Array) -> float:
        old = metric.of(reference[rows], bins)
        difference = metric.of(candidate[rows], bins) - old
        return difference / (old or np.nan) if relative else difference

    value = of(np.arange(len(candidate)))
    if metric.hits and not relative:
        return value, agresti_min(metric.hits(candidate), metric.hits(reference))
    ends = bootstrap(of, len(candidate), resamples, seed)
    low, high = np.clip(ends, -1, 1) if metric.bounded and not relative else ends
    return value, (float(low), float(high))
