"""How good a classifier is, and how sure one can be of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_fscore_support

from tasks.core.base.arrays import Array, rounded

Z_95 = 1.959963984540054
TINY = 1e-12


@dataclass(frozen=True)
class Answers:
    """A classifier's answers to n pictures whose labels are known, reduced to what is measured.

    labels, predicted: int (n,), places of classes.
    confidence: float (n,), the probability of the predicted class.
    own: float (n,), the probability of the label.
    above: int (n,), how many classes are likelier than the label.
    """

    labels: Array
    predicted: Array
    confidence: Array
    own: Array
    above: Array

    @classmethod
    def of(cls, labels: Array, probabilities: Array) -> Answers:
        """Takes int (n,), and float (n, classes) with rows that sum to 1."""
        own = probabilities[np.arange(len(labels)), labels]
        above = (probabilities > own[:, None]).sum(axis=1)
        return cls(labels, probabilities.argmax(axis=1), probabilities.max(axis=1), own, above)

    def __getitem__(self, rows: Array) -> Answers:
        """Those to some pictures: places, which may repeat, or a mask."""
        return Answers(*(getattr(self, field.name)[rows] for field in fields(self)))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def right(self) -> Array:
        right: Array = self.predicted == self.labels
        return right

    @cached_property
    def counts(self) -> tuple[Array, Array, Array]:
        """Hits, labels and predictions of each class that has one of them."""
        size = 1 + max(self.labels.max(), self.predicted.max())
        true = np.bincount(self.labels, minlength=size)
        predicted = np.bincount(self.predicted, minlength=size)
        hits = np.bincount(self.labels[self.right], minlength=size)
        there = true + predicted > 0
        return hits[there], true[there], predicted[there]


Measure = Callable[[Answers], float]


def accuracy(answers: Answers) -> float:
    return float(np.mean(answers.right))


def top_5_accuracy(answers: Answers) -> float:
    """Share of pictures whose label is among the five likeliest classes; 1 where there are at most five."""
    return float(np.mean(answers.above < 5))


SHARES: dict[Measure, Callable[[Answers], Array]] = {
    accuracy: lambda answers: answers.right,
    top_5_accuracy: lambda answers: answers.above < 5,
}


def macro_precision(answers: Answers) -> float:
    """Mean of the precision of the classes that are there or predicted; 0 for one never predicted."""
    hits, _, predicted = answers.counts
    return float(np.mean(hits / np.maximum(predicted, 1)))


def macro_recall(answers: Answers) -> float:
    """Mean of the recall of the classes that are there or predicted; 0 for one that isn't there."""
    hits, true, _ = answers.counts
    return float(np.mean(hits / np.maximum(true, 1)))


def macro_f1(answers: Answers) -> float:
    """Mean of the F1 of the classes that are there or predicted."""
    hits, true, predicted = answers.counts
    return float(np.mean(2 * hits / (true + predicted)))


def log_loss(answers: Answers) -> float:
    """Mean negative log-likelihood in nats, probabilities clipped at 1e-7."""
    return float(-np.log(np.clip(answers.own, 1e-7, 1)).mean())


def expected_calibration_error(bins: int) -> Measure:
    """Mean distance of confidence from accuracy, 0-1, over bins of equal width (Guo et al., 2017)."""

    def ece(answers: Answers) -> float:
        gap = np.bincount(_bin(answers.confidence, bins), weights=answers.confidence - answers.right)
        return float(np.abs(gap).sum() / len(answers))

    return ece


def _bin(confidence: Array, bins: int) -> Array:
    places: Array = np.minimum((confidence * bins).astype(int), bins - 1)
    return places


def measures(bins: int) -> dict[str, Measure]:
    """What is measured of each split, by name; `bins` are those of the calibration error."""
    return {
        "accuracy": accuracy,
        "top_5_accuracy": top_5_accuracy,
        "macro_precision": macro_precision,
        "macro_recall": macro_recall,
        "macro_f1": macro_f1,
        "log_loss": log_loss,
        "ece": expected_calibration_error(bins),
    }


def headline(answers: Answers, bins: int, resamples: int, seed: int) -> dict[str, Any]:
    """The numbers of a split, and under `interval_95` the interval of each as [low, high].

    Wilson's interval for the two shares; for the others the percentile bootstrap over pictures.
    """
    every, n = measures(bins), len(answers)
    values = {name: measure(answers) for name, measure in every.items()}
    shares = {name: wilson(values[name], n) for name, measure in every.items() if measure in SHARES}
    drawn = {name: measure for name, measure in every.items() if name not in shares}
    intervals = shares | bootstrap(lambda rows: _all(drawn, answers[rows]), answers.labels, resamples, seed)
    return (
        {name: rounded(value) for name, value in values.items()}
        | {"n": n}
        | {"interval_95": {name: [rounded(end) for end in intervals[name]] for name in values}}
    )


def _all(chosen: dict[str, Measure], answers: Answers) -> dict[str, float]:
    return {name: measure(answers) for name, measure in chosen.items()}


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share seen in n trials (Wilson, 1927)."""
    centre = share + Z_95**2 / (2 * n)
    spread = Z_95 * np.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2))
    scale = 1 + Z_95**2 / n
    return max(0.0, float(centre - spread) / scale), min(1.0, float(centre + spread) / scale)


def bootstrap(
    of: Callable[[Array], dict[str, float]], labels: Array, resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """The 95 % percentile intervals of values, over pictures drawn with replacement (Efron, 1979).

    Each class keeps its number of pictures: means over classes would otherwise lose some of the small ones,
    and be off to one side.

    Args:
        of: from the places of the pictures drawn to the values, by name. What compares two models of the same
            pictures draws them in pairs by using the places for both.
        labels: int (n,), places of the pictures' classes.
    """
    rng = np.random.default_rng(seed)
    order = np.argsort(labels, kind="stable")
    _, start, count = np.unique(labels[order], return_index=True, return_counts=True)
    first, many = np.repeat(start, count), np.repeat(count, count)
    draws = [of(order[first + (rng.random(len(labels)) * many).astype(int)]) for _ in range(resamples)]
    return {
        name: tuple(np.percentile([draw[name] for draw in draws], [2.5, 97.5]).tolist()) for name in draws[0]
    }


def change(
    ours: Answers, theirs: Answers, measure: Measure, relative: bool, resamples: int, seed: int
) -> tuple[float, tuple[float, float]]:
    """How much a measure of ours is above that of theirs, of the same pictures, and its 95 % interval.

    Pictures are compared in pairs: what is hard for both tells nothing of the difference, which is known
    better for it than either measure. Of the two shares, accuracy and top-5, it is Agresti's and Min's
    interval (2005), which has a width also where the models agree on every picture; of all else the
    bootstrap's.

    Args:
        relative: as a share of theirs, which must not be 0.
    """

    def of(rows: Array) -> dict[str, float]:
        old = measure(theirs[rows])
        difference = measure(ours[rows]) - old
        return {"": difference / (old or TINY) if relative else difference}

    value = of(np.arange(len(ours)))[""]
    hits = SHARES.get(measure)
    if hits and not relative:
        return value, agresti_min(hits(ours), hits(theirs))
    return value, bootstrap(of, ours.labels, resamples, seed)[""]


def agresti_min(ours: Array, theirs: Array) -> tuple[float, float]:
    """The 95 % interval of a difference of two shares of the same n trials (Agresti and Min, 2005).

    Wald's, with half a trial more of each of the four outcomes that a pair may have.

    Args:
        ours, theirs: bool (n,).
    """
    n = len(ours) + 2
    gained, lost = np.sum(ours & ~theirs) + 0.5, np.sum(theirs & ~ours) + 0.5
    difference = (gained - lost) / n
    spread = Z_95 * np.sqrt(gained + lost - (gained - lost) ** 2 / n) / n
    return float(difference - spread), float(difference + spread)


def reliability(answers: Answers, bins: int) -> list[dict[str, Any]]:
    """The reliability curve: `n`, mean `confidence` and `accuracy` of each bin that holds pictures."""
    places = _bin(answers.confidence, bins)
    return [
        {
            "n": int(chosen.sum()),
            "confidence": rounded(answers.confidence[chosen].mean()),
            "accuracy": rounded(answers.right[chosen].mean()),
        }
        for chosen in (places == place for place in np.unique(places))
    ]


def per_class(answers: Answers, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Precision, recall, F1 and number of pictures of each class."""
    table = precision_recall_fscore_support(
        answers.labels, answers.predicted, labels=range(len(names)), zero_division=0.0
    )
    columns = ("precision", "recall", "f1", "n")
    rows = (
        dict(zip(columns, (*map(rounded, row[:3]), int(row[3])), strict=True))
        for row in zip(*table, strict=True)
    )
    return dict(zip(names, rows, strict=True))
