"""Training images whose label looks wrong, and how many there are.

A cross-validation gives each image its probabilities by a regression that has not seen it. A label is taken
to be drawn by these, at a temperature (Guo et al., 2017), or with some chance from all classes alike:
symmetric label noise (Angluin and Laird, 1988). Chance and temperature are the most likely ones, and noise is
believed in only if it explains the labels much better than a temperature alone. A label's chance of being
wrong then follows by Bayes.

Of such noise all classes have their part. Where it is in the labels of few, it is these classes that have
images like those of others: a small defect that the backbone doesn't see is no wrong label. So labels that
are confused between a few of several classes are not found, nor those of one rare class. And what one
temperature can't make right, is taken for noise: of classes with rare kinds of images in them the rarest.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from scipy import optimize, stats

from tasks.core.backbones.logistic import log_sum
from tasks.core.base.arrays import Array

# What is tried, before the best is refined: the likelihood has several peaks. The strong penalty that wrong
# labels call for makes probabilities so timid that at a temperature of 1 no label looks wrong.
TEMPERATURES = np.geomspace(0.1, 5, 25)
CHANCES = np.geomspace(0.003, 0.5, 25)
SIGNIFICANCE = 1e-4  # of the likelihood ratio: each false alarm costs sound images
COMMON = 0.7  # of the classes that so many labels would hit if all had their part
LEAST_LEFT = 0.2  # of a class's images; if fewer were left, it may be the class that isn't known
MAX_NUMBERS = 10_000_000  # logits that share and temperature are estimated from


@dataclass(frozen=True)
class LabelNoise:
    """What is known of the labels of n images.

    share: of labels that look wrong, 0-1. wrong: which are more likely to be so than not, bool (n,).
    confidence: the probability of each label by a regression that has not seen the image, 0-1, (n,).
    suggested: the likeliest class by that, int (n,). why: what decided, in words.
    """

    share: float
    wrong: Array
    confidence: Array
    suggested: Array
    why: str

    @classmethod
    def of(cls, logits: Array, labels: Array) -> "LabelNoise":
        """Estimates it.

        Args:
            logits: (n, classes), each row by a regression that has not seen the image.
            labels: places of classes, int (n,).
        """
        count, classes = logits.shape
        rows = np.linspace(0, count - 1, min(count, MAX_NUMBERS // classes)).astype(int)
        sound, noisy = (_fit(logits[rows], labels[rows], chances) for chances in (np.zeros(1), CHANCES))
        # A chance can't be negative, so that by accident alone it is zero in half of the cases.
        is_significant = 2 * len(rows) * (sound.loss - noisy.loss) > stats.chi2.isf(2 * SIGNIFICANCE, 1)
        suggested = logits.argmax(axis=1)
        wrong = noisy.at(logits, labels).wrong & (suggested != labels)
        spared = _spare_classes(wrong, labels)

        def keep(why: str) -> LabelNoise:
            confidence = sound.at(logits, labels).confidence
            return cls(0.0, np.zeros(count, bool), confidence, suggested, f"keep: {why}")

        if not (is_significant and wrong.any()):
            return keep(f"cross-validation sees no wrong labels among {count:,}")
        if not _is_common(wrong, labels):
            return keep("the labels that cross-validation contradicts are those of few classes")
        if not spared.any():
            return keep("of each class with labels that look wrong too few images would be left")
        share = noisy.chance * (1 - 1 / noisy.classes)  # of those drawn from all alike, some are right
        why = f"{spared.sum():,} images; by cross-validation {share:.1%} of {count:,} labels look wrong"
        return cls(share, spared, noisy.at(logits, labels).confidence, suggested, f"drop: {why}")


@dataclass(frozen=True)
class _Fit:
    """The most likely chance of noise among labels of so many classes, and the temperature.

    confidence: the probability of each label at that, (n,).
    """

    chance: float
    temperature: float
    classes: int
    confidence: Array

    @property
    def loss(self) -> float:
        """The mean negative log-likelihood of labels, in nats."""
        likelihoods = (1 - self.chance) * self.confidence + self.chance / self.classes
        return float(-np.log(np.maximum(likelihoods, np.finfo(float).tiny)).mean())

    @property
    def wrong(self) -> Array:
        """Which labels are more likely to be noise than not, bool (n,)."""
        found: Array = self.chance / self.classes > (1 - self.chance) * self.confidence
        return found

    def at(self, logits: Array, labels: Array) -> Self:
        """The same of other images."""
        return replace(self, confidence=_confidence(logits, labels, self.temperature))


def _fit(logits: Array, labels: Array, chances: Array) -> _Fit:
    """Finds the most likely temperature and chance, which lies in the range of `chances`."""
    classes = len(np.unique(labels))  # others may be in the head, but nothing is labelled so

    def at(temperature: float, chance: float) -> _Fit:
        return _Fit(chance, temperature, classes, _confidence(logits, labels, temperature))

    tried = []
    for temperature in TEMPERATURES:
        one = at(temperature, 0.0)
        tried += [(replace(one, chance=chance).loss, temperature, chance) for chance in chances]
    bounds = [(TEMPERATURES[0], TEMPERATURES[-1]), (0.0, chances[-1])]
    found = optimize.minimize(
        lambda both: at(*both).loss, min(tried)[1:], method="Nelder-Mead", bounds=bounds
    )
    return at(*map(float, found.x))


def _confidence(logits: Array, labels: Array, temperature: float) -> Array:
    """The probability of each label at a temperature: (n,)."""
    scaled = logits / np.float32(temperature)
    found: Array = np.exp(scaled[np.arange(len(labels)), labels] - log_sum(scaled)[:, 0]).astype(float)
    return found


def _is_common(wrong: Array, labels: Array) -> bool:
    """Whether as many classes have wrong labels as if each had its part of them."""
    classes, hit = len(np.unique(labels)), len(np.unique(labels[wrong]))
    return bool(hit >= COMMON * classes * (1 - (1 - 1 / classes) ** wrong.sum()))


def _spare_classes(wrong: Array, labels: Array) -> Array:
    """Takes back what it says of classes of which too few images would be left."""
    counts = np.bincount(labels)
    left = np.bincount(labels[~wrong], minlength=len(counts))
    return np.logical_and(wrong, (left >= LEAST_LEFT * counts)[labels])
