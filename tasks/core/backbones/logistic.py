"""Multinomial logistic regression, solved to its optimum, with the penalty that predicts other images best.

These are the left-out images of a cross-validation on training images, together with the validation images.
scikit-learn's own takes many times as long on features of which most are alike.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import pandas as pd
from scipy import linalg, optimize
from sklearn.model_selection import StratifiedKFold

from tasks.core.backbones.scaling import Scaling
from tasks.core.base.arrays import Array
from tasks.core.base.matrix import blocks, new_matrix, take_rows, total

Layer = tuple[Array, Array]  # kernel and bias of a dense layer

PENALTIES = (1000.0, 100.0, 10.0, 1.0)  # on all training images together: 1 / C of scikit-learn
FOLDS = 3
MAX_COMPARED = 3000  # training images, about, at even distances, that penalties are compared on
LEAST_OF_CLASS = 10  # of each class, those that are there, however rare it is
MIN_EIGENVALUE = 1e-7  # as a share of the largest
CURVATURE = 0.1  # of the softmax, about; decides how fast the optimum is found, not where it is
MAX_STEPS = 500  # to a solution
ROUGH, FINE = 1e-3, 1e-5  # slopes that are left: enough to compare penalties, and of the solution


@dataclass(frozen=True)
class Problem:
    """Logistic regression in coordinates that it is solved fast in.

    The penalty is the same in any rotation of the features. Along the principal axes there are no more of
    these than images, and a diagonal matrix nearly evens out how strongly the loss is curved along each.

    rotated: float32 (n, axes), mapped from disk if it is large. axes: float32 (width, axes), which rotate
    features. variances: along each, (axes,). labels: int (n,), places of classes. weights: float (n,), of
    the images. classes: their number.
    """

    rotated: Array
    axes: Array
    variances: Array
    labels: Array
    weights: Array
    classes: int

    @classmethod
    def of(cls, values: Array, labels: Array, weights: Array, scaling: Scaling | None = None) -> Self:
        """Takes features, float32 (n, width), int (n,), and weights of the classes, (classes,).

        Args:
            scaling: of the features; none, if they are scaled already.
        """
        count, width = values.shape
        scaling = scaling or Scaling.none(width)
        if width > count:
            return cls._of_wide(scaling.apply(values), labels, weights)
        squares, axes = _principal(total(part.T @ part for part in _scaled(values, scaling)))
        return cls(
            _rotate(values, scaling, axes), axes, squares / count, labels, weights[labels], len(weights)
        )

    @classmethod
    def _of_wide(cls, values: Array, labels: Array, weights: Array) -> Self:
        """Of scaled features that are more than the images."""
        squares, vectors = _principal(values @ values.T)
        axes = values.T @ (vectors / np.sqrt(squares))
        rotated = vectors * np.sqrt(squares)
        return cls(rotated, axes, squares / len(values), labels, weights[labels], len(weights))

    def with_images(self, values: Array, labels: Array, weights: Array, scaling: Scaling | None) -> Self:
        """Other images, by features as `of` takes them, in the same coordinates."""
        rotated = _rotate(values, scaling or Scaling.none(values.shape[1]), self.axes)
        return replace(self, rotated=rotated, labels=labels, weights=weights[labels])

    def part(self, rows: Array) -> Self:
        """Some of the images: `rows` are their places, which rise."""
        rotated = take_rows(self.rotated, rows)
        return replace(self, rotated=rotated, labels=self.labels[rows], weights=self.weights[rows])

    def solve(self, penalty: float, start: Layer | None = None, slope: float = ROUGH) -> Layer:
        """Minimizes the weighted mean of the cross-entropy + penalty / 2n * the sum of the squared weights.

        Args:
            start: a layer not far from the solution, if one is known.
            slope: the largest that is left in any direction.

        Returns:
            Kernel and bias for features as `rotated` has them: float32 (axes, classes) and (classes,).
        """
        count, axes = self.rotated.shape
        strength = penalty / count
        steps = (1 / np.sqrt(CURVATURE * self.variances + strength)).astype(np.float32)[:, None]
        penalties, one_hot = strength * steps**2, np.eye(self.classes, dtype=np.float32)
        share = (self.weights / self.weights.sum()).astype(np.float32)

        def objective(flat: Array) -> tuple[float, Array]:
            kernel, bias = np.split(flat.astype(np.float32).reshape(axes + 1, self.classes), [axes])
            loss = np.sum(penalties * kernel**2, dtype=float) / 2
            slopes = np.vstack([penalties * kernel, np.zeros_like(bias)])
            scaled = steps * kernel
            for features, labels, weights in blocks(self.rotated, self.labels, share[:, None]):
                logits = features @ scaled + bias
                logs, answers = logits - log_sum(logits), one_hot[labels]
                error = weights * (np.exp(logs) - answers)
                loss -= np.sum(weights * answers * logs, dtype=float)
                slopes[:-1] += steps * (features.T @ error)
                slopes[-1] += error.sum(axis=0)
            return float(loss), slopes.ravel().astype(float)

        begin = np.vstack([start[0] / steps, start[1]]) if start else np.zeros((axes + 1, self.classes))
        options = {"maxiter": MAX_STEPS, "gtol": slope, "ftol": slope * 1e-4}
        found = optimize.minimize(objective, begin.ravel(), jac=True, method="L-BFGS-B", options=options)
        kernel, bias = np.split(found.x.astype(np.float32).reshape(axes + 1, self.classes), [axes])
        return kernel * steps, bias[0]

    def logits(self, layer: Layer) -> Array:
        """What a layer gives for these images, float32 (n, classes)."""
        return np.concatenate([part @ layer[0] + layer[1] for (part,) in blocks(self.rotated)])

    def predict(self, layer: Layer) -> tuple[Array, Array, Array]:
        """Gives what `LeftOut` holds of these images."""
        logits = self.logits(layer)
        losses = log_sum(logits)[:, 0] - logits[np.arange(len(logits)), self.labels]
        return losses * self.weights, logits.argmax(axis=1) == self.labels, self.labels


def log_sum(logits: Array) -> Array:
    """The logarithm of the sum of each row's exponentials, (n, 1). SciPy's takes longer than all the rest."""
    highest = logits.max(axis=1, keepdims=True, initial=-np.inf)
    total: Array = highest + np.log(np.exp(logits - highest).sum(axis=1, keepdims=True))
    return total


def _principal(matrix: Array) -> tuple[Array, Array]:
    """The eigenvalues of a symmetric matrix that aren't nearly zero, and a column of each for its vector."""
    # Divide and conquer takes a sixth of the default's time, and in float32 loses no orthogonality.
    values, vectors = linalg.eigh(matrix, driver="evd")
    useful = values > values[-1] * MIN_EIGENVALUE
    return values[useful], vectors[:, useful]


def _scaled(values: Array, scaling: Scaling) -> Iterator[Array]:
    return (scaling.apply(part) for (part,) in blocks(values))


def _rotate(values: Array, scaling: Scaling, axes: Array) -> Array:
    """Scaled features along other axes."""
    rotated = new_matrix(len(values), axes.shape[1])
    for part, target in blocks(values, rotated):
        np.matmul(scaling.apply(part), axes, out=target)
    return rotated


def solve(
    values: Array, labels: Array, weights: Array, penalty: float, scaling: Scaling | None = None
) -> Layer:
    """A dense layer by a penalty that is known; the arguments are those of `choose_penalty`."""
    problem = Problem.of(values, labels, weights, scaling)
    kernel, bias = problem.solve(penalty, slope=FINE)
    return problem.axes @ kernel, bias


@dataclass(frozen=True)
class LeftOut:
    """What images came to that nothing was fitted to: those of a cross-validation, fold by fold, and others.

    losses: cross-entropy in nats, times the class's weight, float (n,). hits: whether the class was right,
    bool (n,). labels: places of classes, int (n,).
    """

    losses: Array
    hits: Array
    labels: Array

    @property
    def loss(self) -> float:
        return float(self.losses.mean()) if len(self.losses) else 0.0

    @property
    def recalls(self) -> Array:
        """Share that was right of each class that there is."""
        return pd.Series(self.hits).groupby(self.labels).mean().to_numpy()


@dataclass(frozen=True)
class Chosen:
    """A regression whose penalty is chosen; `solve` gives its layer.

    problem: of all training images. penalty: 1 / C of scikit-learn. left_out: what images came to that were
    not fitted to, by which it was chosen. logits: of the training images, float32 (n, classes), each by a
    regression that has not seen it; none where they can't be cross-validated. start: a layer near the
    solution.
    """

    problem: Problem
    penalty: float
    left_out: LeftOut
    logits: Array | None
    start: Layer

    def solve(self) -> Layer:
        """The dense layer on scaled features: kernel, float32 (width, classes), and bias, (classes,)."""
        kernel, bias = self.problem.solve(self.penalty, self.start, FINE)
        return self.problem.axes @ kernel, bias


def choose_penalty(
    train: tuple[Array, Array],
    validation: tuple[Array, Array],
    weights: Array,
    penalties: tuple[float, ...] = PENALTIES,
    scaling: Scaling | None = None,
) -> Chosen:
    """Chooses the penalty of a dense layer by which it predicts other images best.

    Args:
        train, validation: features, float32 (n, width), and the places of the classes, int (n,).
        weights: of the classes in the loss, float32 (classes,).
        penalties: to choose from, the strongest first.
        scaling: of the features; none, if they are scaled already.
    """
    problem = Problem.of(*train, weights, scaling)
    others = problem.with_images(*validation, weights, scaling)
    count = len(problem.labels)
    rows = sample(problem.labels) if count > MAX_COMPARED else np.arange(count)
    some = problem.part(rows)
    folds = list(split_into_folds(some.labels))
    if not (folds or len(others.labels)):  # nothing to compare by: one in the middle
        penalties = penalties[len(penalties) // 2 :][:1]
    pairs = [(some.part(seen), some.part(left_out)) for seen, left_out in folds]
    best = _choose([*pairs, (some, others)], penalties)
    logits = problem.logits(best.layers[-1]) if folds else None
    if logits is not None:
        for (_, left_out), (_, part), layer in zip(folds, pairs, best.layers, strict=False):
            logits[rows[left_out]] = part.logits(layer)
    return Chosen(problem, best.penalty, best.left_out, logits, best.layers[-1])


def cross_validate(values: Array, labels: Array) -> LeftOut:
    """Predicts images by a regression on others, with the penalty that does so best.

    Args:
        values: scaled features, float32 (n, width).
        labels: places of classes, int (n,), each of them at least twice.
    """
    problem = Problem.of(values, labels, np.ones(int(labels.max()) + 1))
    pairs = [(problem.part(rows), problem.part(rest)) for rows, rest in split_into_folds(labels)]
    return _choose(pairs, PENALTIES).left_out


@dataclass(frozen=True)
class _Choice:
    """Of a penalty: a layer for each pair that it was chosen by, and what the images predicted came to."""

    penalty: float
    layers: list[Layer]
    left_out: LeftOut


def _choose(pairs: list[tuple[Problem, Problem]], penalties: tuple[float, ...]) -> _Choice:
    """Solves each first problem and predicts the images of the second; ends where that gets worse."""
    best: _Choice | None = None
    for penalty in penalties:  # each from where the one before it ended
        starts: Sequence[Layer | None] = best.layers if best else [None] * len(pairs)
        layers = [part.solve(penalty, start) for (part, _), start in zip(pairs, starts, strict=True)]
        predicted = [rest.predict(layer) for (_, rest), layer in zip(pairs, layers, strict=True)]
        choice = _Choice(penalty, layers, LeftOut(*map(np.concatenate, zip(*predicted, strict=True))))
        if best and choice.left_out.loss >= best.left_out.loss:
            break
        best = choice
    assert best
    return best


def sample(labels: Array) -> Array:
    """Draws the rows that penalties are compared on: at even distances, and a few of each class."""
    place_in_class = pd.Series(labels).groupby(labels).cumcount().to_numpy()
    rows = np.linspace(0, len(labels) - 1, MAX_COMPARED).astype(int)
    return np.union1d(rows, np.flatnonzero(place_in_class < LEAST_OF_CLASS))


def split_into_folds(labels: Array) -> Iterator[tuple[Array, Array]]:
    """Rows to fit to and rows to predict, each class in all; none where a class has a single image."""
    counts = np.bincount(labels)
    count = min(FOLDS, counts[counts > 0].min())
    if count >= 2:
        yield from StratifiedKFold(count, shuffle=True, random_state=0).split(labels, labels)
