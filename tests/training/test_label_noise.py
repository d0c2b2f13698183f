"""Wrong labels are found where there are some, and difficult images are not taken for them."""

import dataclasses
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks import build, evaluate
from tasks.check import Params
from tasks.core.backbones import logistic
from tasks.core.base import params
from tasks.core.base.arrays import Array
from tasks.core.base.files import read_json
from tasks.core.data.manifest import SCHEMA
from tasks.core.data.parquet import write_parquet
from tasks.core.training import label_noise
from tasks.core.training.label_noise import LabelNoise
from tests.images import ALONE, scanned
from tests.structure import ROOT
from tests.tiny import Tiny

COLOURS = {name: 200 * np.eye(3)[place] for place, name in enumerate(("red", "green", "blue"))}


def images(
    count: int, apart: float, *, classes: int = 4, width: int = 40, seed: int = 1
) -> tuple[Array, Array]:
    """Features of classes whose centres lie so many deviations apart, each in a direction of its own."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    values = rng.normal(0, 1, (count, width))
    values[:, :classes] += apart / np.sqrt(2) * np.eye(classes)[labels]
    return values.astype(np.float32), labels


def judge(values: Array, labels: Array) -> LabelNoise:
    nothing = values[:0], labels[:0]
    chosen = logistic.choose_penalty((values, labels), nothing, np.ones(labels.max() + 1))
    assert chosen.logits is not None
    return LabelNoise.of(chosen.logits, labels)


def change(labels: Array, share: float) -> Array:
    """Labels of which a share is wrong."""
    rng = np.random.default_rng(2)
    classes = labels.max() + 1
    others = (labels + rng.integers(1, classes, len(labels))) % classes
    changed: Array = np.where(rng.random(len(labels)) < share, others, labels)
    return changed


@pytest.mark.parametrize("share", [0.05, 0.15, 0.3])
def test_wrong_labels_are_counted_and_found(share: float) -> None:
    values, right = images(800, 6.0)
    labels = change(right, share)
    noise, wrong = judge(values, labels), labels != right
    assert noise.share == pytest.approx(wrong.mean(), rel=0.25)
    assert wrong[noise.wrong].mean() > 0.8 and noise.wrong[wrong].mean() > 0.8
    assert (noise.suggested[noise.wrong & wrong] == right[noise.wrong & wrong]).mean() > 0.9
    assert noise.confidence[wrong].max() < noise.confidence[~noise.wrong].mean()
    assert noise.why.startswith(f"drop: {noise.wrong.sum()} images; by cross-validation ")


@pytest.mark.parametrize("apart", [0.0, 1.0, 2.0, 4.0, 8.0])
def test_difficult_images_are_no_wrong_labels(apart: float) -> None:
    for seed in range(20):  # at a level of 5 % one or two of them would lose images
        noise = judge(*images(800, apart, seed=seed))
        assert noise.share == 0 and not noise.wrong.any()
        assert noise.why.startswith("keep: ")


@pytest.mark.parametrize("classes", [100, 200])
def test_they_are_found_though_most_of_many_classes_have_none(classes: int) -> None:
    values, right = images(2000, 12.0, classes=classes, width=classes)
    labels = change(right, 0.04)
    noise = judge(values, labels)
    assert len(set(labels[noise.wrong])) < classes / 2
    assert noise.wrong.sum() > 40 and (labels != right)[noise.wrong].mean() > 0.9


def test_classes_without_training_images_change_nothing() -> None:
    values, right = images(800, 6.0)
    labels = change(right, 0.1)
    chosen = logistic.choose_penalty((values, labels), (values[:0], labels[:0]), np.ones(50))
    assert chosen.logits is not None and chosen.logits.shape == (800, 50)
    assert LabelNoise.of(chosen.logits, labels).wrong.sum() == pytest.approx((labels != right).sum(), abs=8)


def test_a_label_that_is_the_likeliest_is_never_called_wrong() -> None:
    values, right = images(1500, 8.0)
    noise = judge(values, change(right, 0.55))
    labels = change(right, 0.55)
    assert not (noise.wrong & (noise.suggested == labels)).any()


def test_of_many_images_some_are_asked_and_all_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    values, right = images(1200, 6.0)
    labels = change(right, 0.15)
    whole = judge(values, labels)
    monkeypatch.setattr(label_noise, "MAX_NUMBERS", 4 * 400)
    part = judge(values, labels)
    assert (part.wrong == whole.wrong).mean() > 0.98 and part.share == pytest.approx(whole.share, rel=0.3)


@pytest.mark.parametrize("hidden", [0.1, 0.3, 0.5])
def test_images_of_one_class_that_look_like_another_are_no_wrong_labels(hidden: float) -> None:
    """Rare defects, of which the backbone doesn't see a share: what looks sound is labelled right."""
    rng = np.random.default_rng(0)
    labels = (np.arange(600) % 10 == 0).astype(int)
    values = rng.normal(0, 1, (600, 8)).astype(np.float32)
    seen = (labels == 1) & (rng.random(600) >= hidden)
    values[:, 0] += 8 * seen
    assert judge(values, labels).share == 0
    values[:, 0] += 8 * (np.arange(600) % 2 - seen)
    assert judge(values, change(np.arange(600) % 2, 0.1)).share > 0.05, "its failing twin: among both classes"


def test_a_class_that_is_not_known_keeps_its_images() -> None:
    """Of five that look like any others the regression knows nothing; the wrong labels are elsewhere."""
    values, right = images(800, 8.0)
    labels = change(right, 0.15)
    strange, _ = images(5, 0.0, width=40, seed=5)
    values, labels = np.concatenate([values, strange]), np.append(labels, [4] * 5)
    noise = judge(values, labels)
    assert noise.wrong.sum() > 80
    assert not noise.wrong[labels == 4].any()


@pytest.fixture
def swapped(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Tiny, set[str]]:
    """Images of three colours, built; every eighth in the folder of another; and their paths."""
    monkeypatch.chdir(tmp_path)
    place = Tiny(tmp_path)
    shutil.copytree(tiny.folder / "backbone", "backbone")
    rng, wrong = np.random.default_rng(1), set()
    for number, (colour, own) in product(range(100), COLOURS.items()):
        others = [name for name in COLOURS if name != colour]
        hint, label = rng.choice(others), rng.choice(others) if number % 8 == 0 else colour
        name = f"{label}/really {colour} {number}.png"
        share = rng.uniform(0.1, 0.45)  # of another colour in it: some images are clearer than others
        pixels = own * (1 - share) + COLOURS[hint] * share + rng.normal(0, 20, (32, 32, 3))
        (place.images / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place.images / name)
        if label != colour:
            wrong.add(name)
    Path("labels.csv").write_text("path,label\n")
    write_parquet(Path("manifest.parquet"), scanned(place.images, Path("labels.csv")), SCHEMA)
    p = params.read(ROOT / "params.yaml", Params).build
    build.build(place.images, Path("manifest.parquet"), place.dataset, p, "backbone", 32, ALONE, {})
    return place, wrong


def test_images_with_wrong_labels_are_not_trained_on_and_are_listed(
    swapped: tuple[Tiny, set[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    place, wrong = swapped
    place.train(place.folder / "all")
    assert read_json(place.folder / "all/label_errors.json") == []
    place.train(place.models, wrong_labels="auto")
    found = read_json(place.models / "label_errors.json")
    right = [row for row in found if row["path"] in wrong]
    assert len(right) >= 20 and len(right) > 0.85 * len(found)
    for row in found:
        assert row["path"].startswith(row["label"]) and row["suggested"] != row["label"]
        assert 0 <= row["self_confidence"] < 0.5 and row["split"] == "train"
    assert all(f"really {row['suggested']} " in row["path"] for row in right)
    said = f"train: train.wrong_labels drop: {len(found)} images; by cross-validation "
    assert said in "".join(capsys.readouterr())
    histories = (pd.read_csv(folder / "history.csv") for folder in (place.folder / "all", place.models))
    every, kept = (history.groupby("phase")["accuracy"].last() for history in histories)
    assert (kept - every > 0.05).all(), "both phases saw labels that are right"
    p = dataclasses.replace(params.read(ROOT / "params.yaml", Params).evaluate, robustness=0)
    evaluate.evaluate(place.models, place.dataset, Path("manifest.parquet"), Path("labels.csv"), p)
    listed = read_json(Path("reports/label_errors.json"))
    assert [row for row in listed if row["split"] == "train"] == found
    assert len(listed) > len(found), "held-out ones beside them"
    assert [row["split"] for row in listed[-len(found) :]] == ["train"] * len(found), (
        "held-out ones come first"
    )
