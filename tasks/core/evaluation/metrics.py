"""How good a classifier is. `METRICS` is the one list of what is measured; all else that is done reads it."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import pandas as pd

from tasks.core.base.arrays import Array, rounded
from tasks.core.evaluation import calibration

WITHOUT = "no test image is of this class"
NEVER = "no test image was taken for this class"
Needs = Literal["classes", "ranks", "probabilities"]


@dataclass(frozen=True)
class Answers:
    """A classifier's answers to n images whose labels are known, reduced to what is measured.

    labels, predicted: int (n,), places of classes.
    confidence: float (n,), the probability of the predicted class.
    own: float (n,), the probability of the label; below 0 if the model doesn't know the class.
    above: int (n,), how many classes are likelier than the label, or as likely and before it.
    """

    labels: Array
    predicted: Array
    confidence: Array
    own: Array
    above: Array

    @classmethod
    def of(cls, labels: Array, probabilities: Array) -> Self:
        """Takes int (n,), and float (n, classes) with rows that sum to 1."""
        own = probabilities[np.arange(len(labels)), labels]
        first = np.arange(probabilities.shape[1]) < labels[:, None]  # of equal ones, as argmax has it
        above = np.where(first, probabilities >= own[:, None], probabilities > own[:, None]).sum(axis=1)
        return cls(labels, probabilities.argmax(axis=1), probabilities.max(axis=1), own, above)

    def __getitem__(self, rows: Array) -> Self:
        """Those to some images: places, which may repeat, or a mask."""
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def right(self) -> Array:
        right: Array = self.predicted == self.labels
        return right

    def counts(self, classes: int) -> Array:
        """Hits, labels and predictions of each class: int (3, classes)."""
        parts = (self.labels[self.right], self.labels, self.predicted)
        return np.stack([np.bincount(part, minlength=classes) for part in parts])

    @cached_property
    def counts_present(self) -> Array:
        """The counts of the classes that have a label or a prediction."""
        counts = self.counts(1 + max(self.labels.max(), self.predicted.max()))
        return counts[:, counts[1] + counts[2] > 0]


@dataclass(frozen=True)
class Metric:
    """A row of the table: what is measured of a split, and what is done with the number.

    name: in metrics.json and in rules.
    of: from the answers, and the number of bins for those that have bins.
    needs: what it is computed from. Baselines give classes alone; a temperature changes probabilities alone.
    hits: of a share, the images that count, bool (n,). Its intervals are exact; others are bootstrapped.
    bounded: whether it is from 0 to 1.
    title: of its card on the page; without one it has no card.
    min_classes: it has no card either where there are fewer.
    """

    name: str
    of: Callable[[Answers, int], float]
    needs: Needs = "classes"
    hits: Callable[[Answers], Array] | None = None
    bounded: bool = True
    title: str | None = None
    min_classes: int = 2


def right(answers: Answers) -> Array:
    return answers.right


def in_top_5(answers: Answers) -> Array:
    """Whose label is among the five likeliest classes, and one that the model knows."""
    top: Array = (answers.above < 5) & (answers.own >= 0)
    return top


def precision(hits: Array, true: Array, predicted: Array) -> Array:
    """0 for a class that is there and never predicted, as means take it; NaN for one that is neither."""
    return np.where(true + predicted > 0, hits / np.maximum(predicted, 1), np.nan)


def recall(hits: Array, true: Array, _predicted: Array) -> Array:
    """NaN for a class that isn't there."""
    return np.where(true > 0, hits / np.maximum(true, 1), np.nan)


def f1(hits: Array, true: Array, predicted: Array) -> Array:
    """0 for a class that is predicted and isn't there; NaN for one that is neither."""
    return np.where(true + predicted > 0, 2 * hits / np.maximum(true + predicted, 1), np.nan)


def log_loss(answers: Answers, _bins: int) -> float:
    """Mean negative log-likelihood in nats, probabilities clipped at 1e-7."""
    return float(-np.log(np.clip(answers.own, 1e-7, 1)).mean())


def ece(answers: Answers, bins: int) -> float:
    return calibration.error(answers.confidence, answers.right, bins)


def _share(hits: Callable[[Answers], Array]) -> Callable[[Answers, int], float]:
    return lambda answers, _bins: float(np.mean(hits(answers)))


def _macro(of_each: Callable[..., Array]) -> Callable[[Answers, int], float]:
    """The mean over the classes for which it is defined.

    By hand, and not by scikit-learn, since the bootstrap asks for it a thousand times.
    """
    return lambda answers, _bins: float(np.nanmean(of_each(*answers.counts_present)))


METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", _share(right), hits=right, title="Accuracy"),
        Metric("top_5_accuracy", _share(in_top_5), "ranks", in_top_5, title="Top-5 accuracy", min_classes=6),
        Metric("macro_precision", _macro(precision)),
        Metric("macro_recall", _macro(recall)),
        Metric("macro_f1", _macro(f1), title="Macro F1"),
        Metric("log_loss", log_loss, "probabilities", bounded=False, title="Log loss"),
        Metric("ece", ece, "probabilities", title="Calibration error"),
    )
}


def measure(answers: Answers, bins: int, needs: Needs | None = None) -> dict[str, float]:
    """All metrics by name, or those that need classes, ranks or probabilities alone."""
    return {
        name: rounded(metric.of(answers, bins))
        for name, metric in METRICS.items()
        if needs in (None, metric.needs)
    }


def per_class(answers: Answers, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Precision, recall, F1 and number of images of each class; none where undefined, and then `why`."""
    counts = answers.counts(len(names))
    table = pd.DataFrame({of.__name__: of(*counts).round(6) for of in (precision, recall, f1)})
    table["precision"] = table["precision"].where(counts[2] > 0)
    table = table.astype(object).where(table.notna(), None).assign(n=counts[1])
    table["why"] = np.select([counts[1] == 0, counts[2] == 0], [WITHOUT, NEVER], "")
    rows: list[dict[str, Any]] = table.to_dict("records")  # type: ignore[assignment]
    return {
        label: {key: value for key, value in row.items() if value != ""}
        for label, row in zip(names, rows, strict=True)
    }
