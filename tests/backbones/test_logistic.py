"""The head's convex problem: its optimum is scikit-learn's, and its penalty the one that predicts best."""

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from tasks.core.backbones import logistic
from tasks.core.backbones.logistic import FINE, PENALTIES, Problem
from tasks.core.base.arrays import Array

RNG = np.random.default_rng(1)


def blobs(count: int, width: int, spread: float, seed: int = 1) -> tuple[Array, Array]:
    """Features of three classes, centred, of which the first two columns tell them apart."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    values = rng.normal(0, 1, (count, width))
    values[:, :2] = np.array([[0, 2], [2, 0], [-2, -2]])[labels] + rng.normal(0, spread, (count, 2))
    return values.astype(np.float32), labels


@pytest.mark.parametrize("width", [5, 200], ids=["more images than features", "more features than images"])
@pytest.mark.parametrize("penalty", [0.5, 50.0])
@pytest.mark.parametrize("balanced", [False, True])
def test_the_optimum_is_that_of_scikit_learn(width: int, penalty: float, balanced: bool) -> None:
    values, labels = blobs(90, width, 1.5)
    keep = (labels > 0) | (np.arange(90) < 30)
    values, labels = values[keep], labels[keep]
    counts = np.bincount(labels)
    weights = len(labels) / (3 * counts) if balanced else np.ones(3)
    problem = Problem.of(values, labels, weights)
    kernel, bias = problem.solve(penalty, slope=FINE)
    expected = LogisticRegression(
        C=1 / penalty, class_weight="balanced" if balanced else None, max_iter=10_000, tol=1e-8
    ).fit(values.astype(float), labels)
    ours = values @ (problem.axes @ kernel) + bias
    theirs = expected.decision_function(values)
    assert ours - ours.mean(axis=1, keepdims=True) == pytest.approx(theirs, abs=0.02)
    off = problem.solve(penalty * 1.5, slope=FINE)
    assert not np.allclose(values @ (problem.axes @ off[0]) + off[1], ours, atol=0.05), "its failing twin"


def test_a_start_near_the_solution_ends_in_the_same_place() -> None:
    values, labels = blobs(90, 30, 1.5)
    problem = Problem.of(values, labels, np.ones(3))
    kernel, bias = problem.solve(1.0, slope=FINE)
    again = problem.solve(1.0, problem.solve(10.0), FINE)
    assert again[0] == pytest.approx(kernel, abs=0.01)
    assert again[1] == pytest.approx(bias, abs=0.01)


def fit(train: tuple[Array, Array], held_out: tuple[Array, Array], **options: Any) -> logistic.Chosen:
    return logistic.choose_penalty(train, held_out, np.ones(3), **options)


def test_features_that_say_little_are_penalized_more() -> None:
    clear = fit(blobs(90, 10, 0.5), blobs(30, 10, 0.5, seed=2))
    noisy = fit(blobs(90, 300, 4.0), blobs(30, 300, 4.0, seed=2))
    assert clear.penalty < noisy.penalty
    assert clear.left_out.loss < noisy.left_out.loss


def test_a_penalty_that_is_given_is_obeyed() -> None:
    train, held_out = blobs(90, 10, 1.0), blobs(30, 10, 1.0, seed=2)
    assert fit(train, held_out, penalties=(7.0,)).penalty == 7.0
    assert fit(train, held_out).penalty in PENALTIES


@pytest.mark.parametrize("held_out", [0, 30])
def test_a_single_image_of_a_class_leaves_the_validation_images_to_choose_by(held_out: int) -> None:
    values, labels = blobs(90, 10, 1.0)
    rows = np.flatnonzero((labels > 0) | (np.arange(90) == 0))
    others, known = blobs(30, 10, 1.0, seed=2)
    solution = fit((values[rows], labels[rows]), (others[:held_out], known[:held_out]))
    kernel, bias = solution.solve()
    assert np.isfinite(kernel).all() and np.isfinite(bias).all()
    hits = (values[rows] @ kernel + bias).argmax(axis=1) == labels[rows]
    assert hits.mean() > 0.6


def test_a_class_without_training_images_is_never_predicted() -> None:
    values, labels = blobs(90, 10, 0.5)
    rows = np.flatnonzero(labels != 2)
    kernel, bias = fit((values[rows], labels[rows]), (values[rows], labels[rows])).solve()
    assert kernel.shape == (10, 3)
    assert set((values @ kernel + bias).argmax(axis=1)) == {0, 1}


def test_it_is_the_same_each_time() -> None:
    train, held_out = blobs(90, 200, 1.0), blobs(30, 200, 1.0, seed=2)
    first, second = fit(train, held_out).solve(), fit(train, held_out).solve()
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])


def test_a_sample_of_many_images_has_the_rarest_class_too() -> None:
    """At even distances alone it might hold one of its images, and nothing could be cross-validated."""
    labels = np.zeros(50_000, int)
    labels[[3, 70, 40_001, 49_998]], labels[20_000:35_000] = 2, 1
    rows = logistic.sample(labels)
    assert np.bincount(labels[rows])[2] == 4
    assert len(set(rows)) == len(rows) <= logistic.MAX_COMPARED + 3 * logistic.LEAST_OF_CLASS
    assert len(list(logistic.split_into_folds(labels[rows]))) == logistic.FOLDS


@pytest.mark.parametrize("count", [90, 4000])
def test_each_image_is_predicted_by_a_regression_that_has_not_seen_it(count: int) -> None:
    """With labels that are a coin's toss, and more features than images, seen ones would be all right."""
    values, _ = blobs(count, 300, 1.0)
    labels = np.random.default_rng(5).integers(0, 3, count)
    chosen = fit((values, labels), (values[:0], labels[:0]), penalties=(0.001,))
    assert chosen.logits is not None and chosen.logits.shape == (count, 3)
    kernel, bias = chosen.solve()
    seen = ((values @ kernel + bias).argmax(axis=1) == labels).mean()
    assert (chosen.logits.argmax(axis=1) == labels).mean() < 0.45 < seen
