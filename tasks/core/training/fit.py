"""Fits the classifier: a head on frozen features, and fine-tuning from there.

An interrupted training resumes after its last finished epoch, and ends with the weights of an unbroken one.
"""

from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dvclive.live import Live

from tasks.core.backbones import store
from tasks.core.backbones.config import Model
from tasks.core.backbones.layer import backbone_layer, extractor
from tasks.core.backbones.tensorflow_setup import keras
from tasks.core.base import console
from tasks.core.base.errors import ParamError
from tasks.core.base.files import fingerprint, sha256
from tasks.core.base.paths import DATASET_FACTS
from tasks.core.training import callbacks, checkpoint, classifier, effort
from tasks.core.training import recipe as recipes
from tasks.core.training.callbacks import Log, is_finite
from tasks.core.training.checkpoint import Backup, Row
from tasks.core.training.config import Recipe, Train
from tasks.core.training.dataset import Dataset
from tasks.core.training.devices import Hardware
from tasks.core.training.fine_tuning import Record
from tasks.core.training.head import UNCHOSEN_L2, kinds_to_try
from tasks.core.training.trainer import Trainer

PACKAGES = ("tensorflow", "tf-keras", "tensorflow-hub")


@dataclass(frozen=True)
class Fitted:
    """A trained classifier, its history, what it was trained on and with, and the backup to forget.

    label_errors: training images that were left out, for their labels are wrong by all appearances.
    """

    model: Any
    recipe: Recipe
    best_epoch: Row
    log: Log
    facts: dict[str, Any]
    label_errors: list[dict[str, Any]]
    backup: Backup


def fit(
    data: Dataset,
    asked: Train,
    model_params: Model,
    hardware: Hardware,
    live_folder: Path,
    logs: Path | None = None,
) -> Fitted:
    """Fits a classifier.

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
    work = effort.work(name, found, data.image_size, data.counts["train"].values(), data.size("validation"))
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
    trainer = Trainer(data, model_params, hardware, extractor(backbone), recipe)
    with Live(str(live_folder), save_dvc_exp=False, dvcyaml=None, report=None) as live:
        log, head = Log(live), None
        if recipe.head:
            head = trainer.fit_head(models, source)
            log.add(head.row)
        trainer, by_head = trainer.ask_head(head)
        chosen |= by_head
        for parameter, why in chosen.items():
            console.say(f"train: {parameter} {why}")
        kind = head.features if head else kinds[-1]
        l2 = head.l2 if head else UNCHOSEN_L2 if model_params.l2 == "auto" else model_params.l2
        facts |= {"features": kind, "l2": l2, "auto": data.auto | chosen}
        model, better, errors = models[kind], None, trainer.label_errors(head)
        if head:
            model.get_layer("head").set_weights(hardware.mean(head.weights))
        if recipe.goes_on:
            console.say(f"train: {effort.announce(recipe, work, head.seconds if head else None)}")
            others: list[Any] = [callbacks.reset_seed(recipe.seed)] if stochastic else []
            if logs and hardware.chief:
                others.append(_tensorboard(logs, backup))
            left_out = {error["path"]: error["label"] for error in errors}
            better = trainer.go_on(model, head, kind, l2, Record(log, backup, others), left_out)
    best_epoch = better or (head.row if head else None)
    if best_epoch is None or not is_finite(best_epoch):
        raise ParamError(
            f"train.learning_rate is {recipe.learning_rate}, too much: the loss became no number"
        )
    return Fitted(model, trainer.recipe, best_epoch, log, facts, errors, backup)


def _tensorboard(logs: Path, backup: Backup) -> Any:
    """Its logs, in a folder for each training."""
    return keras.callbacks.TensorBoard(str(logs / backup.file.name[:12]), write_graph=False)


def _check_batch_size(params: Train, hardware: Hardware) -> None:
    if params.batch_size != "auto" and params.batch_size % hardware.replicas:
        raise ParamError(
            f"train.batch_size is {params.batch_size}; {hardware.replicas} devices share each batch, "
            f"so make it a multiple of {hardware.replicas}"
        )


def describe(row: Row) -> str:
    return f"{row['epoch']}: validation loss {row['val_loss']:.4f}, accuracy {row['val_accuracy']:.4f}"
