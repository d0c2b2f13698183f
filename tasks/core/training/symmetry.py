"""Whether an image that is mirrored or turned stays in its class: a cat does mirrored, a cell turned as well.

The head is asked, which has seen neither.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from tasks.core.base.arrays import Array
from tasks.core.training.config import Recipe
from tasks.core.training.dataset import Dataset
from tasks.core.training.devices import Hardware
from tasks.core.training.head import Head

BATCH = 64
FEWEST, MOST = 30, 200  # validation images that are looked at
MIN_KNOWN = 0.2  # of what the most frequent class leaves, for the head to be asked at all
MAX_LOST = 0.03  # of the accuracy; half of the training images are changed, so it must be all but nothing
MAX_LOST_OF_CLASS = 0.34  # of one class's accuracy: signs for left and right are few of all signs
OF_CLASS = 5  # images of a class from which on it is looked at by itself


def _mirror(images: Array) -> Array:
    return images[:, :, ::-1]


def _turn(images: Array) -> Array:
    """By 90, 180 and 270 degrees in turn."""
    return np.stack([np.rot90(image, 1 + place % 3) for place, image in enumerate(images)])


@dataclass(frozen=True)
class Symmetry:
    """A change after which an image may be the same to its class.

    parameter: of `train.augment`. words: what the images are called. change: of images, (n, side, side, 3).
    value, other: of the parameter, where it is a symmetry and where it isn't, or where that isn't known.
    """

    parameter: str
    words: str
    change: Callable[[Array], Array]
    value: bool | float
    other: bool | float


SYMMETRIES = (
    Symmetry("horizontal_flip", "mirrored", _mirror, value=True, other=False),
    Symmetry("rotation", "turned", _turn, value=180, other=10),
)
OTHERS = {"translation": 0.1, "zoom": 0.1, "crop": 0.0, "brightness": 0.0, "contrast": 0.0}


def settle(
    recipe: Recipe, head: Head | None, extract: Callable[[Array], Any], data: Dataset, hardware: Hardware
) -> tuple[Recipe, dict[str, str]]:
    """Decides what of `train.augment` is auto.

    Args:
        extract: from images, uint8 (n, h, w, 3), to features.

    Returns:
        The parameters, and what decided them.
    """
    undecided = {name for name, value in asdict(recipe.augment).items() if value == "auto"}
    if not (undecided and recipe.goes_on):
        return recipe, {}
    found: dict[str, Any] = {name: (value, "whatever the images are") for name, value in OTHERS.items()}
    found |= _settle_symmetries(
        [one for one in SYMMETRIES if one.parameter in undecided], head, extract, data, hardware
    )
    augment = replace(recipe.augment, **{name: found[name][0] for name in undecided})
    why = {f"train.augment.{name}": f"{_say(found[name][0])}: {found[name][1]}" for name in sorted(undecided)}
    return replace(recipe, augment=augment), why


def _settle_symmetries(
    asked: list[Symmetry], head: Head | None, extract: Any, data: Dataset, hardware: Hardware
) -> dict[str, tuple[bool | float, str]]:
    """Of each the value of its parameter, and what decided it."""
    count = min(data.size("validation"), MOST)
    if head is None or count < FEWEST:
        why = "no head to ask" if head is None else f"{count} validation images are too few"
        return {one.parameter: (one.other, why) for one in asked}
    if not asked:
        return {}
    known = hardware.mean([_ask(head, extract, data, count, [one.change for one in asked])])[0]
    (plain, frequent), found = known[0], {}
    if plain - frequent < MIN_KNOWN * (1 - frequent):
        why = f"the head knows {plain:.1%} of {count} validation images, {frequent:.1%} are of one class"
        return {one.parameter: (one.other, why) for one in asked}
    for one, (accuracy, lost) in zip(asked, known[1:], strict=True):
        why = f"the head knows {plain:.1%} of {count} validation images, {one.words} {accuracy:.1%}"
        if lost > MAX_LOST_OF_CLASS:
            why += f", of one class {lost:.0%} fewer"
        holds = plain - accuracy <= MAX_LOST and lost <= MAX_LOST_OF_CLASS
        found[one.parameter] = (one.value if holds else one.other, why)
    return found


def _say(value: bool | float) -> str:
    """A value as YAML has it."""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"


def _ask(
    head: Head, extract: Any, data: Dataset, count: int, changes: list[Callable[[Array], Array]]
) -> Array:
    """Asks the head what validation images are, as they are and after each change.

    Returns:
        float (1 + changes, 2): the share that is right as they are, and that of the most frequent class;
        after each change the share that is right, and by how much that of one class is lower at most.
    """
    kernel, bias = head.weights
    hits, labels = [], []
    for batch in data.read("validation", BATCH, count).as_numpy_iterator():
        each = []
        for images in (batch["image"], *(change(batch["image"]) for change in changes)):
            features = np.asarray(extract(images))[:, : len(kernel)]
            each.append((features @ kernel + bias).argmax(axis=1) == batch["label"])
        hits.append(np.stack(each))
        labels.append(batch["label"])
    right, classes = np.concatenate(hits, axis=1), np.concatenate(labels)
    counts = np.bincount(classes)
    found = [(right[0].mean(), counts.max() / len(classes))]
    for changed in right[1:]:
        losses = np.bincount(classes, right[0].astype(float) - changed) / np.maximum(counts, 1)
        found.append((changed.mean(), losses[counts >= OF_CLASS].max(initial=0.0)))
    return np.array(found)
