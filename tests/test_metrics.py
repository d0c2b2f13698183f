"""The numbers are what their names say, by hand and by scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, top_k_accuracy_score
from sklearn.metrics import log_loss as sklearn_log_loss

from tasks.core import metrics, params

RNG = np.random.default_rng(5)
LABELS = RNG.integers(0, 8, 200)
PROBABILITIES = RNG.dirichlet(np.ones(8), 200) * 0.5 + 0.5 * np.eye(8)[(LABELS + (RNG.random(200) < 0.3)) % 8]


def test_what_a_gate_may_name_is_what_is_measured() -> None:
    measured = metrics.headline(LABELS, PROBABILITIES, 15, 10, 1)
    assert set(params.MEASURED) == measured.keys() - {"interval_95"}


def test_against_scikit_learn() -> None:
    predicted = PROBABILITIES.argmax(axis=1)
    assert metrics.accuracy(LABELS, PROBABILITIES) == np.mean(predicted == LABELS)
    assert metrics.macro_f1(LABELS, PROBABILITIES) == pytest.approx(
        f1_score(LABELS, predicted, average="macro")
    )
    assert metrics.log_loss(LABELS, PROBABILITIES) == pytest.approx(sklearn_log_loss(LABELS, PROBABILITIES))
    assert metrics.top_k(LABELS, PROBABILITIES, 5) == top_k_accuracy_score(LABELS, PROBABILITIES, k=5)


def test_calibration_error_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 1])  # sure of 0.9 and right half the time; sure of 0.6 and always right
    error = metrics.expected_calibration_error(labels, probabilities, 10)
    assert error == pytest.approx((2 * 0.4 + 2 * 0.4) / 4)


def test_wilsons_interval_of_nine_in_ten() -> None:
    assert metrics.wilson(0.9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert metrics.wilson(1.0, 10)[1] == pytest.approx(1.0)


def test_intervals_hold_their_numbers_and_hang_on_the_seed() -> None:
    first, again, other = (metrics.headline(LABELS, PROBABILITIES, 15, 200, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    for name, (low, high) in first["interval_95"].items():
        if name != "ece":  # the bootstrap of a distance is biased upwards
            assert low <= first[name] <= high


def test_per_class_by_hand() -> None:
    probabilities = np.eye(2)[[0, 0, 1]]
    table = metrics.per_class(np.array([0, 1, 1]), probabilities, ("cat", "dog"))
    assert table["cat"] == {"precision": 0.5, "recall": 1.0, "f1": 0.666667, "n": 1}
    assert table["dog"] == {"precision": 1.0, "recall": 0.5, "f1": 0.666667, "n": 2}
