"""How good a classifier is, and how sure one can be of it.

Everywhere: `labels` int (n,), `probabilities` float (n, classes) with rows that sum to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import precision_recall_fscore_support

Array = npt.NDArray[Any]
Z_95 = 1.959963984540054


def headline(labels: Array, probabilities: Array, bins: int, resamples: int, seed: int) -> dict[str, Any]:
    """The numbers of a split, and under `interval_95` the interval of each as [low, high].

    Wilson's interval for the two shares; for the others the percentile bootstrap over pictures.
    """
    n = len(labels)
    shares = {"accuracy": accuracy(labels, probabilities), "top_5_accuracy": top_k(labels, probabilities, 5)}
    measures: dict[str, Callable[[Array, Array], float]] = {
        "macro_f1": macro_f1,
        "log_loss": log_loss,
        "ece": lambda y, p: expected_calibration_error(y, p, bins),
    }
    values = shares | {name: measure(labels, probabilities) for name, measure in measures.items()}
    intervals = {name: wilson(share, n) for name, share in shares.items()}
    intervals |= bootstrap(labels, probabilities, measures, resamples, seed)
    return (
        {name: _rounded(value) for name, value in values.items()}
        | {"n": n}
        | {"interval_95": {name: [_rounded(x) for x in intervals[name]] for name in values}}
    )


def accuracy(labels: Array, probabilities: Array) -> float:
    return float(np.mean(probabilities.argmax(axis=1) == labels))


def top_k(labels: Array, probabilities: Array, k: int) -> float:
    """Share of pictures whose class is among the k likeliest; 1 where there are at most k classes."""
    own = probabilities[np.arange(len(labels)), labels]
    return float(np.mean((probabilities > own[:, None]).sum(axis=1) < k))


def macro_f1(labels: Array, probabilities: Array) -> float:
    """Mean of the classes' F1; a class that is neither there nor predicted is left out."""
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(axis=1)
    hits = np.bincount(labels[labels == predicted], minlength=classes)
    both = np.bincount(labels, minlength=classes) + np.bincount(predicted, minlength=classes)
    return float(np.mean(2 * hits[both > 0] / both[both > 0]))


def log_loss(labels: Array, probabilities: Array) -> float:
    """Mean negative log-likelihood in nats, probabilities clipped at 1e-7."""
    own = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(own, 1e-7, 1)).mean())


def expected_calibration_error(labels: Array, probabilities: Array, bins: int) -> float:
    """Mean distance of confidence from accuracy, 0-1, over equal-width bins (Guo et al., 2017)."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.bincount(place, weights=confidence - right, minlength=bins)
    return float(np.abs(gap).sum() / len(labels))


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share seen in n trials (Wilson, 1927)."""
    centre = share + Z_95**2 / (2 * n)
    spread = Z_95 * np.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2))
    scale = 1 + Z_95**2 / n
    return max(0.0, float(centre - spread) / scale), min(1.0, float(centre + spread) / scale)


def bootstrap(
    labels: Array,
    probabilities: Array,
    measures: dict[str, Callable[[Array, Array], float]],
    resamples: int,
    seed: int,
) -> dict[str, tuple[float, float]]:
    """The 95 % percentile interval of each measure, over pictures drawn with replacement."""
    rng = np.random.default_rng(seed)
    draws: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(resamples):
        rows = rng.integers(0, len(labels), len(labels))
        for name, measure in measures.items():
            draws[name].append(measure(labels[rows], probabilities[rows]))
    return {name: tuple(np.percentile(values, [2.5, 97.5])) for name, values in draws.items()}


def per_class(labels: Array, probabilities: Array, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Precision, recall, F1 and number of pictures of each class."""
    table = precision_recall_fscore_support(
        labels, probabilities.argmax(axis=1), labels=range(len(names)), zero_division=0.0
    )
    columns = ("precision", "recall", "f1", "n")
    rows = (
        dict(zip(columns, (*map(_rounded, row[:3]), int(row[3])), strict=True))
        for row in zip(*table, strict=True)
    )
    return dict(zip(names, rows, strict=True))


def _rounded(value: float) -> float:
    return round(float(value), 6)
