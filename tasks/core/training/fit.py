"""Fits the classifier: a head on frozen features first, then fine-tuning of every weight from there.

An interrupted training resumes after its last finished epoch, and ends with the weights of an unbroken one.
"""

from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from dvclive.live import Live

from tasks.core.backbones import store, tensorflow_setup
from tasks.core.backbones.config import Model
from tasks.core.backbones.tensorflow_setup import AUTOTUNE, keras, tf, without_autotune
from tasks.core.base import console
from tasks.core.base.errors import BackboneError, ParamError
from tasks.core.base.files import fingerprint, sha256
from tasks.core.base.paths import DATASET_FACTS
from tasks.core.training import augmentation, callbacks, checkpoint, classifier, feature_cache
from tasks.core.training.batches import Batches, class_weights
from tasks.core.training.callbacks import BestWeights, EarlyStopping, History, Log, is_finite
from tasks.core.training.checkpoint import Backup, Row, TrainingState
from tasks.core.training.config import Train
from tasks.core.training.dataset import Dataset
from tasks.core.training.devices import Hardware, variables

NOT_DECAYED = ["bias", "beta", "gamma"]


@dataclass(frozen=True)
class Fitted:
    """A trained classifier, its history, what it was trained on and with, and the backup to forget."""

    model: Any
    best_epoch: Row
    log: Log
    facts: dict[str, Any]
    backup: Backup


def fit(
    data: Dataset,
    params: Train,
    model_params: Model,
    hardware: Hardware,
    live_folder: Path,
    logs: Path | None = None,
) -> Fitted:
    """Fits a classifier in both phases.

    Args:
        live_folder: gets the metrics as they come, for DVC's plots.
        logs: gets TensorBoard's logs.

    Raises:
        BackboneError: the backbone can't be fetched or loaded, is not the one that was pinned, or gives no
            numbers.
        ParamError: the devices can't share a batch, there are fewer images than one, or the loss became no
            number.
    """
    _check_batch_size(data, params, hardware)
    name = model_params.backbone
    console.say(f"train: {name} on {hardware.line()}")
    keras.utils.set_random_seed(params.seed)
    found = store.facts(name, model_params.sha256)
    versions = {package: version(package) for package in ("tensorflow", "tf-keras", "tensorflow-hub")}
    facts = {"backbone": name, "backbone_sha256": found.sha256, "versions": versions}
    source = fingerprint([facts, hardware.devices, hardware.precision, hardware.deterministic])
    # Else the backbone runs as it does in use.
    stochastic = found.is_stochastic and params.fine_tune and params.batch_norm == "batch"
    with hardware.strategy.scope():
        backbone = classifier.backbone_layer(
            name,
            trainable=params.fine_tune,
            sha256=model_params.sha256,
            draws_by=params.seed if stochastic else None,
        )
        model = classifier.network(backbone, len(data.class_names), data.image_size, model_params.l2)
    facts["dataset"] = sha256(data.folder / DATASET_FACTS)
    settings = [source, facts["dataset"], asdict(params), asdict(model_params)]
    backup = Backup(checkpoint.place([*settings, hardware.replicas, hardware.jit]))
    weights, dropout = class_weights(data, params), model_params.dropout
    best_epoch = None
    with Live(str(live_folder), save_dvc_exp=False, dvcyaml=None, report=None) as live:
        log = Log(live)
        if params.head_epochs:
            extract = feature_cache.extractor(backbone)
            train = feature_cache.of_split(extract, data, "train", source)
            validation = feature_cache.of_split(extract, data, "validation", source)
            best_epoch = fit_head(model, train, validation, weights, dropout, params, hardware, log)
            if not is_finite(best_epoch):
                raise BackboneError(
                    f"model.backbone: {name} gives features that are no numbers in {hardware.precision}; "
                    "try compute.precision: float32, or another backbone"
                )
            console.say(f"train: head, best of {len(log.rows)} epochs {describe(best_epoch)}")
        if params.fine_tune or params.augment.changes:
            batches = Batches(data, params, dropout, backbone.output_shape[1])
            with hardware.strategy.scope():
                others: list[Any] = [callbacks.reset_seed(params.seed)] if stochastic else []
                if logs and hardware.chief:  # each training separately
                    folder = str(logs / backup.file.name[:12])
                    others.append(keras.callbacks.TensorBoard(folder, write_graph=False))
                best_epoch = fine_tune(model, batches, params, hardware, log, backup, others) or best_epoch
    if best_epoch is None or not is_finite(best_epoch):
        raise ParamError(
            f"train.learning_rate is {params.learning_rate}, too much: the loss became no number"
        )
    return Fitted(model, best_epoch, log, facts, backup)


def _check_batch_size(data: Dataset, params: Train, hardware: Hardware) -> None:
    if params.batch_size % hardware.replicas:
        raise ParamError(
            f"train.batch_size is {params.batch_size}; {hardware.replicas} devices share each batch, "
            f"so make it a multiple of {hardware.replicas}"
        )
    if params.batch_size > data.size("train"):
        raise ParamError(
            f"train.batch_size is {params.batch_size}, but there are {data.size('train')} training images; "
            "make it no more than that"
        )


def fit_head(
    model: Any,
    train: feature_cache.Features,
    validation: feature_cache.Features,
    weights: Any,
    dropout: float,
    params: Train,
    hardware: Hardware,
    log: Log,
) -> Row:
    """Fits the classifier's dense layer, under dropout, to features that don't change.

    Args:
        weights: of the classes, float32 (classes,).
    """
    classes, batch_size = len(weights), params.head.batch_size
    count, width = train.values.shape
    entry, layer = keras.Input((width,)), model.get_layer("head")
    dense = keras.layers.Dense(classes, kernel_regularizer=layer.kernel_regularizer)
    head = keras.Model(entry, dense(entry))
    head.set_weights(layer.get_weights())
    steps = -(-count // batch_size)
    head.compile(
        hardware.optimizer(keras.optimizers.Adam(params.head.learning_rate)),
        loss(params),
        weighted_metrics=["accuracy"],
        steps_per_execution=min(steps, params.head.steps_per_execution),
    )
    values, labels = tf.constant(train.values), tf.one_hot(train.labels, classes)
    held_out = tf.data.Dataset.from_tensors((validation.values, tf.one_hot(validation.labels, classes)))

    def order(epoch: Any) -> Any:
        rows = tf.random.experimental.stateless_shuffle(tf.range(count), [params.seed, epoch])
        number = augmentation.number(params.seed, epoch)
        keys = tf.stack([tf.fill([count], number), tf.cast(rows, tf.int64)], 1)
        return tf.data.Dataset.from_tensor_slices((rows, keys))

    def batch(rows: Any, keys: Any) -> Any:
        dropout_mask = augmentation.dropout_mask([batch_size, width], keys[0], dropout)
        answers = tf.gather(labels, rows)
        return tf.gather(values, rows) * dropout_mask, answers, tf.linalg.matvec(answers, weights)

    stream = tf.data.Dataset.range(2**31).flat_map(order).batch(batch_size, drop_remainder=True)
    history = History("head", log)
    best = BestWeights(history)
    head.fit(
        without_autotune(stream.map(batch, AUTOTUNE).prefetch(AUTOTUNE)),
        epochs=params.head_epochs,
        steps_per_epoch=steps,
        validation_data=without_autotune(held_out),
        callbacks=[history, best, EarlyStopping(history, params.head.patience)],
        verbose=0,
    )
    # Machines that differ fit it a little differently.
    layer.set_weights(hardware.mean(best.weights))
    return history.best


def loss(params: Train) -> Any:
    return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=params.label_smoothing)


def learning_rate(params: Train, steps: int) -> Any:
    """Fine-tuning's rate by step: it rises from zero over the warm-up, then falls along a cosine or stays.

    Args:
        steps: of an epoch.
    """
    warmup, total = round(steps * params.warmup), steps * params.epochs
    lowest = 0.0 if params.schedule == "cosine" else 1.0  # the cosine's end, as a share of its beginning
    return keras.optimizers.schedules.CosineDecay(
        0.0, max(1, total - warmup), lowest, warmup_target=params.learning_rate, warmup_steps=warmup
    )


def optimizer(params: Train, steps: int) -> Any:
    """Fine-tuning's optimizer; `steps` are those of an epoch."""
    rate = learning_rate(params, steps)
    if params.optimizer == "sgd":
        return keras.optimizers.SGD(rate, momentum=params.momentum)
    if params.optimizer == "adam":
        return keras.optimizers.Adam(rate)
    chosen = keras.optimizers.AdamW(rate, weight_decay=params.weight_decay)
    chosen.exclude_from_weight_decay(var_names=NOT_DECAYED)
    return chosen


def fine_tune(
    model: Any,
    batches: Batches,
    params: Train,
    hardware: Hardware,
    log: Log,
    backup: Backup,
    others: list[Any],
) -> Row | None:
    """Goes on from the head with every weight, or, where those are frozen, on augmented images.

    Returns:
        The best epoch's row. None if no epoch had a lower validation loss than the head: the model is then
        as it was.
    """
    before = model.get_weights()
    whole = classifier.in_training(model, frozen_statistics=params.batch_norm == "frozen")
    whole.compile(
        hardware.optimizer(optimizer(params, batches.steps)),
        loss(params),
        weighted_metrics=["accuracy"],
        jit_compile=hardware.jit,
    )
    held_out = batches.validation()
    # Measured again: a backbone may have penalties of its own, which the head's loss on features lacks.
    head = whole.evaluate(held_out, verbose=0, return_dict=True)["loss"] if params.head_epochs else np.inf
    history = History("fine_tune" if params.fine_tune else "augmented", log)
    best = BestWeights(history)
    stopping = EarlyStopping(history, params.patience)
    saving = [callbacks.Checkpoint(history, best, backup)] if hardware.chief else []
    resume(history, best, whole, backup.load(), hardware)
    if not stopping.done:
        whole.fit(
            batches.training(len(history.rows)),
            initial_epoch=len(history.rows),
            epochs=params.epochs,
            steps_per_epoch=batches.steps,
            validation_data=held_out,
            callbacks=[*others, callbacks.AverageReplicas(), history, best, stopping, *saving],
            verbose=tensorflow_setup.verbosity() if hardware.chief else 0,
        )
    if history.best["val_loss"] < head:  # which what is no number never is
        model.set_weights(best.weights)
        return history.best
    if params.head_epochs:
        became = "became no number (lower train.learning_rate)"
        end = became if history.diverged else "came no lower than before"
        console.say(f"train: the validation loss {end}: the head is kept, on the backbone as it came")
    model.set_weights(before)
    return None


def resume(
    history: History, best: BestWeights, model: Any, state: TrainingState | None, hardware: Hardware
) -> None:
    """Brings back what an interrupted training had come to, if all workers know the same of it."""
    epochs = len(state.rows) if state else 0
    # Asked by those without a backup too: the others wait for the answer.
    if hardware.everywhere(epochs) != {epochs} or state is None:
        return
    model.optimizer.build(model.trainable_variables)
    for variable, value in zip(variables(model.optimizer), state.optimizer, strict=True):
        variable.assign(value)
    model.set_weights(state.weights)
    best.weights = state.best
    for row in state.rows:
        history.add(row)
    console.say(f"train: goes on after epoch {epochs}, where it was interrupted")


def describe(row: Row) -> str:
    return f"{row['epoch']}: validation loss {row['val_loss']:.4f}, accuracy {row['val_accuracy']:.4f}"
