"""The steps of a training: the head, what it is asked, and fine-tuning, in which it is fitted anew."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self, get_args

import numpy as np

from tasks.core.backbones.config import Features as Kind
from tasks.core.backbones.config import Model
from tasks.core.backbones.scaling import Scaling
from tasks.core.base import console
from tasks.core.base.errors import BackboneError
from tasks.core.training import classifier, feature_cache, symmetry
from tasks.core.training.batches import Batches
from tasks.core.training.callbacks import NUMBERS, VAL_LOSS_ERROR, FitHeadAnew
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
        if not (train.are_numbers and validation.are_numbers):
            raise BackboneError(
                f"model.backbone: {self.params.backbone} gives features that are no numbers in "
                f"{self.hardware.precision}; try compute.precision: float32, or another backbone"
            )
        widths = {kind: model.get_layer("head").input_shape[1] for kind, model in models.items()}
        ways = self._weightings(), self.params.l2, loss(self.recipe), self.recipe.wrong_labels
        head = self._agree(fit_best(train, validation, widths, len(self.data.class_names), *ways))
        console.say(
            f"train: head on {widths[head.features]} features of {LAYERS[head.features]}, l2 {head.l2:.2g}, "
            f"validation loss {head.row['val_loss']:.4f}, accuracy {head.row['val_accuracy']:.4f}"
        )
        return head

    def _agree(self, head: Head) -> Head:
        """Has all workers take the same class weights and images, whatever their features' last digits."""
        names = get_args(ClassWeight)
        place = np.array(float(names.index(head.class_weight)))
        wrong = [head.noise.wrong.astype(float)] if head.noise else []  # by all workers, or by none
        place, *wrong = self.hardware.mean([place, *wrong])
        noise = head.noise and replace(head.noise, wrong=wrong[0] > 0.5)
        return replace(head, class_weight=names[round(float(place))], noise=noise)

    def label_errors(self, head: Head | None) -> list[dict[str, Any]]:
        """The training images that are left out for their labels, as rows of `reports/label_errors.json`."""
        if not (head and head.noise and head.noise.wrong.any()):
            return []
        noise, names = head.noise, np.array(self.data.class_names)
        table = self.data.index("train")
        table["label"], table["suggested"] = names[table["label"]], names[noise.suggested]
        table["self_confidence"], table["split"] = noise.confidence.round(6), "train"
        found: list[dict[str, Any]] = (
            table[noise.wrong].sort_values(["self_confidence", "path"]).to_dict("records")  # type: ignore[assignment]
        )
        return found

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
        why = head.auto(self.params, self.recipe) if head else {}
        class_weight = head.class_weight if head else self._weightings()[0]
        if self.recipe.class_weight == "auto" and not head:
            why = {"train.class_weight": f"{class_weight}: no head to ask"}
        if self.recipe.wrong_labels == "auto" and not head:
            why["train.wrong_labels"] = "keep: no head to ask"
        recipe, by_images = symmetry.settle(self.recipe, head, self.extract, self.data, self.hardware)
        return replace(self, recipe=replace(recipe, class_weight=class_weight)), why | by_images

    def go_on(
        self,
        model: Any,
        head: Head | None,
        kind: Kind,
        l2: float,
        record: Record,
        left_out: dict[str, str],
    ) -> Row | None:
        """Trains the classifier further, from the head if there is one.

        Args:
            kind, l2: of the features, and the head's penalty.
            left_out: paths of images that are not trained on, with their classes.

        Returns:
            The row of the epoch that is taken. None, and the weights are as they were, if the head is.
        """
        layer, recipe = model.get_layer("head"), self.recipe
        batches = Batches(self.data, recipe, self.params.dropout, layer.input_shape[1], left_out)
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
            anew = None
            if head and recipe.refits:
                (limit,) = self.hardware.mean([np.array(head.row["val_loss"])])
                anew = FitHeadAnew(partial(self._refit, head, scaling), float(limit))
            better = fine_tune(whole, batches, self.hardware, record, anew)
        if better:
            layer.set_weights(scaling.fold(*whole.get_layer("head").get_weights()))
        else:
            whole.set_weights(before)
        return better

    def _refit(self, head: Head, scaling: Scaling, whole: Any) -> dict[str, float]:
        """Gives a classifier in training a head that is fitted to what its backbone has become.

        Args:
            head: the first, whose penalty and class weights it has.
            scaling: of the features that the classifier's head sees.

        Returns:
            `NUMBERS`, and the standard error of how much the validation loss differs from the first head's.
            NaN where the backbone gives no numbers.
        """
        # In a thread of its own: Keras' loop is in the scope of the strategy, where the extractor can't run.
        with ThreadPoolExecutor(1) as outside:
            compute = partial(feature_cache.compute, self.extract, self.data)
            train, validation = outside.map(compute, ("train", "validation"))
        names, measured = (*NUMBERS, VAL_LOSS_ERROR), np.full(len(NUMBERS) + 1, np.nan)
        weights = head.weights
        if train.are_numbers and validation.are_numbers:
            found = refit(head, train, validation, loss(self.recipe))
            error = (found.losses - head.losses).std() / np.sqrt(len(head.losses))
            weights, measured = found.weights, np.array([*(found.row[name] for name in NUMBERS), error])
        *weights, measured = self.hardware.mean([*weights, measured])  # by all workers, or they would wait
        whole.get_layer("head").set_weights(scaling.unfold(*weights))
        return dict(zip(names, map(float, measured), strict=True))
