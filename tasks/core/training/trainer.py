"""The steps of a training: the head, what it is asked, fine-tuning, and the head once more."""

from dataclasses import dataclass, replace
from typing import Any, Self, get_args

import numpy as np

from tasks.core.backbones.config import Features as Kind
from tasks.core.backbones.config import Model
from tasks.core.backbones.scaling import Scaling
from tasks.core.base import console
from tasks.core.base.errors import BackboneError
from tasks.core.training import classifier, feature_cache, symmetry
from tasks.core.training.batches import Batches, class_weights
from tasks.core.training.callbacks import NUMBERS
from tasks.core.training.checkpoint import Row
from tasks.core.training.config import ClassWeight, Recipe
from tasks.core.training.dataset import Dataset
from tasks.core.training.devices import Hardware
from tasks.core.training.fine_tuning import Record, fine_tune, loss
from tasks.core.training.head import LAYERS, Head, fit_best, refit

IMBALANCED = 2  # images of the largest class for each of the smallest, from which on rare ones may count more


@dataclass(frozen=True)
class Trainer:
    """What the steps share.

    extract: from images, uint8 (n, h, w, 3), to the features that the backbone gives by then.
    """

    data: Dataset
    params: Model
    hardware: Hardware
    extract: Any
    recipe: Recipe

    def fit_head(self, models: dict[Kind, Any], source: str) -> Head:
        """Fits a head to the features of the backbone as it came, of the kind that predicts best.

        Args:
            models: a classifier on each kind of these.
            source: says what, besides the images, the features depend on.

        Raises:
            BackboneError: the features are no numbers.
        """
        train, validation = (
            feature_cache.of_split(self.extract, self.data, split, source)
            for split in ("train", "validation")
        )
        if not (train.is_finite and validation.is_finite):
            raise BackboneError(
                f"model.backbone: {self.params.backbone} gives features that are no numbers in "
                f"{self.hardware.precision}; try compute.precision: float32, or another backbone"
            )
        widths = {kind: model.get_layer("head").input_shape[1] for kind, model in models.items()}
        weights = {name: class_weights(self.data, name) for name in self._weightings()}
        head = self._agree(fit_best(train, validation, widths, weights, self.params.l2, loss(self.recipe)))
        console.say(
            f"train: head on {widths[head.features]} features of {LAYERS[head.features]}, l2 {head.l2:.2g}, "
            f"validation loss {head.row['val_loss']:.4f}, accuracy {head.row['val_accuracy']:.4f}"
        )
        return head

    def _agree(self, head: Head) -> Head:
        """Has all workers take the same class weights, whatever the last digits of their features are."""
        names = get_args(ClassWeight)
        (place,) = self.hardware.mean([np.array(float(names.index(head.class_weight)))])
        return replace(head, class_weight=names[round(float(place))])

    def _weightings(self) -> list[ClassWeight]:
        """The class weights that the images choose from, or the one that is taken."""
        if self.recipe.class_weight != "auto":
            return [self.recipe.class_weight]
        counts = list(filter(None, self.data.counts["train"].values()))
        unlike = max(counts) >= IMBALANCED * min(counts) and min(counts) > 1
        return ["none", "root", "balanced"] if unlike else ["none"]

    def ask_head(self, head: Head | None) -> tuple[Self, dict[str, str]]:
        """Decides what the head has to be asked for; where there is none, by a stated rule.

        Returns:
            The trainer by these parameters, and what decided those that were `auto`.
        """
        why = head.auto(self.params, self.recipe.class_weight) if head else {}
        class_weight = head.class_weight if head else self._weightings()[0]
        if self.recipe.class_weight == "auto" and not head:
            why = {"train.class_weight": f"{class_weight}: no head to ask"}
        recipe, by_images = symmetry.settle(self.recipe, head, self.extract, self.data, self.hardware)
        return replace(self, recipe=replace(recipe, class_weight=class_weight)), why | by_images

    def go_on(self, model: Any, head: Head | None, kind: Kind, l2: float, record: Record) -> Row | None:
        """Trains the classifier further, from the head if there is one.

        Args:
            kind, l2: of the features, and the head's penalty.

        Returns:
            The row of the epoch that is taken. None, and the weights are as they were, if it is no better
            than the head.
        """
        layer, recipe = model.get_layer("head"), self.recipe
        batches = Batches(self.data, recipe, self.params.dropout, layer.input_shape[1])
        scaling = head.scaling.reduce() if head else Scaling.none(batches.width)
        with self.hardware.strategy.scope():
            whole = classifier.in_training(
                model,
                kind,
                scaling,
                l2,
                frozen_statistics=recipe.batch_norm == "frozen",
                unfreeze=recipe.unfreeze,
            )
            before = whole.get_weights()
            better = fine_tune(whole, batches, self.hardware, record)
        if better and head and recipe.refits:
            better = self._refit(layer, head, better)
        elif better:
            layer.set_weights(scaling.fold(*whole.get_layer("head").get_weights()))
        if not better:
            whole.set_weights(before)
        return better

    def _refit(self, layer: Any, head: Head, epoch: Row) -> Row | None:
        """Fits a head to what the backbone has become, and takes it if it is better than the first.

        Args:
            layer: gets its weights.
            epoch: the row of that whose weights the backbone has.
        """
        train = feature_cache.compute(self.extract, self.data, "train")
        validation = feature_cache.compute(self.extract, self.data, "validation")
        if not (train.is_finite and validation.is_finite):
            console.say(
                "train: the fine-tuned backbone gives no numbers: the first head is kept, and it as it came"
            )
            return None
        weights = class_weights(self.data, head.class_weight)
        found = refit(head, train, validation, weights, loss(self.recipe))
        losses = np.array([found.row["val_loss"], head.row["val_loss"]])
        *values, (now, was) = self.hardware.mean([*found.weights, losses])
        said = f"train: a head on the fine-tuned backbone has validation loss {now:.4f}, the first {was:.4f}"
        if not now < was:
            console.say(f"{said}: the first is kept, on the backbone as it came")
            return None
        console.say(said)
        layer.set_weights(values)
        measured = {name: found.row[name] for name in NUMBERS}
        return epoch | measured | {"refit": True}
