"""Images are mirrored in training where the head knows them mirrored, and not where they become others."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.core.backbones.scaling import Scaling
from tasks.core.training.dataset import Dataset
from tasks.core.training.devices import choose_devices
from tasks.core.training.effort import Recipe
from tasks.core.training.head import Head
from tasks.core.training.mirroring import FEWEST, settle_flip
from tests.tiny import recipe


class Images(Dataset):
    """Validation images of two classes: one bright at the upper left, the other at the lower right."""

    def size(self, split: str) -> int:
        assert split == "validation"
        return int(self.folder.name)

    def read(self, split: str, batch: int, count: int | None = None) -> Any:
        del batch, count
        labels = np.arange(self.size(split)) % 2
        images = np.zeros((len(labels), 8, 8, 3), np.uint8)
        images[labels == 0, :4, :4] = images[labels == 1, 4:, 4:] = 255
        return Batched({"image": images, "label": labels})


class Batched:
    def __init__(self, batch: dict[str, Any]) -> None:
        self.batch = batch

    def as_numpy_iterator(self) -> Any:
        yield self.batch


def images(count: int) -> Dataset:
    return Images(Path(str(count)), ("a", "b"), 8, "stretch", "raw", {}, {}, {})


def halves(pixels: Any) -> Any:
    """How bright the left, the right, the upper and the lower half are."""
    parts = pixels[:, :, :4], pixels[:, :, 4:], pixels[:, :4], pixels[:, 4:]
    return np.stack([part.mean(axis=(1, 2, 3)) for part in parts], axis=1)


def head(kernel: Any) -> Head:
    return Head([kernel, np.zeros(2)], "last", Scaling.none(4), 0.0, {}, {}, 0.0)


OF_SIDES, OF_ENDS = head(np.eye(4)[:, :2]), head(np.eye(4)[:, 2:])  # by which half they tell the classes


def with_flip(value: Any) -> Recipe:
    shipped: Recipe = recipe()
    return dataclasses.replace(shipped, augment=dataclasses.replace(shipped.augment, horizontal_flip=value))


def settle(known: Head | None, count: int = 40, value: Any = "auto") -> tuple[Any, dict[str, str]]:
    hardware = choose_devices("one", "float32", False, deterministic=False)
    found, why = settle_flip(with_flip(value), known, halves, images(count), hardware)
    return found.augment.horizontal_flip, why


def test_an_image_that_becomes_another_class_is_not_mirrored() -> None:
    decided, why = settle(OF_SIDES)
    assert decided is False
    assert list(why.values()) == [
        "false: the head knows 100.0% of 40 validation images, and mirrored 0.0%, of one class 100% fewer"
    ]


def test_one_that_stays_in_its_class_is() -> None:
    decided, why = settle(OF_ENDS)
    assert decided is True
    assert list(why) == ["train.augment.horizontal_flip"]


def test_one_class_that_becomes_another_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 200 images six are of a class that the mirrored ones of another are taken for."""
    read = Images.read

    def with_few(self: Images, split: str, batch: int, count: int | None = None) -> Any:
        found = read(self, split, batch, count)
        found.batch["label"][:] = 0
        found.batch["image"][:] = found.batch["image"][:1] | found.batch["image"][:1, :, ::-1]
        found.batch["label"][:6], found.batch["image"][:6, :, :4] = 1, 0
        return found

    monkeypatch.setattr(Images, "read", with_few)
    kernel = np.array([[2.0, 0.0], [0.0, 1.5], [0.0, 0.0], [0.0, 0.0]])
    decided, why = settle(head(kernel), count=200)
    assert decided is False
    assert next(iter(why.values())).endswith(", of one class 100% fewer")


def test_what_can_not_be_told_is_not_mirrored() -> None:
    assert settle(OF_ENDS, count=FEWEST - 1)[0] is False
    assert settle(None) == (False, {"train.augment.horizontal_flip": "false: no head to ask"})


@pytest.mark.parametrize("value", [True, False])
def test_a_value_is_obeyed(value: bool) -> None:
    assert settle(OF_SIDES, value=value) == (value, {})
