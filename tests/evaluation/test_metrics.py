"""The numbers are what their names say, by hand and by scikit-learn."""

from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import precision_recall_fscore_support, top_k_accuracy_score

from tasks.core.base.errors import ParamError
from tasks.core.evaluation import calibration, estimates, intervals, metrics
from tasks.core.evaluation.config import Rule
from tasks.core.evaluation.metrics import METRICS, Answers, Metric

RNG = np.random.default_rng(5)
LABELS = RNG.integers(0, 8, 200)
PROBABILITIES = RNG.dirichlet(np.ones(8), 200) * 0.5 + 0.5 * np.eye(8)[(LABELS + (RNG.random(200) < 0.3)) % 8]


ANSWERS = Answers.of(LABELS, PROBABILITIES)


def value(name: str, answers: Answers, bins: int = 15) -> float:
    return METRICS[name].of(answers, bins)


def test_what_a_gate_may_name_is_what_is_measured() -> None:
    measured = estimates.headline(ANSWERS, 15, 10, 1).keys() - {"interval_95"}
    assert measured == {*METRICS, "n"}
    for name in measured:
        Rule(f"test.{name}", min=0).check("gate.rules.0")
    of_baselines = {name for name in METRICS if may_be_ruled(name, against="majority")}
    assert of_baselines == metrics.measure(ANSWERS, 15, "classes").keys() < METRICS.keys()


def may_be_ruled(name: str, **facts: Any) -> bool:
    try:
        Rule(f"test.{name}", **({"min": 0} | facts)).check("gate.rules.0")
    except ParamError:
        return False
    return True


def test_a_metric_that_the_table_alone_has_is_measured_and_may_be_ruled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And has the interval that its row says, and is bounded if that says so."""
    wrong = Metric(
        "error", lambda answers, _bins: 1 - answers.right.mean(), hits=lambda answers: ~answers.right
    )
    entropy = Metric("entropy", lambda answers, _bins: answers.own.mean(), "probabilities", bounded=False)
    for metric in (wrong, entropy):
        monkeypatch.setitem(METRICS, metric.name, metric)
    found, n = estimates.headline(ANSWERS, 15, 50, 1), len(LABELS)
    assert found["error"] == pytest.approx(1 - found["accuracy"])
    low, high = found["interval_95"]["accuracy"]
    assert found["interval_95"]["error"] == pytest.approx([1 - high, 1 - low], abs=2e-6), "Wilson's"
    low, high = found["interval_95"]["entropy"]
    assert low < found["entropy"] < high
    assert metrics.measure(ANSWERS, 15, "classes").keys() - metrics.measure(ANSWERS, 15, "ranks") >= {"error"}
    assert may_be_ruled("error", against="majority") and not may_be_ruled("entropy", against="majority")
    assert may_be_ruled("entropy", min=90) and not may_be_ruled("error", min=90)
    assert may_be_ruled("error", slice="worst")
    other = Answers.of(LABELS, np.eye(8)[LABELS])
    _, interval = estimates.change(ANSWERS, other, wrong, False, 15, 10, 1)
    assert interval == intervals.agresti_min(~ANSWERS.right, np.zeros(n, bool))


def test_against_scikit_learn() -> None:
    predicted = PROBABILITIES.argmax(axis=1)
    assert value("accuracy", ANSWERS) == np.mean(predicted == LABELS)
    precision, recall, f1, _ = precision_recall_fscore_support(LABELS, predicted, average="macro")
    assert value("macro_precision", ANSWERS) == pytest.approx(precision)
    assert value("macro_recall", ANSWERS) == pytest.approx(recall)
    assert value("macro_f1", ANSWERS) == pytest.approx(f1)
    assert value("log_loss", ANSWERS) == pytest.approx(sklearn_log_loss(LABELS, PROBABILITIES))
    assert value("top_5_accuracy", ANSWERS) == top_k_accuracy_score(LABELS, PROBABILITIES, k=5)


def test_a_class_that_is_neither_there_nor_predicted_counts_for_nothing() -> None:
    answers = Answers.of(np.array([0, 0, 2]), np.eye(4)[[0, 2, 2]])
    assert value("macro_precision", answers) == pytest.approx((1 + 0.5) / 2)
    assert value("macro_recall", answers) == pytest.approx((0.5 + 1) / 2)


def test_calibration_error_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 1])  # sure of 0.9 and right half the time; sure of 0.6 and always right
    answers = Answers.of(labels, probabilities)
    assert value("ece", answers, 10) == pytest.approx((2 * 0.4 + 2 * 0.4) / 4)
    assert calibration.reliability(answers.confidence, answers.right, 10) == [
        {"n": 2, "confidence": 0.6, "accuracy": 1.0},
        {"n": 2, "confidence": 0.9, "accuracy": 0.5},
    ]


def test_wilsons_interval_of_nine_in_ten() -> None:
    hits = np.arange(10) > 0
    assert intervals.wilson(hits) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert intervals.wilson(hits | True)[1] == pytest.approx(1.0)


def test_intervals_hold_their_numbers_and_hang_on_the_seed() -> None:
    first, again, other = (estimates.headline(ANSWERS, 15, 200, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    for name, (low, high) in first["interval_95"].items():
        if name != "ece":  # the bootstrap of a distance is biased upwards
            assert low <= first[name] <= high


def test_no_interval_of_a_share_goes_beyond_1() -> None:
    """Means over small classes come out lower in resamples, and the ends are moved up by that."""
    labels = np.array([0] * 18 + [1, 2])
    probabilities = np.eye(3)[labels] * 0.9 + 0.1 / 3
    probabilities[0] = probabilities[0, ::-1]
    intervals_95 = estimates.headline(Answers.of(labels, probabilities), 15, 200, 1)["interval_95"]
    ends = {name: intervals_95[name] for name, metric in METRICS.items() if metric.bounded}
    assert all(0 <= low <= high <= 1 for low, high in ends.values())
    assert 1 in [high for _, high in ends.values()]


def test_the_bootstrap_of_a_mean_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(1).normal(size=400)
    interval = intervals.bootstrap(lambda rows: values[rows].mean(), 400, 4000, 1)
    deviation = values.std() / 20
    expected = (values.mean() - intervals.Z_95 * deviation, values.mean() + intervals.Z_95 * deviation)
    assert interval == pytest.approx(expected, abs=0.15 * deviation)


def test_the_interval_of_a_paired_difference_is_that_of_the_paper() -> None:
    """Agresti and Min (2005), table I: 794 and 150, 86 and 570 of 1,600 approve, once and once again."""
    ours = np.repeat([True, True, False, False], [794, 150, 86, 570])
    theirs = np.repeat([True, False, True, False], [794, 150, 86, 570])
    low, high = intervals.agresti_min(ours, theirs)
    assert (low, high) == pytest.approx((0.04 - 0.0188, 0.04 + 0.0188), abs=5e-4)


def test_intervals_of_means_over_many_small_classes_hold_their_numbers() -> None:
    rng = np.random.default_rng(4)
    labels = np.repeat(np.arange(60), 5)
    probabilities = np.eye(60)[np.where(rng.random(300) < 0.3, rng.integers(0, 60, 300), labels)]
    found = estimates.headline(Answers.of(labels, probabilities), 15, 300, 1)
    for name in ("macro_recall", "macro_precision", "macro_f1"):
        low, high = found["interval_95"][name]
        assert low <= found[name] <= high, name


@pytest.mark.parametrize("counts", [[1] * 60, [3] * 20, [20] * 2 + [1] * 30])
def test_intervals_are_as_wide_where_classes_are_small(counts: list[int]) -> None:
    """Of the mean of values that don't depend on classes, the width is known."""
    labels = np.repeat(np.arange(len(counts)), counts)
    wrong = np.random.default_rng(1).random(len(labels)) < 0.3
    own = np.where(wrong, 0.1, 0.8)
    probabilities = np.full((len(labels), len(counts)), 0.01)
    probabilities[np.arange(len(labels)), labels] = own
    low, high = estimates.headline(Answers.of(labels, probabilities), 15, 500, 1)["interval_95"]["log_loss"]
    expected = 2 * intervals.Z_95 * np.log(own).std() / np.sqrt(len(own))
    assert high - low == pytest.approx(expected, rel=0.2)


def test_intervals_stay_within_what_is_possible() -> None:
    some = ANSWERS[np.flatnonzero(ANSWERS.right)[:7]]
    low, high = estimates.headline(some, 15, 100, 1)["interval_95"]["ece"]
    assert 0 <= low <= high <= 1
    assert intervals.agresti_min(np.ones(2, bool), np.zeros(2, bool))[1] == 1


def test_what_is_never_taken_for_a_label_is_not_among_its_five() -> None:
    """As classes that a model doesn't know; and of equal ones no more than five are its first."""
    unknown = Answers.of(np.array([0, 2, 3]), np.array([[0.6, 0.4, -1, -1]] * 3))
    assert value("top_5_accuracy", unknown) == pytest.approx(1 / 3)
    assert value("top_5_accuracy", Answers.of(np.array([2]), np.array([[0.6, 0.4, 0]]))) == 1, (
        "0 is less than 1/512"
    )
    constant = Answers.of(np.arange(100), np.full((100, 100), 0.01))
    assert value("top_5_accuracy", constant) == 0.05
    assert (constant.above == np.arange(100)).all()


def test_the_precision_of_a_class_that_is_never_predicted_is_not_defined() -> None:
    answers = Answers.of(np.array([0, 1]), np.eye(2)[[0, 0]])
    dog = metrics.per_class(answers, ("cat", "dog"))["dog"]
    assert dog == {"precision": None, "recall": 0.0, "f1": 0.0, "n": 1, "why": metrics.NEVER}
    assert value("macro_precision", answers) == 0.25, "as scikit-learn has it"


def test_per_class_by_hand() -> None:
    answers = Answers.of(np.array([0, 1, 1]), np.eye(2)[[0, 0, 1]])
    table = metrics.per_class(answers, ("cat", "dog"))
    assert table["cat"] == {"precision": 0.5, "recall": 1.0, "f1": 0.666667, "n": 1}
    assert table["dog"] == {"precision": 1.0, "recall": 0.5, "f1": 0.666667, "n": 2}


def test_per_class_against_scikit_learn() -> None:
    names = tuple("abcdefghi")  # the last is neither there nor predicted
    columns = precision_recall_fscore_support(
        LABELS, ANSWERS.predicted, labels=range(len(names)), zero_division=0.0
    )
    table = metrics.per_class(ANSWERS, names)
    for key, column in zip(("precision", "recall", "f1", "n"), columns, strict=True):
        assert [table[name][key] for name in names[:-1]] == pytest.approx(column[:-1], abs=5e-7)
    assert table["i"] == {"precision": None, "recall": None, "f1": None, "n": 0, "why": metrics.WITHOUT}


def test_a_class_without_test_images_has_no_recall_and_lowers_none() -> None:
    answers = Answers.of(np.array([0, 0, 2]), np.eye(3)[[0, 1, 2]])
    table = metrics.per_class(answers, ("cat", "dog", "eel"))
    assert table["dog"] == {"precision": 0.0, "recall": None, "f1": 0.0, "n": 0, "why": metrics.WITHOUT}
    assert value("macro_recall", answers) == pytest.approx((0.5 + 1) / 2)
    assert value("macro_f1", answers) == pytest.approx((2 / 3 + 0 + 1) / 3), "as scikit-learn has it"
    assert value("macro_precision", answers) == pytest.approx((1 + 0 + 1) / 3), (
        "what was said of it was wrong"
    )


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_the_temperature_that_logits_were_divided_by_is_found(true: float) -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(4000, 5)) * 3
    labels = np.array([rng.choice(5, p=row) for row in softmax(logits, axis=1)])
    seen = softmax(logits * true, axis=1)  # too sure of itself by that factor
    found = calibration.temperature(labels, seen)
    assert found == pytest.approx(true, rel=0.1)
    assert np.allclose(calibration.apply_temperature(seen, true), softmax(logits, axis=1), atol=1e-6)


@pytest.mark.parametrize("n", [36, 3000])
def test_without_a_mistake_the_temperature_keeps_some_doubt(n: int) -> None:
    """Else the loss would be least if the model were never in doubt, and a mistake to come be a sure one."""
    labels = np.arange(n) % 5
    seen = 0.1 + 0.5 * np.eye(5)[labels]
    found = calibration.temperature(labels, seen)
    assert 1.01 / calibration.MAX_TEMPERATURE < found < 0.5


@pytest.mark.parametrize("mistaken", [False, True])
def test_a_few_images_hardly_move_the_temperature(mistaken: bool) -> None:
    sure = np.array([[0.99, 0.01], [0.01, 0.99]])
    labels = np.array([1, 0]) if mistaken else np.array([0, 1])
    found = calibration.temperature(labels, sure)
    assert 1 < found < 4 if mistaken else 0.95 < found < 1
    assert calibration.temperature(np.tile(labels, 100), np.tile(sure, (100, 1))) > 10 or not mistaken


def test_a_probability_of_zero_is_no_trouble_for_the_temperature() -> None:
    labels = np.tile([0, 1, 1], 20)
    assert calibration.temperature(labels, np.eye(2)[labels[::-1]].astype(np.float32)) > 0
