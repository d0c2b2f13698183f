"""Whether an image that is mirrored stays in its class: a cat does, a digit becomes another sign.

The head is asked, which has seen none mirrored.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tasks.core.base.arrays import Array
from tasks.core.training.dataset import Dataset
from tasks.core.training.devices import Hardware
from tasks.core.training.effort import Recipe
from tasks.core.training.head import Head

BATCH = 64
FEWEST, MOST = 30, 200  # validation images that are looked at
MAX_LOST_OF_CLASS = 0.34  # of one class's accuracy: signs for left and right are few of all signs
OF_CLASS = 5  # images of a class from which on it is looked at by itself
MAX_LOST = 0.03  # of the accuracy; half of the training images are mirrored, so it must be all but nothing


def settle_flip(
    recipe: Recipe, head: Head | None, extract: Callable[[Array], Any], data: Dataset, hardware: Hardware
) -> tuple[Recipe, dict[str, str]]:
    """Decides `train.augment.horizontal_flip` where it is auto.

    Args:
        extract: from images, uint8 (n, h, w, 3), to features.

    Returns:
        The parameters, and what decided it.
    """
    if recipe.augment.horizontal_flip != "auto" or not recipe.goes_on:
        return recipe, {}
    count = min(data.size("validation"), MOST)
    if head is None or count < FEWEST:
        decided, why = False, "no head to ask" if head is None else f"{count} validation images are too few"
    else:
        plain, mirrored, lost = hardware.mean([_ask(head, extract, data, count)])[0]
        decided = bool(plain - mirrored <= MAX_LOST and lost <= MAX_LOST_OF_CLASS)
        why = f"the head knows {plain:.1%} of {count} validation images, and mirrored {mirrored:.1%}"
        if lost > MAX_LOST_OF_CLASS:
            why += f", of one class {lost:.0%} fewer"
    augment = replace(recipe.augment, horizontal_flip=decided)
    return replace(recipe, augment=augment), {
        "train.augment.horizontal_flip": f"{str(decided).lower()}: {why}"
    }


def _ask(head: Head, extract: Callable[[Array], Any], data: Dataset, count: int) -> Array:
    """Of the head on validation images: accuracy, that on mirrored ones, and what a class loses at most."""
    kernel, bias = head.weights
    hits, labels = [], []
    for batch in data.read("validation", BATCH, count).as_numpy_iterator():
        each = []
        for images in (batch["image"], batch["image"][:, :, ::-1]):
            features = np.asarray(extract(images))[:, : len(kernel)]
            each.append((features @ kernel + bias).argmax(axis=1) == batch["label"])
        hits.append(np.stack(each))
        labels.append(batch["label"])
    plain, mirrored = np.concatenate(hits, axis=1)
    classes = np.concatenate(labels)
    counts = np.bincount(classes)
    losses = np.bincount(classes, weights=plain.astype(float) - mirrored) / np.maximum(counts, 1)
    return np.array([plain.mean(), mirrored.mean(), losses[counts >= OF_CLASS].max(initial=0.0)])
