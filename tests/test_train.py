"""Training learns, keeps its best epoch, and gives the same bytes for the same seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks import train
from tasks.core import classifier, params
from tasks.core.augment import DRAWS, augmented, draw
from tasks.core.errors import BackboneError
from tasks.core.params import Augment
from tasks.core.records import Dataset
from tasks.core.runtime import tf
from tasks.core.serialize import read_json
from tests.conftest import Tiny
from tests.structure import ROOT

STILL = Augment(rotation=0, translation=0, zoom=0, horizontal_flip=False)


def test_it_learns_in_two_phases(tiny: Tiny) -> None:
    history = pd.read_csv(tiny.models / "history.csv")
    assert list(history["phase"].unique()) == ["head", "fine_tune"]
    facts = read_json(tiny.models / "classifier.json")
    assert facts["best_epoch"]["val_accuracy"] >= 0.9
    assert facts["class_names"] == ["blue", "green", "red"]


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tiny: Tiny, tmp_path: Path) -> None:
    tiny.train(tmp_path / "again")
    tiny.train(tmp_path / "other", seed=9)
    first, again, other = (
        (folder / classifier.WEIGHTS).read_bytes()
        for folder in (tiny.models, tmp_path / "again", tmp_path / "other")
    )
    assert first == again
    assert first != other


def weights(folder: Path) -> dict[str, Any]:
    model, _ = classifier.load(folder)
    return {variable.name: variable.numpy() for variable in model.variables}


def test_without_fine_tuning_the_backbone_stays_as_it_was(tiny: Tiny, tmp_path: Path) -> None:
    tiny.train(tmp_path / "frozen", fine_tune=False)
    frozen, tuned = weights(tmp_path / "frozen"), weights(tiny.models)
    original = classifier.backbone_layer(str(tiny.folder / "backbone"), trainable=True).variables
    for variable in original:
        (name,) = [name for name in frozen if frozen[name].shape == variable.shape]
        assert np.array_equal(frozen[name], variable.numpy())
        assert not np.array_equal(tuned[name], variable.numpy()), "its failing twin: fine-tuning moves it"


def validation_loss(tiny: Tiny, models: Path) -> float:
    """The loss of the weights that lie in a folder, measured anew."""
    p = params.load(ROOT / "params.yaml").train
    model, _ = classifier.load(models)
    model.compile(loss=train.loss(p))
    penalty = 0.0001 * float(np.square(model.get_layer("head").kernel.numpy()).sum())
    held_out = train.validation_batches(Dataset.load(tiny.dataset))
    return float(model.evaluate(held_out, verbose=0)) + penalty


def test_the_best_epoch_is_kept_and_not_the_last(tiny: Tiny, tmp_path: Path) -> None:
    best = tiny.train(tmp_path / "wild", head_epochs=1, learning_rate=3.0, epochs=6, patience=2)
    history = pd.read_csv(tmp_path / "wild/history.csv")
    tuned = history[history["phase"] == "fine_tune"]
    assert best["val_loss"] == tuned["val_loss"].min()
    assert best["epoch"] < len(tuned), "the last one was worse"
    assert validation_loss(tiny, tmp_path / "wild") == pytest.approx(best["val_loss"], abs=1e-3)
    assert len(tuned) - tuned["val_loss"].argmin() - 1 <= 2, "it stops when it got no better for two epochs"


def test_fine_tuning_that_makes_it_worse_leaves_the_head_as_it_was(tiny: Tiny, tmp_path: Path) -> None:
    best = tiny.train(tmp_path / "worse", learning_rate=100.0, epochs=1)
    tiny.train(tmp_path / "frozen", fine_tune=False)
    assert best["phase"] == "head"
    frozen, worse = weights(tmp_path / "frozen"), weights(tmp_path / "worse")
    assert all(np.array_equal(frozen[name], worse[name]) for name in frozen)


def test_a_backbone_that_can_not_be_loaded_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"not a graph")
    with pytest.raises(BackboneError, match="can't be loaded") as caught:
        classifier.backbone_layer(str(tmp_path), trainable=True)
    assert "\n" not in str(caught.value)


def test_augmentation_hangs_on_seed_epoch_and_picture_alone() -> None:
    first, again, epoch, picture = (
        draw(*key).numpy() for key in ((1, 2, 3), (1, 2, 3), (1, 3, 3), (1, 2, 4))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, epoch)
    assert not np.array_equal(first, picture)


PICTURE = np.zeros((1, 33, 33, 3), np.float32)
PICTURE[0, 4:10, 16] = 1  # a stroke above the centre


def test_no_strength_is_no_change() -> None:
    assert np.allclose(augmented(PICTURE, tf.ones((1, DRAWS)), STILL), PICTURE, atol=1e-6)


def test_rotation_is_in_degrees() -> None:
    p = Augment(rotation=40, translation=0, zoom=0, horizontal_flip=False)
    turned = augmented(PICTURE, tf.constant([[1.0, 0, 0, 0, 0]]), p).numpy()[0, ..., 0]
    expected = Image.fromarray((PICTURE[0, ..., 0] * 255).astype(np.uint8)).rotate(
        40, Image.Resampling.BILINEAR
    )
    assert np.abs(turned - np.asarray(expected) / 255).mean() < 0.01


def test_a_flip_mirrors_left_and_right() -> None:
    p = Augment(rotation=0, translation=0, zoom=0, horizontal_flip=True)
    ramp = np.broadcast_to(np.linspace(0, 1, 33, dtype=np.float32)[None, None, :, None], (1, 33, 33, 3))
    flipped, kept = (augmented(ramp, tf.constant([[0.0, 0, 0, 0, flip]]), p).numpy() for flip in (-0.5, 0.5))
    assert np.allclose(flipped, ramp[:, :, ::-1], atol=1e-5)
    assert np.allclose(kept, ramp, atol=1e-5)
