"""What training is fed: every image once a pass, full batches, and the same ones after an interruption."""

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import pytest

from tasks.core.backbones.tensorflow_setup import tf
from tasks.core.base.arrays import Array
from tasks.core.training.batches import Batches, class_weights, sheet
from tasks.core.training.dataset import Dataset
from tests.tiny import Tiny, recipe

WIDTH = 16


@pytest.fixture
def batches(tiny: Tiny) -> Batches:
    return Batches(Dataset.load(tiny.dataset), recipe(batch_size=8), 0.5, WIDTH)


def parsed(data: Dataset, records: Any) -> Any:
    return records.map(data.parse).as_numpy_iterator()


def counts_of(data: Dataset) -> Array:
    return np.array([data.counts["train"][name] for name in data.class_names])


def taken(batches: Batches, epoch: int, count: int) -> list[Any]:
    return list(batches.training(epoch).take(count).as_numpy_iterator())


def test_a_pass_brings_each_image_once_in_another_order_than_the_next(batches: Batches) -> None:
    data = batches.data
    one, other = (
        [example["path"] for example in parsed(data, batches._pass(np.int64(number)).map(lambda _, r: r))]
        for number in (0, 1)
    )
    on_disk = [example["path"] for example in data.read("train", 7).unbatch().as_numpy_iterator()]
    assert Counter(one) == Counter(other) == Counter(on_disk)
    assert one not in (other, on_disk)


def test_images_that_are_left_out_are_in_no_pass_and_no_epoch(batches: Batches) -> None:
    index = batches.data.index("train")
    paths, names = list(index["path"]), batches.data.class_names
    left_out = {path: names[label] for path, label in index[::3].itertuples(index=False)}
    fewer = dataclasses.replace(batches, left_out=left_out)
    records = fewer._pass(np.int64(0)).map(lambda _, record: record)
    seen = [example["path"].decode() for example in parsed(batches.data, records)]
    assert sorted(seen) == sorted(set(paths) - set(left_out)) and len(seen) == fewer.size
    assert fewer.steps == -(-fewer.size // 8) < batches.steps
    later = [images for (images, _), *_ in taken(fewer, 1, 2)]
    before = [images for (images, _), *_ in taken(fewer, 0, fewer.steps + 2)][-2:]
    assert np.array_equal(later, before), "an epoch goes on where the one before it ended"


@pytest.mark.parametrize("count", [1, 5, 29, 30, 1000])
def test_some_images_of_a_split_are_taken_from_all_of_it(batches: Batches, count: int) -> None:
    data, size = batches.data, batches.data.size("train")
    every, some = (
        [example["path"] for example in data.read("train", 4, n).unbatch().as_numpy_iterator()]
        for n in (None, count)
    )
    assert len(some) == min(count, size)
    places = [every.index(path) for path in some]
    gaps = np.diff([-1, *places])
    assert gaps.max() - gaps.min() <= 1, "at even distances, and up to the end"
    assert places[-1] == size - 1


@pytest.mark.parametrize("global_seed", [0, 7])
def test_no_seed_but_its_own_decides_what_comes(batches: Batches, global_seed: int) -> None:
    """TensorFlow's datasets mix its global seed in, and can't take a tensor for theirs where that is 0."""
    tf.random.set_seed(1)
    before = taken(batches, 0, batches.steps)
    tf.random.set_seed(global_seed)
    for one, other in zip(before, taken(batches, 0, batches.steps), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(flat(one), flat(other), strict=True))


def test_every_batch_is_full_and_none_is_dropped(batches: Batches) -> None:
    assert batches.data.size("train") % 8, "or it would prove nothing"
    assert batches.steps == -(-batches.data.size("train") // 8)
    for (images, mask), labels, weights in taken(batches, 0, 2 * batches.steps):
        assert images.shape == (8, 32, 32, 3) and mask.shape == (8, WIDTH)
        assert labels.shape == (8, 3) and weights.shape == (8,)
        assert images.min() >= 0 and images.max() <= 1
        assert set(np.unique(mask)) <= {0, 2}


def test_an_epoch_begins_alike_whether_or_not_training_was_interrupted(batches: Batches) -> None:
    unbroken = taken(batches, 0, 3 * batches.steps)[2 * batches.steps :]
    resumed = taken(batches, 2, batches.steps)
    for one, other in zip(unbroken, resumed, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(flat(one), flat(other), strict=True))


def flat(batch: Any) -> list[Any]:
    (images, mask), labels, weights = batch
    return [images, mask, labels, weights]


def test_another_seed_is_another_order(batches: Batches) -> None:
    other = dataclasses.replace(batches, p=dataclasses.replace(batches.p, seed=9))
    assert not np.array_equal(taken(batches, 0, 1)[0][1], taken(other, 0, 1)[0][1])


def test_a_shuffle_that_holds_few_images_still_brings_all(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.core.training.dataset.SHUFFLE_BYTES", 10_000)  # three images
    data = batches.data
    paths = [example["path"] for example in parsed(data, data.read_shuffled("train", 5))]
    assert len(set(paths)) == len(paths) == batches.data.size("train")


def test_balanced_weights_make_all_classes_alike(batches: Batches) -> None:
    counts = {"blue": 30, "green": 10, "red": 20}
    data = dataclasses.replace(batches.data, counts={"train": counts})
    assert class_weights(counts_of(data), "none").tolist() == [1, 1, 1]
    weights = class_weights(counts_of(data), "balanced")
    assert weights * list(counts.values()) == pytest.approx([20, 20, 20])
    halfway = class_weights(counts_of(data), "root")
    assert halfway @ list(counts.values()) == pytest.approx(60), "1 for each image on average"
    assert halfway[1] / halfway[0] == pytest.approx(3**0.5)


def test_a_class_without_training_images_breaks_nothing(batches: Batches) -> None:
    data = dataclasses.replace(batches.data, counts={"train": {"blue": 3, "green": 0, "red": 3}})
    weights = class_weights(counts_of(data), "balanced")
    assert weights.tolist() == [1, 1, 1]


def test_the_sheet_shows_each_image_plain_and_changed(batches: Batches) -> None:
    shown = np.asarray(sheet(batches.data, batches.p), int)
    assert shown.shape == (6 * 36, 8 * 36, 3)
    first = parsed(batches.data, batches.data.read_shuffled("train", batches.p.seed))
    plain = next(iter(first))["image"]
    assert np.array_equal(shown[4:36, 4:36], plain)
    assert not np.array_equal(shown[4:36, 40:72], plain)
