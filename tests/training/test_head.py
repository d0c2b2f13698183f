"""Which features the head sees, and that it does the same on features as they are and on scaled ones."""

import dataclasses
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tasks.core.backbones.config import Model
from tasks.core.backbones.scaling import Scaling
from tasks.core.backbones.store import Facts
from tasks.core.backbones.tensorflow_setup import keras
from tasks.core.base.arrays import Array
from tasks.core.base.errors import ParamError
from tasks.core.training.config import WrongLabels
from tasks.core.training.feature_cache import Features
from tasks.core.training.head import Head, fit_best, kinds_to_try, refit
from tests.tiny import recipe

LOSS = keras.losses.CategoricalCrossentropy(from_logits=True)


def split(seed: int, telling: slice) -> Features:
    """60 images of two classes, four features of a last layer and four of inner ones; some tell the class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(60) % 2
    values = rng.normal(5, 1, (60, 8)).astype(np.float32)
    values[:, telling] += 3 * labels[:, None].astype(np.float32)
    return Features(values, labels)


def fit(telling: slice) -> Head:
    widths: Any = {"inner": 8, "last": 4}
    return fit_best(split(1, telling), split(2, telling), widths, 2, ["none"], "auto", LOSS, "auto")


def test_the_images_choose_the_features() -> None:
    assert fit(slice(4, 8)).features == "inner", "what the last layer says is noise"
    assert fit(slice(0, 4)).features == "last", "what inner layers say is noise"


def test_its_row_is_measured_on_features_as_they_are() -> None:
    head = fit(slice(0, 8))
    held_out = split(2, slice(0, 8))
    logits = held_out.values @ head.weights[0] + head.weights[1]
    assert head.row["val_accuracy"] == pytest.approx((logits.argmax(axis=1) == held_out.labels).mean())
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    expected = -np.log(chances[np.arange(60), held_out.labels]).mean()
    assert head.row["val_loss"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("reduced", [False, True])
def test_folded_weights_do_what_those_on_scaled_features_do(reduced: bool) -> None:
    values = split(1, slice(0, 8)).values * np.array([1, 10, 100, 1000, 0.1, 1, 1, 0], np.float32)
    scaling = Scaling.of(values).reduce() if reduced else Scaling.of(values)
    kernel: Array = np.random.default_rng(1).normal(0, 1, (8, 2)).astype(np.float32)
    bias = np.array([1, 2], np.float32)
    folded = scaling.fold(kernel, bias)
    assert values @ folded[0] + folded[1] == pytest.approx(scaling.apply(values) @ kernel + bias, abs=1e-3)
    back = scaling.unfold(*folded)
    assert back[0] == pytest.approx(kernel, abs=1e-4) and back[1] == pytest.approx(bias, abs=1e-3)


def test_what_hardly_varies_is_not_blown_up() -> None:
    values = np.random.default_rng(1).normal(0, 1, (1000, 3)).astype(np.float32) * np.array(
        [1, 1, 1e-6], np.float32
    ) + np.array([5, -3, 0], np.float32)
    scaled = Scaling.of(values).apply(values)
    assert scaled.mean(axis=0) == pytest.approx([0, 0, 0], abs=1e-3)
    assert scaled.std(axis=0)[:2] == pytest.approx([1, 1], abs=0.05)
    assert scaled.std(axis=0)[2] < 1e-4
    alike = Scaling.of(np.ones((5, 3), np.float32))
    assert not alike.apply(np.ones((5, 3), np.float32)).any()


@pytest.mark.parametrize(
    ("setting", "has_endpoints", "fits_head", "expected"),
    [
        ("auto", True, True, ["inner", "last"]),
        ("auto", True, False, ["last"]),
        ("auto", False, True, ["last"]),
        ("last", True, True, ["last"]),
        ("inner", True, False, ["inner"]),
    ],
)
def test_what_is_tried(setting: Any, has_endpoints: bool, fits_head: bool, expected: list[str]) -> None:
    model = Model("mine", "none", 32, setting, 0.0, "auto")
    facts: Any = SimpleNamespace(has_endpoints=has_endpoints)
    assert kinds_to_try(model, facts, fits_head=fits_head) == expected


def test_inner_layers_of_a_backbone_that_does_not_give_them_are_refused() -> None:
    facts = Facts("0" * 64, None, 16, is_stochastic=False, has_endpoints=False)
    with pytest.raises(ParamError, match=r"model\.features is inner, but mine gives nothing"):
        kinds_to_try(Model("mine", "none", 32, "inner", 0.0, "auto"), facts, fits_head=True)


def rare(overlap: float) -> tuple[Features, Features]:
    """540 images of one class and 60 of another; of the rare ones a share looks like the others."""
    parts = []
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        labels = (np.arange(600) % 10 == 0).astype(int)
        values = rng.normal(0, 1, (600, 8)).astype(np.float32)
        values[:, 0] += 8 * labels * (rng.random(600) >= overlap)
        parts.append(Features(values, labels))
    return parts[0], parts[1]


def weighted(overlap: float) -> Head:
    return fit_best(*rare(overlap), {"last": 8}, 2, ["none", "balanced"], "auto", LOSS, "auto")


def test_rare_classes_count_more_only_where_it_costs_hardly_any_accuracy() -> None:
    easy, hard = weighted(0.0), weighted(0.5)
    assert easy.class_weight == "none", "there is nothing to gain"
    assert hard.class_weight == "none", "the frequent class would lose more images"
    model = Model("mine", "none", 32, "last", 0.0, 0.1)
    asked = recipe(class_weight="auto", wrong_labels="keep")
    (why,) = hard.auto(model, asked).values()
    assert re.fullmatch(r"none: none 9\d\.\d%, mean of the classes 80\.0%; balanced .*", why)
    assert hard.auto(model, dataclasses.replace(asked, class_weight="none")) == {}


def test_rare_classes_count_more_where_they_gain() -> None:
    """As many images of the frequent class look rare as there are rare ones: a tie, but for the weights."""
    parts = rare(0.0)
    for part in parts:
        part.values[np.flatnonzero(part.labels == 0)[:62], 0] += 8
    found = fit_best(*parts, {"last": 8}, 2, ["none", "balanced"], "auto", LOSS, "auto")
    assert found.class_weight == "balanced"


def swapped(seed: int, counts: tuple[int, ...] = (130, 130, 40)) -> tuple[Features, Array]:
    """Images of three classes, a tenth with a wrong label; and which these are."""
    rng, count = np.random.default_rng(seed), sum(counts)
    right = np.repeat([0, 1, 2], counts)
    values = rng.normal(0, 1, (count, 8)).astype(np.float32)
    values[:, :3] += 8 * np.eye(3, dtype=np.float32)[right]
    wrong = rng.random(count) < 0.1
    return Features(values, np.where(wrong, (right + rng.integers(1, 3, count)) % 3, right)), wrong


def test_the_weights_of_classes_dont_say_which_labels_are_wrong() -> None:
    """By logits of balanced classes, frequent ones would look like wrong labels of rare ones."""
    seen, planted = swapped(1, (900, 40, 40))

    def wrong(weighting: Any) -> Array:
        found = fit_best(seen, swapped(2)[0], {"last": 8}, 3, [weighting], "auto", LOSS, "auto")
        assert found.noise
        return found.noise.wrong

    assert (wrong("none") & planted).sum() > 0.95 * planted.sum()
    assert np.array_equal(wrong("none"), wrong("balanced"))


@pytest.mark.parametrize("weighting", ["none", "balanced"])
@pytest.mark.parametrize("l2", ["auto", 0.01])
def test_a_head_is_what_it_would_be_without_the_images_that_it_leaves_out(weighting: Any, l2: Any) -> None:
    """First, and fitted anew: weights, penalty and the history's row; how classes count, too."""
    (train, wrong), (validation, _) = swapped(1), swapped(2)

    def fitted(seen: Features, wrong_labels: WrongLabels) -> Head:
        return fit_best(seen, validation, {"last": 8}, 3, [weighting], l2, LOSS, wrong_labels)

    head = fitted(train, "auto")
    assert head.noise and wrong[head.noise.wrong].mean() > 0.9 and head.noise.wrong.sum() > 20
    without = train.part(~head.noise.wrong)
    expected = fitted(without, "keep")
    again, anew = refit(head, train, validation, LOSS), refit(expected, without, validation, LOSS)
    for one, other in ((head, expected), (again, anew)):
        assert all(np.array_equal(mine, its) for mine, its in zip(one.weights, other.weights, strict=True))
        assert (one.l2, one.row) == (other.l2, other.row)
    assert fitted(train, "keep").row != head.row, "its failing twin"
