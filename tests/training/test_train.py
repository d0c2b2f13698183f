"""Training learns, keeps its best epoch, and gives the same bytes for the same seed."""

import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from ruamel.yaml import YAML

from tasks.core.backbones import saved_model
from tasks.core.backbones.layer import backbone_layer
from tasks.core.backbones.scaling import Scaling
from tasks.core.backbones.tensorflow_setup import tf
from tasks.core.base.errors import BackboneError, ModelError, ParamError
from tasks.core.base.files import read_json
from tasks.core.training import callbacks, classifier, feature_cache, fine_tuning
from tasks.core.training.augmentation import Draw, augment, draw, key, mix_up
from tasks.core.training.batches import Batches
from tasks.core.training.config import Augment, Recipe
from tasks.core.training.dataset import Dataset
from tests.backbone import FEATURES, save_tensorflow_1_backbone
from tests.structure import ROOT
from tests.tiny import Tiny, recipe

STILL = Augment(0, 0, 0, 0, False, 0, 0)
TURNED = dataclasses.replace(STILL, rotation=10)


def test_it_learns_in_two_phases(tiny: Tiny) -> None:
    history = pd.read_csv(tiny.models / "history.csv")
    assert list(history["phase"].unique()) == ["head", "fine_tune"]
    facts = read_json(tiny.models / "classifier.json")
    assert facts["best_epoch"]["val_accuracy"] >= 0.9
    assert facts["class_names"] == ["blue", "green", "red"]


def test_a_phase_that_is_not_trained_has_plots_without_points(tiny: Tiny, tmp_path: Path) -> None:
    """A file that dvc.yaml names and nobody writes makes DVC say that plots failed to load."""
    tiny.train(tmp_path / "models", fine_tune=False)
    shown = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text("utf-8"))["plots"]
    curves = [plot["y"] for entry in shown for plot in entry.values() if plot["x"] == "step"]
    for file, column in (pair for curve in curves for pair in curve.items()):
        inner = Path(file).relative_to("reports/training")
        assert column in pd.read_csv(tmp_path / "models-live" / inner, sep="\t").columns


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
    original = backbone_layer(str(tiny.folder / "backbone"), trainable=True).variables
    for variable in original:
        (name,) = [name for name in frozen if frozen[name].shape == variable.shape]
        assert np.array_equal(frozen[name], variable.numpy())
        assert not np.array_equal(tuned[name], variable.numpy()), "its failing twin: fine-tuning moves it"


@pytest.mark.parametrize(("share", "moved"), [(1.0, 4), (0.5, 2), (0.25, 1)])
def test_no_more_of_the_backbone_than_said_is_trained(
    tiny: Tiny, tmp_path: Path, share: float, moved: int
) -> None:
    """Kernel and bias of a convolution, then gamma and beta, which come last."""
    tiny.train(tmp_path / "m", "lively", batch_norm="frozen", unfreeze=share, head=False)
    tuned = [
        variable.numpy() for variable in classifier.load(tmp_path / "m")[0].get_layer("backbone").variables
    ]
    layer = backbone_layer(str(tiny.folder / "lively"), trainable=True)
    places = {variable.ref(): place for place, variable in enumerate(layer.variables)}
    changed = [
        not np.array_equal(tuned[places[variable.ref()]], variable.numpy())
        for variable in layer.trainable_variables
    ]
    assert changed == [False] * (4 - moved) + [True] * moved


def images_seen(models: Path) -> int:
    """How many images the backbone `counting` was given, as it says itself."""
    return int(next(value for name, value in weights(models).items() if "seen" in name))


def test_a_frozen_backbone_sees_each_image_once_and_then_never_again(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its features are kept: neither the second epoch nor another training with another head asks again."""
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))
    data = Dataset.load(tiny.dataset)
    frozen: dict[str, Any] = {"fine_tune": False, "augment": STILL}
    best = tiny.train(tmp_path / "first", "counting", **frozen)
    assert best["phase"] == "head"
    assert images_seen(tmp_path / "first") == data.size("train") + data.size("validation")
    tiny.train(tmp_path / "second", "counting", **frozen, label_smoothing=0.0)
    assert images_seen(tmp_path / "second") == 0
    tiny.train(tmp_path / "augmented", "counting", **frozen | {"augment": TURNED})
    assert images_seen(tmp_path / "augmented") > 3 * data.size("train"), "its failing twin"


def test_what_was_auto_is_told_and_written(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the parameters that ship, and `backbone` trained; what was given as a value is not among them."""
    auto: dict[str, Any] = dict.fromkeys(("batch_size", "learning_rate", "optimizer", "batch_norm"), "auto")
    tiny.train(tmp_path / "models", **auto, class_weight="auto", wrong_labels="auto")
    chosen = read_json(tmp_path / "models/classifier.json")["auto"]
    expected = {f"train.{name}" for name in (*auto, "class_weight", "wrong_labels")} | {
        "model.features",
        "model.l2",
    }
    assert expected | {f"train.augment.{name}" for name in dataclasses.asdict(STILL)} == set(chosen)
    assert chosen["train.learning_rate"] == "0.001: for adam and batches of 32"
    printed = "".join(capsys.readouterr())
    assert all(f"train: {name} {why}\n" in printed for name, why in chosen.items())


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_fine_tuned_backbone_that_gives_no_numbers_is_not_taken(
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    split: str,
) -> None:
    compute = feature_cache.compute

    def overflow(extract: Any, data: Dataset, name: str) -> Any:
        found = compute(extract, data, name)
        if name == split:
            found.values[0, 0] = np.inf
        return found

    monkeypatch.setattr(feature_cache, "compute", overflow)
    assert tiny.train(tmp_path / "models", "lively", refit=True, epochs=1)["phase"] == "head"
    assert "became no number (lower train.learning_rate): the head is kept" in "".join(capsys.readouterr())


def test_class_weights_are_one_and_labels_right_where_there_is_no_head_to_ask(
    tiny: Tiny, tmp_path: Path
) -> None:
    tiny.train(tmp_path / "auto", head=False, class_weight="auto", wrong_labels="auto")
    tiny.train(tmp_path / "none", head=False, class_weight="none")
    chosen = read_json(tmp_path / "auto/classifier.json")["auto"]
    assert chosen["train.class_weight"] == "none: no head to ask"
    assert chosen["train.wrong_labels"] == "keep: no head to ask"
    (one, other) = (weights(tmp_path / name) for name in ("auto", "none"))
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_head_is_fitted_to_what_fine_tuning_has_made_of_the_backbone(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    far: dict[str, Any] = {"batch_norm": "frozen", "learning_rate": 0.01, "epochs": 2}
    tiny.train(tmp_path / "head", "lively", **far, fine_tune=False, augment=STILL)
    tuned_loss = tiny.train(tmp_path / "tuned", "lively", **far)["val_loss"]
    assert tuned_loss == pytest.approx(validation_loss(tiny, tmp_path / "tuned"), abs=1e-4), (
        "no penalty in it"
    )
    best = tiny.train(tmp_path / "refitted", "lively", **far, refit=True)
    assert best["phase"] == "fine_tune"
    losses = {name: validation_loss(tiny, tmp_path / name) for name in ("head", "refitted")}
    assert losses["refitted"] == pytest.approx(best["val_loss"], abs=1e-4)
    assert losses["refitted"] < losses["head"]
    assert f"val_loss: {best['val_loss']:.4f}" in "".join(capsys.readouterr()), "told in the epoch's line"
    refitted, tuned = (weights(tmp_path / name) for name in ("refitted", "tuned"))
    assert any(not np.array_equal(refitted[name], tuned[name]) for name in tuned if "head" in name)


def test_where_that_is_no_better_the_first_head_is_kept_on_the_backbone_as_it_came(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    far: dict[str, Any] = {"batch_norm": "frozen", "learning_rate": 3.0, "epochs": 3}
    tiny.train(tmp_path / "head", "lively", **far, fine_tune=False, augment=STILL)
    assert tiny.train(tmp_path / "models", "lively", **far, refit=True)["phase"] == "head"
    assert ": the head is kept, on the backbone as it came" in "".join(capsys.readouterr())
    kept, head = (weights(tmp_path / name) for name in ("models", "head"))
    assert all(np.array_equal(kept[name], head[name]) for name in head)
    phases = list(pd.read_csv(tmp_path / "models/history.csv")["phase"])
    assert phases == ["head", "fine_tune"], "after one epoch it is clear that fine-tuning can't help"


def test_features_of_another_backbone_or_of_other_images_are_not_taken_for_these(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))
    data, asked = Dataset.load(tiny.dataset), []

    def extract(images: Any) -> Any:
        asked.append(len(images))
        return np.asarray(images, np.float32).mean(axis=(1, 2))

    first = feature_cache.of_split(extract, data, "validation", "a backbone")
    again = feature_cache.of_split(extract, data, "validation", "a backbone")
    assert sum(asked) == data.size("validation") == len(first.values)
    assert np.array_equal(first.values, again.values) and np.array_equal(first.labels, again.labels)
    feature_cache.of_split(extract, data, "validation", "another")
    feature_cache.of_split(extract, data, "test", "a backbone")
    assert sum(asked) == 2 * data.size("validation") + data.size("test")


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 and no more"])
def test_a_damaged_file_of_features_is_made_again(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path))
    data = Dataset.load(tiny.dataset)

    def extract(images: Any) -> Any:
        return np.asarray(images, np.float32).mean(axis=(1, 2))

    whole = feature_cache.of_split(extract, data, "test", "a backbone")
    for file in (tmp_path / "features").iterdir():
        file.write_bytes(damage)
    for _ in range(2):
        assert np.array_equal(
            feature_cache.of_split(extract, data, "test", "a backbone").values, whole.values
        )
    assert all(file.stat().st_size > len(damage) for file in (tmp_path / "features").iterdir())


def test_a_bug_where_features_are_read_is_not_taken_for_damage(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path))
    data = Dataset.load(tiny.dataset)

    def extract(images: Any) -> Any:
        return np.zeros((len(images), 2), np.float32)

    def broken(*_: Any, **__: Any) -> Any:
        raise TypeError("a bug")

    feature_cache.of_split(extract, data, "test", "a backbone")
    monkeypatch.setattr(np, "load", broken)
    with pytest.raises(TypeError, match="a bug"):
        feature_cache.of_split(extract, data, "test", "a backbone")


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adam", "learning_rate": 0.005},
        pytest.param(
            {"optimizer": "adamw", "learning_rate": 0.005, "weight_decay": 0.01, "class_weight": "balanced"},
            marks=pytest.mark.slow,
        ),
        pytest.param({"batch_norm": "frozen", "schedule": "constant", "warmup": 0.0}, marks=pytest.mark.slow),
        {"mixup": 0.2},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_every_recipe_learns(tiny: Tiny, tmp_path: Path, changes: dict[str, Any]) -> None:
    best = tiny.train(tmp_path / "models", "lively", head=False, epochs=6, **changes)
    assert best["val_accuracy"] >= 0.8
    assert best["phase"] == "fine_tune"


@pytest.mark.slow
def test_each_training_has_tensorboards_logs_by_itself(tiny: Tiny, tmp_path: Path) -> None:
    for seed in (1, 2):
        tiny.train(tmp_path / "models", logs=tmp_path / "logs", seed=seed, epochs=1)
    runs = list((tmp_path / "logs").iterdir())
    assert len(runs) == 2
    assert all(list(run.glob("train/events*")) and list(run.glob("validation/events*")) for run in runs)


def test_what_a_backbone_draws_without_a_seed_gets_one(tiny: Tiny) -> None:
    tf.config.experimental.enable_op_determinism()
    images, lively = tf.ones((4, 32, 32, 3)), str(tiny.folder / "lively")
    with pytest.raises(tf.errors.InvalidArgumentError, match="determinism"):
        backbone_layer(lively, trainable=True)(images, training=True)

    def drawn(seed: int) -> np.ndarray:
        tf.random.set_seed(0)
        layer = backbone_layer(lively, trainable=True, draws_by=seed)
        return np.asarray(layer(images, training=True))

    assert np.array_equal(drawn(1), drawn(1)) and not np.array_equal(drawn(1), drawn(2))


@pytest.mark.parametrize(("name", "draws"), [("lively", True), ("backbone", False)])
def test_a_backbone_that_draws_by_itself_is_told_from_one_that_does_not(
    tiny: Tiny, name: str, draws: bool
) -> None:
    """Its draws are begun again at each epoch, which costs time where there are none."""
    assert saved_model.inspect(tiny.folder / name).is_stochastic == draws


@pytest.mark.parametrize(("batch_norm", "moves"), [("batch", True), ("frozen", False)])
def test_frozen_statistics_stay_as_they_came(
    tiny: Tiny, tmp_path: Path, batch_norm: str, moves: bool
) -> None:
    tiny.train(tmp_path / "models", "lively", batch_norm=batch_norm, head=False, epochs=1)
    mean = next(value for name, value in weights(tmp_path / "models").items() if "moving_mean" in name)
    assert bool(np.abs(mean).max() > 0) == moves


def test_a_batch_may_be_of_more_images_than_there_are(tiny: Tiny, tmp_path: Path) -> None:
    """It goes on with the next pass over them."""
    best = tiny.train(tmp_path / "m", batch_size=100, epochs=2)
    assert best["val_accuracy"] >= 0.9


def test_a_loss_that_is_no_number_ends_with_one_line(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ParamError, match=r"train\.learning_rate is 1e\+30"):
        tiny.train(tmp_path / "models", head=False, learning_rate=1e30)
    assert not (tmp_path / "models").exists()


def test_fine_tuning_whose_loss_becomes_no_number_stops_at_once_and_leaves_the_head(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = tiny.train(tmp_path / "models", learning_rate=1e30, epochs=9, patience=9)
    history = pd.read_csv(tmp_path / "models/history.csv")
    assert best["phase"] == "head"
    assert (history["phase"] == "fine_tune").sum() < 9
    assert "became no number (lower train.learning_rate): the head is kept" in "".join(capsys.readouterr())


def test_a_classifier_is_not_put_on_another_backbone_than_it_was_trained_on(
    tiny: Tiny, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(tiny.folder / "backbone", mine)
    tiny.train(tmp_path / "models", str(mine), epochs=1)
    classifier.load(tmp_path / "models")
    shutil.rmtree(mine)
    shutil.copytree(tiny.folder / "lively", mine)
    with pytest.raises(ModelError, match=r"mine with sha256 .* by now has") as caught:
        classifier.load(tmp_path / "models")
    assert "\n" not in str(caught.value)


def test_a_backbone_of_tensorflow_1_trains_frozen_and_says_so_otherwise(tiny: Tiny, tmp_path: Path) -> None:
    save_tensorflow_1_backbone(tmp_path / "first")
    with pytest.raises(BackboneError, match=r"set train\.fine_tune to false"):
        tiny.train(tmp_path / "models", str(tmp_path / "first"))
    best = tiny.train(tmp_path / "models", str(tmp_path / "first"), fine_tune=False, augment=STILL)
    loss = validation_loss(tiny, tmp_path / "models")
    assert loss == pytest.approx(best["val_loss"], abs=1e-3)


def rate(p: Recipe, step: int) -> float:
    return float(fine_tuning.learning_rate(p, steps=10)(step))


def test_the_learning_rate_rises_and_falls() -> None:
    p = recipe(epochs=4, warmup=1.0, learning_rate=0.1)
    assert [rate(p, step) for step in (0, 5, 10, 25, 40)] == pytest.approx([0, 0.05, 0.1, 0.05, 0], abs=1e-6)
    constant = dataclasses.replace(p, schedule="constant")
    assert [rate(constant, step) for step in (0, 5, 10, 40)] == pytest.approx([0, 0.05, 0.1, 0.1])
    assert rate(dataclasses.replace(p, warmup=0.0), 0) == pytest.approx(0.1)


def test_weight_decay_leaves_biases_and_norms_alone(tiny: Tiny) -> None:
    layer = backbone_layer(str(tiny.folder / "lively"), trainable=True)
    p = recipe(optimizer="adamw", weight_decay=0.5, warmup=0.0)
    optimizer = fine_tuning.optimizer(p, steps=10)
    before = [variable.numpy() for variable in layer.trainable_variables]
    optimizer.build(layer.trainable_variables)
    zeros = [tf.zeros_like(variable) for variable in layer.trainable_variables]
    optimizer.apply_gradients(zip(zeros, layer.trainable_variables, strict=True))
    for variable, value in zip(layer.trainable_variables, before, strict=True):
        assert np.array_equal(variable.numpy(), value) == ("kernel" not in variable.name), variable.name


def validation_loss(tiny: Tiny, models: Path) -> float:
    """The loss of the weights that lie in a folder, measured again."""
    p = recipe(label_smoothing=0.1)  # as `tiny` trains
    model, _ = classifier.load(models)
    held_out = Batches(Dataset.load(tiny.dataset), p, 0.0, FEATURES).validation()
    whole = classifier.in_training(model, "last", Scaling.none(FEATURES), 0.0, frozen_statistics=False)
    whole.compile(loss=fine_tuning.loss(p))
    return float(whole.evaluate(held_out, verbose=0))


def test_the_best_epoch_is_kept_and_not_the_last(tiny: Tiny, tmp_path: Path) -> None:
    best = tiny.train(tmp_path / "wild", head=False, learning_rate=1.0, epochs=6, patience=2)
    history = pd.read_csv(tmp_path / "wild/history.csv")
    tuned = history[history["phase"] == "fine_tune"]
    assert best["val_loss"] == tuned["val_loss"].min()
    assert best["epoch"] < len(tuned), "the last one was worse"
    assert validation_loss(tiny, tmp_path / "wild") == pytest.approx(best["val_loss"], abs=1e-3)
    assert len(tuned) - tuned["val_loss"].argmin() - 1 <= 2, "it stops when it got no better for two epochs"


@pytest.mark.parametrize(
    ("loss", "error", "ends"),
    [(0.4, 0.0, False), (0.5, 0.0, True), (0.54, 0.1, False), (0.56, 0.1, True), (float("nan"), 0.1, True)],
)
def test_an_epoch_above_the_head_beyond_doubt_is_the_last(loss: float, error: float, ends: bool) -> None:
    log: Any = None
    history = callbacks.History("fine_tune", log)
    history.rows.append({"epoch": 1, "val_loss": loss, callbacks.VAL_LOSS_ERROR: error})
    assert callbacks.EarlyStopping(history, patience=9, limit=0.5).done == ends
    assert callbacks.may_be_below(history.rows[0], 0.5) != ends, "what is taken is what may go on"


def test_fine_tuning_that_makes_it_worse_leaves_the_head_as_it_was(tiny: Tiny, tmp_path: Path) -> None:
    best = tiny.train(tmp_path / "worse", learning_rate=100.0, epochs=1)
    tiny.train(tmp_path / "frozen", fine_tune=False, augment=STILL)
    assert best["phase"] == "head"
    frozen, worse = weights(tmp_path / "frozen"), weights(tmp_path / "worse")
    assert all(np.array_equal(frozen[name], worse[name]) for name in frozen)


def test_a_backbone_that_can_not_be_loaded_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"not a graph")
    with pytest.raises(BackboneError, match="can't be loaded") as caught:
        backbone_layer(str(tmp_path), trainable=True)
    assert "\n" not in str(caught.value)


def test_augmentation_hangs_on_seed_epoch_and_image_alone() -> None:
    first, again, epoch, image = (
        draw(key(1, *which)).numpy() for which in ((2, "a"), (2, "a"), (3, "a"), (2, "b"))
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, epoch)
    assert not np.array_equal(first, image)


IMAGE = np.zeros((1, 33, 33, 3), np.float32)
IMAGE[0, 4:10, 16] = 1  # a stroke above the centre


def numbers(**drawn: float) -> Any:
    """The random numbers of one image: these, and 0 for the others."""
    return tf.constant([[drawn.get(draw.name, 0.0) for draw in Draw]])


def test_no_strength_is_no_change() -> None:
    assert np.allclose(augment(IMAGE, tf.ones((1, len(Draw))), STILL), IMAGE, atol=1e-6)


@pytest.mark.parametrize(("drawn", "zoomed"), [(0.0, 1.0), (1.0, 1.5), (-1.0, 0.5)])
def test_rotation_is_in_degrees_and_zoom_a_share(drawn: float, zoomed: float) -> None:
    image = np.zeros((1, 33, 33, 3), np.float32)
    image[0, 11:16, 16], image[0, 12, 17:20] = 1, 0.5
    p = dataclasses.replace(STILL, rotation=40, zoom=0.5)
    turned = augment(image, numbers(ANGLE=1.0, ZOOM=drawn), p).numpy()[0, ..., 0]
    grey = Image.fromarray((image[0, ..., 0] * 255).astype(np.uint8))
    a, b = zoomed * math.cos(math.radians(40)), zoomed * math.sin(math.radians(40))
    places = (a, -b, 16.5 * (1 - a + b), b, a, 16.5 * (1 - a - b))  # about the centre
    expected = grey.transform(grey.size, Image.Transform.AFFINE, places, Image.Resampling.BILINEAR)
    inner = slice(8, 25), slice(8, 25)  # into which nothing comes mirrored
    assert np.abs(turned - np.asarray(expected) / 255)[inner].sum() < 0.02 * turned[inner].sum()


def test_a_flip_mirrors_left_and_right() -> None:
    p = dataclasses.replace(STILL, horizontal_flip=True)
    ramp = np.broadcast_to(np.linspace(0, 1, 33, dtype=np.float32)[None, None, :, None], (1, 33, 33, 3))
    flipped, kept = (augment(ramp, numbers(FLIP=flip), p).numpy() for flip in (-0.5, 0.5))
    assert np.allclose(flipped, ramp[:, :, ::-1], atol=1e-5)
    assert np.allclose(kept, ramp, atol=1e-5)


def test_a_crop_shows_a_part_and_never_more() -> None:
    p = dataclasses.replace(STILL, crop=0.5)
    ramp = np.broadcast_to(np.linspace(0, 1, 33, dtype=np.float32)[None, None, :, None], (1, 33, 33, 3))
    smallest, left = (numbers(WINDOW_SIDE=1.0, WINDOW_RIGHT=place) for place in (0.0, -1.0))
    middle, edge = (augment(ramp, draws, p).numpy()[0, 16, :, 0] for draws in (smallest, left))
    assert middle[[0, -1]] == pytest.approx([0.25, 0.75], abs=0.02)
    assert edge[[0, -1]] == pytest.approx([0, 0.5], abs=0.02)


def test_brightness_and_contrast_change_the_mean_and_the_spread() -> None:
    image = np.clip(0.5 + IMAGE * 0.2, 0, 1)
    brighter = augment(image, numbers(BRIGHTNESS=1.0), dataclasses.replace(STILL, brightness=0.1))
    flatter = augment(image, numbers(CONTRAST=-1.0), dataclasses.replace(STILL, contrast=0.5))
    assert np.allclose(brighter, image + 0.1, atol=1e-6)
    assert np.std(flatter) == pytest.approx(np.std(image) / 2, rel=1e-3)
    assert np.mean(flatter) == pytest.approx(np.mean(image), rel=1e-3)


def test_mixup_mixes_images_and_labels_alike() -> None:
    images, labels = np.eye(4, dtype=np.float32)[:, None, None, :], np.eye(4, dtype=np.float32)
    keys = tf.stack([key(1, 0, str(number)) for number in range(4)])
    mixed_images, mixed_labels = mix_up(images, labels, keys, 0.4)
    assert np.allclose(mixed_images[:, 0, 0], mixed_labels)
    assert np.allclose(np.sum(mixed_labels, axis=1), 1)
    assert not np.allclose(mixed_labels, labels)
    assert mix_up(images, labels, keys, 0.0) == (images, labels)


def test_another_draw_at_the_end_changes_no_other() -> None:
    """So that an augmentation that is added leaves what the others do as it was."""
    longer = tf.random.stateless_uniform([len(Draw) + 3], key(7, 3, "red/001.png"), -1.0, 1.0)
    assert np.array_equal(draw(key(7, 3, "red/001.png")), longer[:-3])
