"""Training images whose label is wrong by all appearances, and how many there are.

A cross-validation gives each image its probabilities by a regression that has not seen it. A label is taken
to be drawn by these, at a temperature (Guo et al., 2017), or with some chance from all classes alike:
symmetric label noise (Angluin and Laird, 1988). Chance and temperature are the most likely ones. However
difficult the images, the chance is zero unless the regression is sure and contradicted more often than it is
wrong. A label's chance of being wrong follows by Bayes.

Of such noise all classes have as many. Where it is in the labels of few classes, it is these that have images
like those of others: a small defect that the backbone doesn't see is no wrong label. So labels that are
confused between two classes alone are not found.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd
from scipy import optimize, stats

from tasks.core.backbones.logistic import log_sum
from tasks.core.base.arrays import Array

# What is tried, before the best is refined: the likelihood has several peaks. The strong penalty that wrong
# labels call for makes probabilities so timid that at a temperature of 1 no label looks wrong.
TEMPERATURES = np.geomspace(0.1, 5, 25)
SHARES = np.geomspace(0.003, 0.7, 25)
SIGNIFICANCE = 0.05  # of the likelihood ratio, from which on labels are called wrong at all
COMMON = 0.5  # of the classes, more than which must be contradicted, each
PART = 1 / 3  # of what they are on average at least; of noise, each has as much
LEAST_LEFT = 0.2  # of a class's images; if fewer were left, it may be the class that isn't known


@dataclass(frozen=True)
class LabelNoise:
    """What is known of the labels of n images.

    share: of labels that are wrong, 0-1. wrong: which are more likely to be so than not, bool (n,).
    confidence: the probability of each label by a regression that has not seen the image, 0-1, (n,).
    suggested: the likeliest class by that, int (n,).
    """

    share: float
    wrong: Array
    confidence: Array
    suggested: Array

    @classmethod
    def of(cls, logits: Array, labels: Array) -> Self:
        """Estimates it.

        Args:
            logits: (n, classes), each row by a regression that has not seen the image.
            labels: places of classes, int (n,).
        """
        sound, noisy = _fit(logits, labels, np.zeros(1)), _fit(logits, labels, SHARES)
        # A share can't be negative, so that by chance alone it is zero in half of the cases.
        is_proved = 2 * len(labels) * (sound.loss - noisy.loss) > stats.chi2.isf(2 * SIGNIFICANCE, 1)
        suggested, wrong = logits.argmax(axis=1), noisy.wrong
        if not (is_proved and _is_common(wrong, labels)):
            return cls(0.0, np.zeros_like(wrong), sound.confidence, suggested)
        share = noisy.share * (
            1 - 1 / noisy.classes
        )  # of those drawn from all alike, some are right by chance
        return cls(share, _spare_classes(wrong, labels), noisy.confidence, suggested)

    def describe(self) -> str:
        """What becomes of the images, and why."""
        dropped, count = int(self.wrong.sum()), len(self.wrong)
        if not self.share:
            return f"keep: cross-validation shows no wrong labels among {count:,} images"
        why = f"by cross-validation {self.share:.1%} of {count:,} labels are wrong"
        return f"drop: {dropped:,} images are left out; {why}" if dropped else f"keep: {why}, none for sure"


@dataclass(frozen=True)
class _Fit:
    """The most likely share of noise among labels of so many classes.

    confidence: the probability of each label at the most likely temperature, (n,).
    """

    share: float
    confidence: Array
    classes: int

    @property
    def loss(self) -> float:
        """The mean negative log-likelihood of labels, in nats."""
        likelihoods = (1 - self.share) * self.confidence + self.share / self.classes
        return float(-np.log(np.maximum(likelihoods, np.finfo(float).tiny)).mean())

    @property
    def wrong(self) -> Array:
        """Which labels are more likely to be noise than not, bool (n,)."""
        found: Array = self.share / self.classes > (1 - self.share) * self.confidence
        return found


def _fit(logits: Array, labels: Array, shares: Array) -> _Fit:
    """Finds the most likely temperature and share, which lies in the range of `shares`."""
    classes = logits.shape[1]

    def at(temperature: float, share: float) -> _Fit:
        return _Fit(share, _confidence(logits, labels, temperature), classes)

    tried = []
    for temperature in TEMPERATURES:
        one = at(temperature, 0.0)
        tried += [(replace(one, share=share).loss, temperature, share) for share in shares]
    bounds = [(TEMPERATURES[0], TEMPERATURES[-1]), (0.0, shares[-1])]
    found = optimize.minimize(
        lambda both: at(*both).loss, min(tried)[1:], method="Nelder-Mead", bounds=bounds
    )
    return at(*map(float, found.x))


def _confidence(logits: Array, labels: Array, temperature: float) -> Array:
    """The probability of each label at a temperature: (n,)."""
    scaled = logits.astype(float) / temperature
    found: Array = np.exp(scaled[np.arange(len(labels)), labels] - log_sum(scaled)[:, 0])
    return found


def _is_common(wrong: Array, labels: Array) -> bool:
    """Whether most classes have their part of the wrong labels."""
    by_class = pd.Series(wrong).groupby(labels).sum()
    return bool((by_class > PART * by_class.mean()).mean() > COMMON)


def _spare_classes(wrong: Array, labels: Array) -> Array:
    """Takes back what it says of classes of which too few images would be left."""
    counts = np.bincount(labels)
    left = np.bincount(labels[~wrong], minlength=len(counts))
    return np.logical_and(wrong, (left >= LEAST_LEFT * counts)[labels])
