"""How much work a training may take, and what of it fits.

Work is counted in passes: one is what a frozen backbone takes to see every training image once, at the size
that it is made for. So the outcome doesn't depend on how fast a machine is.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.core.backbones import catalogue
from tasks.core.backbones.store import Facts
from tasks.core.training.config import Effort, Recipe, Train

MANY = 2000  # training images that are enough for all of a backbone's variables, where classes are even
VERY_MANY = 20_000  # and of which MORE_EPOCHS come to a lower loss, beyond what chance explains
MORE_EPOCHS = 5
# What an epoch takes, in passes, by the share of the backbone's variables that train: 32 images of 64
# pixels took 57 ms forward alone, and 90, 152, 191 and 276 ms with gradients.
STEPS = ((0.0, 0.25, 0.5, 1.0), (1.6, 2.7, 3.35, 4.8))


@dataclass(frozen=True)
class Limits:
    """What an effort allows: passes in all, and of fine-tuning epochs and the share of variables.

    unfreeze: where images are not many.
    """

    passes: float
    epochs: int
    unfreeze: float


LIMITS: dict[Effort, Limits] = {
    "quick": Limits(1.5, 0, 0.0),
    "standard": Limits(12, 3, 0.4),
    "thorough": Limits(40, 8, 1.0),
}


@dataclass(frozen=True)
class Work:
    """What each part of a training takes, in passes.

    scale: of an image as it is fed, beside one of the backbone's own size.
    validation: images for each that trains.
    even_images: that train, if each class had as few as the smallest.
    """

    scale: float
    validation: float
    even_images: int

    @property
    def head(self) -> float:
        """Features of all images."""
        return self.scale * (1 + self.validation)

    def epoch(self, unfreeze: float, *, refits: bool) -> float:
        """An epoch of fine-tuning, and validation; where the head is fitted anew, features of all images."""
        after = self.head if refits else self.scale * self.validation
        return self.scale * float(np.interp(unfreeze, *STEPS)) + after

    def training(self, recipe: Recipe) -> float:
        """The head, and what comes after it."""
        return self.head * recipe.head + (self.fine_tuning(recipe) if recipe.goes_on else 0)

    def fine_tuning(self, recipe: Recipe) -> float:
        unfreeze = recipe.unfreeze if recipe.fine_tune else 0
        return recipe.epochs * self.epoch(unfreeze, refits=recipe.refits)


def work(backbone: str, found: Facts, image_size: int, train: Collection[int], validation: int) -> Work:
    """What the parts of a training take on images of a size.

    Args:
        train: images of each class that train.
        validation: images in all.
    """
    row = catalogue.entry(backbone)
    own = found.image_size or (row.size if row else image_size)
    return Work((image_size / own) ** 2, validation / sum(train), min(train) * len(train))


def settle(params: Train, work: Work) -> tuple[dict[str, Any], dict[str, str]]:
    """Decides how much is fine-tuned, and for how long: as much as the effort allows.

    All of the backbone where images of each class are many, which hold more variables, and all epochs fit so.

    Returns:
        `fine_tune`, `unfreeze` and `epochs`, and of those that were `auto` what decided them.
    """
    limits = LIMITS[params.effort]
    fine_tune = limits.epochs > 0 if params.fine_tune == "auto" else params.fine_tune
    first = work.head * params.head

    def passes(share: float) -> float:
        """Of an epoch in which so much of the backbone trains."""
        refits = params.refit and params.head and fine_tune
        return work.epoch(share if fine_tune else 0, refits=bool(refits))

    why = {}
    unfreeze = limits.unfreeze if params.unfreeze == "auto" else params.unfreeze
    wanted = limits.epochs if params.epochs == "auto" else params.epochs
    more = MORE_EPOCHS if limits.epochs and work.even_images >= VERY_MANY else 0
    fit_all = first + wanted * passes(1.0) <= limits.passes
    if params.unfreeze == "auto" and limits.unfreeze > 0 and work.even_images >= MANY and fit_all:
        unfreeze = 1.0
    if params.epochs == "auto" and params.fine_tune is False and not params.augment.changes:
        epochs = 0
    elif params.epochs == "auto":
        epoch = passes(unfreeze)
        least = 1 if params.fine_tune is True or not params.head else 0
        epochs = max(least, min(int((limits.passes - first) / epoch), max(limits.epochs, more)))
        of = f"an epoch takes {epoch:.2g} passes, the first head {first:.2g}"
        why["train.epochs"] = f"{epochs}: {of}, and train.effort {params.effort} allows {limits.passes:g}"
    else:
        epochs = params.epochs
    if params.fine_tune == "auto":
        fine_tune = fine_tune and epochs > 0
        why["train.fine_tune"] = f"{str(fine_tune).lower()}: train.effort {params.effort}"
    if params.unfreeze == "auto" and fine_tune:
        images = f"{work.even_images:,} images, were classes as small as the smallest"
        why["train.unfreeze"] = f"{unfreeze:g}: train.effort {params.effort}, for {images}"
    return {"fine_tune": fine_tune, "unfreeze": unfreeze, "epochs": epochs}, why


def announce(recipe: Recipe, work: Work, seconds: float | None) -> str:
    """Says how much work fine-tuning is, and about how long it takes here.

    Args:
        seconds: that the backbone took for the features of all training images, if that is known.
    """
    passes = work.fine_tuning(recipe)
    said = f"{recipe.epochs} epochs at most, the work of {passes:.2g} passes"
    if seconds is None:
        return said
    about = seconds * passes / work.scale
    return f"{said}, about {f'{about:.0f} s' if about < 100 else f'{about / 60:.0f} min'} here"
