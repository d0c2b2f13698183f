"""Which features the head sees, and that it does the same on features as they are and on scaled ones."""

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
from tasks.core.training.feature_cache import Features
from tasks.core.training.head import Head, fit_best, kinds_to_try

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
    return fit_best(split(1, telling), split(2, telling), widths, np.ones(2), "auto", LOSS)


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
    )
    scaled = Scaling.of(values).apply(values)
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
