"""Images are mirrored in training where the head knows them mirrored, and not where they become others."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.core.backbones.logistic import LeftOut
from tasks.core.backbones.scaling import Scaling
from tasks.core.training import symmetry
from tasks.core.training.config import Augment, Recipe
from tasks.core.training.dataset import Dataset
from tasks.core.training.devices import choose_devices
from tasks.core.training.head import Head
from tasks.core.training.symmetry import FEWEST, OTHERS
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
    nothing = LeftOut(np.zeros(0), np.zeros(0, bool), np.zeros(0, int))
    return Head(
        [kernel, np.zeros(2)], "last", Scaling.none(4), 0.0, "none", {}, np.zeros(0), nothing, None, 0.0
    )


OF_SIDES, OF_ENDS = head(np.eye(4)[:, :2]), head(np.eye(4)[:, 2:])  # by which half they tell the classes
OF_NOTHING = head(np.zeros((4, 2)))


def recipe_with(**augment: Any) -> Recipe:
    shipped: Recipe = recipe()
    return dataclasses.replace(shipped, augment=dataclasses.replace(shipped.augment, **augment))


def settle(known: Head | None, count: int = 40, /, **augment: Any) -> tuple[Augment, dict[str, str]]:
    hardware = choose_devices("one", "float32", False, deterministic=False)
    asked = recipe_with(**augment or {"horizontal_flip": "auto", "rotation": "auto"})
    found, why = symmetry.settle(asked, known, halves, images(count), hardware)
    return found.augment, why


def test_an_image_that_becomes_another_class_is_not_changed_so() -> None:
    decided, why = settle(OF_SIDES)
    assert (decided.horizontal_flip, decided.rotation) == (False, 10)
    knows = "the head knows 100.0% of 40 validation images"
    assert why == {
        "train.augment.horizontal_flip": f"false: {knows}, mirrored 0.0%, of one class 100% fewer",
        "train.augment.rotation": f"10: {knows}, turned 35.0%, of one class 65% fewer",
    }


def test_one_that_stays_in_its_class_is() -> None:
    assert settle(OF_ENDS)[0].horizontal_flip is True
    assert settle(OF_ENDS)[0].rotation == 10


def test_one_that_is_the_same_however_it_is_turned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The images of one class are brighter, in all places alike."""
    read = Images.read

    def all_alike(self: Images, split: str, batch: int, count: int | None = None) -> Any:
        found = read(self, split, batch, count)
        found.batch["image"][:] = np.where(found.batch["label"] == 0, 200, 100)[:, None, None, None]
        return found

    monkeypatch.setattr(Images, "read", all_alike)
    bright = head(np.array([[1.0, 0.0]] * 4))
    decided, why = settle(dataclasses.replace(bright, weights=[bright.weights[0], np.array([-600.0, 0.0])]))
    assert (decided.horizontal_flip, decided.rotation) == (True, 180)
    assert why["train.augment.rotation"].endswith("100.0% of 40 validation images, turned 100.0%")


def test_a_head_that_knows_nothing_is_not_asked() -> None:
    decided, why = settle(OF_NOTHING)
    assert (decided.horizontal_flip, decided.rotation) == (False, 10)
    assert why["train.augment.rotation"].endswith("50.0% of 40 validation images, 50.0% are of one class")


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
    decided, why = settle(head(kernel), 200, horizontal_flip="auto")
    assert decided.horizontal_flip is False
    assert next(iter(why.values())).endswith(", of one class 100% fewer")


def test_what_can_not_be_told_is_not_changed() -> None:
    assert settle(OF_ENDS, FEWEST)[0].horizontal_flip is True
    decided, _ = settle(OF_ENDS, FEWEST - 1)
    assert (decided.horizontal_flip, decided.rotation) == (False, 10)
    decided, why = settle(None)
    assert (decided.horizontal_flip, decided.rotation) == (False, 10)
    assert set(why.values()) == {"false: no head to ask", "10: no head to ask"}


def test_the_rest_does_not_depend_on_the_images() -> None:
    decided, why = settle(None, **dict.fromkeys(OTHERS, "auto"))
    assert {name: getattr(decided, name) for name in OTHERS} == OTHERS
    assert set(why) == {f"train.augment.{name}" for name in OTHERS}


@pytest.mark.parametrize("value", [True, False])
def test_a_value_is_obeyed(value: bool) -> None:
    decided, why = settle(OF_SIDES, horizontal_flip=value, rotation=33)
    assert (decided.horizontal_flip, decided.rotation, why) == (value, 33, {})
