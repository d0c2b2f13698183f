"""Fits the classifier: a head on frozen features first, then fine-tuning of the backbone from there.

An interrupted training resumes after its last finished epoch, and ends with the weights of an unbroken one.
"""

from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from dvclive.live import Live

from tasks.core.backbones import store
from tasks.core.backbones.config import Features as Kind
from tasks.core.backbones.config import Model
from tasks.core.backbones.layer import backbone_layer, extractor
from tasks.core.backbones.scaling import Scaling
from tasks.core.backbones.tensorflow_setup import keras
from tasks.core.base import console
from tasks.core.base.errors import BackboneError, ParamError
from tasks.core.base.files import fingerprint, sha256
from tasks.core.base.paths import DATASET_FACTS
from tasks.core.training import callbacks, checkpoint, classifier, effort, feature_cache, symmetry
from tasks.core.training import recipe as recipes
from tasks.core.training.batches import Batches, class_weights
from tasks.core.training.callbacks import Log, is_finite
from tasks.core.training.checkpoint import Backup, Row
from tasks.core.training.config import ClassWeight, Recipe, Train
from tasks.core.training.dataset import Dataset
from tasks.core.training.devices import Hardware
from tasks.core.training.fine_tuning import fine_tune, loss
from tasks.core.training.head import LAYERS, UNCHOSEN_L2, Head, fit_best, kinds_to_try

IMBALANCED = 2  # images of the largest class for each of the smallest, from which on rare ones may count more
PACKAGES = ("tensorflow", "tf-keras", "tensorflow-hub")


@dataclass(frozen=True)
class Fitted:
    """A trained classifier, its history, what it was trained on and with, and the backup to forget."""

    model: Any
    recipe: Recipe
    best_epoch: Row
    log: Log
    facts: dict[str, Any]
    backup: Backup


def fit(
    data: Dataset,
    asked: Train,
    model_params: Model,
    hardware: Hardware,
    live_folder: Path,
    logs: Path | None = None,
) -> Fitted:
    """Fits a classifier in both phases.

    Args:
        asked: what of it is `auto` is decided here.
        live_folder: gets the metrics as they come, for DVC's plots.
        logs: gets TensorBoard's logs.

    Raises:
        BackboneError: the backbone can't be fetched or loaded, is not the one that was pinned, or gives no
            numbers.
        ParamError: the devices can't share a batch, or the loss became no number.
    """
    _check_batch_size(asked, hardware)
    name = model_params.backbone
    console.say(f"train: {name} on {hardware.line()}")
    keras.utils.set_random_seed(asked.seed)
    found = store.facts(name, model_params.sha256)
    work = effort.work(data, name, found)
    recipe, chosen = recipes.settle(asked, work, hardware.replicas)
    versions = {each: version(each) for each in PACKAGES}
    facts: dict[str, Any] = {"backbone": name, "backbone_sha256": found.sha256, "versions": versions}
    kinds = kinds_to_try(model_params, found, fits_head=recipe.head)
    source = fingerprint([facts, kinds, hardware.devices, hardware.precision, hardware.deterministic])
    # Else the backbone runs as it does in use.
    stochastic = found.is_stochastic and recipe.fine_tune and recipe.batch_norm == "batch"
    with hardware.strategy.scope():
        backbone = backbone_layer(
            name,
            trainable=recipe.fine_tune,
            sha256=model_params.sha256,
            inner="inner" in kinds,
            draws_by=recipe.seed if stochastic else None,
        )
        models = {
            kind: classifier.network(backbone, len(data.class_names), data.image_size, kind) for kind in kinds
        }
    facts["dataset"] = sha256(data.folder / DATASET_FACTS)
    settings = [source, facts["dataset"], asdict(recipe), asdict(model_params)]
    backup = Backup(checkpoint.place([*settings, hardware.replicas, hardware.jit]))
    extract, head = extractor(backbone), None
    with Live(str(live_folder), save_dvc_exp=False, dvcyaml=None, report=None) as live:
        log = Log(live)
        if recipe.head:
            head = fit_head(extract, models, data, recipe, model_params, hardware, source)
            log.add(head.row)
        recipe, by_head = ask_head(head, recipe, model_params, extract, data, hardware)
        chosen |= by_head
        for parameter, why in chosen.items():
            console.say(f"train: {parameter} {why}")
        kind = head.features if head else kinds[-1]
        l2 = head.l2 if head else UNCHOSEN_L2 if model_params.l2 == "auto" else model_params.l2
        facts |= {"features": kind, "l2": l2, "auto": data.auto | chosen}
        model, better = models[kind], None
        layer = model.get_layer("head")
        if head:
            layer.set_weights(hardware.mean(head.weights))
        if recipe.goes_on:
            console.say(f"train: {effort.announce(recipe, work, head.seconds if head else None)}")
            others: list[Any] = [callbacks.reset_seed(recipe.seed)] if stochastic else []
            if logs and hardware.chief:
                others.append(_tensorboard(logs, backup))
            batches = Batches(data, recipe, model_params.dropout, layer.input_shape[1])
            scaling = head.scaling.reduce() if head else Scaling.none(batches.width)
            with hardware.strategy.scope():
                whole = classifier.in_training(
                    model,
                    kind,
                    scaling,
                    l2,
                    frozen_statistics=recipe.batch_norm == "frozen",
                    unfreeze=recipe.unfreeze,
                )
                better = fine_tune(whole, batches, hardware, log, backup, others)
            if better:
                layer.set_weights(scaling.fold(*whole.get_layer("head").get_weights()))
    best_epoch = better or (head.row if head else None)
    if best_epoch is None or not is_finite(best_epoch):
        raise ParamError(
            f"train.learning_rate is {recipe.learning_rate}, too much: the loss became no number"
        )
    return Fitted(model, recipe, best_epoch, log, facts, backup)


def _tensorboard(logs: Path, backup: Backup) -> Any:
    """Its logs, in a folder for each training."""
    return keras.callbacks.TensorBoard(str(logs / backup.file.name[:12]), write_graph=False)


def _check_batch_size(params: Train, hardware: Hardware) -> None:
    if params.batch_size != "auto" and params.batch_size % hardware.replicas:
        raise ParamError(
            f"train.batch_size is {params.batch_size}; {hardware.replicas} devices share each batch, "
            f"so make it a multiple of {hardware.replicas}"
        )


def fit_head(
    extract: Any,
    models: dict[Kind, Any],
    data: Dataset,
    params: Train,
    model_params: Model,
    hardware: Hardware,
    source: str,
) -> Head:
    """Fits a head to frozen features, of the kind that predicts best.

    Args:
        extract: from images, uint8 (n, h, w, 3), to features.
        models: a classifier on each kind of these.
        source: says what, besides the images, the features depend on.

    Raises:
        BackboneError: the features are no numbers.
    """
    train = feature_cache.of_split(extract, data, "train", source)
    validation = feature_cache.of_split(extract, data, "validation", source)
    if not (np.isfinite(train.values).all() and np.isfinite(validation.values).all()):
        raise BackboneError(
            f"model.backbone: {model_params.backbone} gives features that are no numbers in "
            f"{hardware.precision}; try compute.precision: float32, or another backbone"
        )
    widths = {kind: model.get_layer("head").input_shape[1] for kind, model in models.items()}
    weights = {name: class_weights(data, name) for name in weightings(data, params)}
    head = fit_best(train, validation, widths, weights, model_params.l2, loss(params))
    console.say(
        f"train: head on {widths[head.features]} features of {LAYERS[head.features]}, l2 {head.l2:.2g}, "
        f"validation loss {head.row['val_loss']:.4f}, accuracy {head.row['val_accuracy']:.4f}"
    )
    return head


def ask_head(
    head: Head | None, recipe: Recipe, model: Model, extract: Any, data: Dataset, hardware: Hardware
) -> tuple[Recipe, dict[str, str]]:
    """Decides what the head has to be asked for; where there is none, by a stated rule.

    Returns:
        The parameters, and what decided those that were `auto`.
    """
    why = head.auto(model, recipe.class_weight) if head else {}
    class_weight = head.class_weight if head else weightings(data, recipe)[0]
    recipe, symmetries = symmetry.settle(recipe, head, extract, data, hardware)
    return replace(recipe, class_weight=class_weight), why | symmetries


def weightings(data: Dataset, params: Train) -> list[ClassWeight]:
    """The class weights that the images choose from; where there is one, it is that which is taken."""
    if params.class_weight != "auto":
        return [params.class_weight]
    counts = list(filter(None, data.counts["train"].values()))
    unlike = max(counts) >= IMBALANCED * min(counts) and min(counts) > 1
    return ["none", "root", "balanced"] if unlike else ["none"]


def describe(row: Row) -> str:
    return f"{row['epoch']}: validation loss {row['val_loss']:.4f}, accuracy {row['val_accuracy']:.4f}"
