"""Stage `train`: a head on frozen features first, then fine-tuning of every weight from there.

An interrupted training goes on from its last finished epoch, and ends with the weights of an unbroken one.
"""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from dvclive.live import Live

from tasks.core.backbones import store, tensorflow_setup
from tasks.core.backbones.config import Model
from tasks.core.backbones.tensorflow_setup import AUTOTUNE, keras, tf, untuned
from tasks.core.base import cli, console, params
from tasks.core.base.contract import Contract
from tasks.core.base.errors import BackboneError, ParamError
from tasks.core.base.files import code_files, fingerprint, replacing, sha256
from tasks.core.base.paths import AUGMENTED, DATASET, DATASET_FACTS, MODELS, TRAINING, cache_folder
from tasks.core.training import augmentation, classifier, devices, feature_cache
from tasks.core.training.batches import Batches, class_weights
from tasks.core.training.checkpoint import Backup, Row, State, Weights
from tasks.core.training.config import Compute, Train
from tasks.core.training.dataset import Dataset
from tasks.core.training.devices import Hardware

HEAD_SPLITS = ("train", "validation")
NOT_DECAYED = ["bias", "beta", "gamma"]
NUMBERS = ("loss", "accuracy", "val_loss", "val_accuracy")


class Watch(keras.callbacks.Callback):  # type: ignore[misc]
    """Writes each epoch down, keeps the weights of the best, and ends training when it gets no better.

    Args:
        patience: epochs in a row without a better validation loss after which training stops.
    """

    def __init__(self, phase: str, patience: int, log: Log, backup: Backup | None = None) -> None:
        super().__init__()
        self.phase, self.patience, self.log, self.backup = phase, patience, log, backup
        self.best_weights: Weights = []

    @property
    def rows(self) -> list[Row]:
        return [row for row in self.log.rows if row["phase"] == self.phase]

    @property
    def best(self) -> Row:
        """The first epoch of the lowest validation loss."""
        return min(self.rows, key=lambda row: float(row["val_loss"]) if finite(row) else np.inf)

    @property
    def diverged(self) -> bool:
        return bool(self.rows) and not finite(self.rows[-1])

    @property
    def done(self) -> bool:
        waited = bool(self.rows) and len(self.rows) - int(self.best["epoch"]) >= self.patience
        return waited or self.diverged

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Has all devices go on with the mean of the statistics that each has come to by itself.

        That is what is saved: so it is what is judged, and what an interrupted training goes on from.
        """
        if self.model.distribute_strategy.num_replicas_in_sync > 1:
            self.model.set_weights(self.model.get_weights())

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        row = self.log.add(self.phase, epoch, logs)
        weights = self.model.get_weights()
        if row is self.best:
            self.best_weights = weights
        self.model.stop_training = self.done
        if self.backup:
            optimizer = keras.backend.batch_get_value(devices.variables(self.model.optimizer))
            self.backup.save(State(weights, optimizer, self.best_weights, self.rows))


class SameDraws(keras.callbacks.Callback):  # type: ignore[misc]
    """Begins what a backbone draws by itself anew with each epoch, so that a resumed one draws the same.

    It has TensorFlow prepare the whole step again, which takes as long as some steps do.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        tf.random.set_seed(self.seed)


class Log:
    """The history of both phases, and the same numbers for DVC's plots as they come."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.rows: list[Row] = []

    def add(self, phase: str, epoch: int, logs: dict[str, float]) -> Row:
        numbers = {name: round(float(logs[name]), 6) for name in NUMBERS}
        self.put({"phase": phase, "epoch": epoch + 1} | numbers)
        return self.rows[-1]

    def put(self, row: Row) -> None:
        self.rows.append(row)
        self.live.step = row["epoch"]
        curve = "head" if row["phase"] == "head" else "fine_tune"  # dvc.yaml draws the second phase as one
        for name in NUMBERS:
            self.live.log_metric(f"{curve}/{name}", row[name])

    def write(self, file: Path) -> None:
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, ["phase", "epoch", *NUMBERS], lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


@dataclass(frozen=True)
class Params(params.Section):
    train: Train
    model: Model
    compute: Compute


def train_head(
    model: Any,
    train: feature_cache.Features,
    validation: feature_cache.Features,
    weights: Any,
    dropout: float,
    p: Train,
    h: Hardware,
    log: Log,
) -> Row:
    """Fits the classifier's dense layer, under dropout, to features that don't change.

    Args:
        weights: of the classes, float32 (classes,).
    """
    classes = len(weights)
    count, width = train.values.shape
    entry, layer = keras.Input((width,)), model.get_layer("head")
    dense = keras.layers.Dense(classes, kernel_regularizer=layer.kernel_regularizer)
    head = keras.Model(entry, dense(entry))
    head.set_weights(layer.get_weights())
    steps = -(-count // p.head.batch_size)
    head.compile(
        h.optimizer(keras.optimizers.Adam(p.head.learning_rate)),
        loss(p),
        weighted_metrics=["accuracy"],
        steps_per_execution=min(steps, p.head.steps_per_execution),
    )
    values, labels = tf.constant(train.values), tf.one_hot(train.labels, classes)
    held_out = tf.data.Dataset.from_tensors((validation.values, tf.one_hot(validation.labels, classes)))

    def order(epoch: Any) -> Any:
        rows = tf.random.experimental.stateless_shuffle(tf.range(count), [p.seed, epoch])
        keys = tf.stack([tf.fill([count], augmentation.number(p.seed, epoch)), tf.cast(rows, tf.int64)], 1)
        return tf.data.Dataset.from_tensor_slices((rows, keys))

    def batch(rows: Any, keys: Any) -> Any:
        kept = augmentation.kept([p.head.batch_size, width], keys[0], dropout)
        answers = tf.gather(labels, rows)
        return tf.gather(values, rows) * kept, answers, tf.linalg.matvec(answers, weights)

    stream = tf.data.Dataset.range(2**31).flat_map(order).batch(p.head.batch_size, drop_remainder=True)
    watch = Watch("head", p.head.patience, log)
    head.fit(
        untuned(stream.map(batch, AUTOTUNE).prefetch(AUTOTUNE)),
        epochs=p.head_epochs,
        steps_per_epoch=steps,
        validation_data=untuned(held_out),
        callbacks=[watch],
        verbose=0,
    )
    layer.set_weights(watch.best_weights)
    return watch.best


def loss(p: Train) -> Any:
    return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=p.label_smoothing)


def learning_rate(p: Train, steps: int) -> Any:
    """Fine-tuning's rate by step: it rises from zero over the warm-up, then falls along a cosine or stays.

    Args:
        steps: of an epoch.
    """
    warmup, total = round(steps * p.warmup), steps * p.epochs
    lowest = 0.0 if p.schedule == "cosine" else 1.0  # where the cosine ends, as a share of where it begins
    return keras.optimizers.schedules.CosineDecay(
        0.0, max(1, total - warmup), lowest, warmup_target=p.learning_rate, warmup_steps=warmup
    )


def optimizer(p: Train, steps: int) -> Any:
    """Fine-tuning's optimizer; `steps` are those of an epoch."""
    rate = learning_rate(p, steps)
    if p.optimizer == "sgd":
        return keras.optimizers.SGD(rate, momentum=p.momentum)
    if p.optimizer == "adam":
        return keras.optimizers.Adam(rate)
    chosen = keras.optimizers.AdamW(rate, weight_decay=p.weight_decay)
    chosen.exclude_from_weight_decay(var_names=NOT_DECAYED)
    return chosen


def fine_tune(
    model: Any,
    batches: Batches,
    p: Train,
    h: Hardware,
    log: Log,
    backup: Backup,
    callbacks: list[Any],
) -> Row | None:
    """Goes on from the head with every weight, or, where those are frozen, on augmented pictures.

    Returns:
        The best epoch's row. None if no epoch had a lower validation loss than the head: the model is then
        as it was.
    """
    before = model.get_weights()
    whole = classifier.in_training(model, frozen_statistics=p.batch_norm == "frozen")
    whole.compile(
        h.optimizer(optimizer(p, batches.steps)), loss(p), weighted_metrics=["accuracy"], jit_compile=h.jit
    )
    held_out = batches.validation()
    # Measured anew: a backbone may have penalties of its own, which the head's loss on features lacks.
    head = whole.evaluate(held_out, verbose=0, return_dict=True)["loss"] if p.head_epochs else np.inf
    phase = "fine_tune" if p.fine_tune else "augmented"
    watch = Watch(phase, p.patience, log, backup if h.chief else None)
    resume(watch, whole, backup.load(), h)
    if not watch.done:
        whole.fit(
            batches.training(len(watch.rows)),
            initial_epoch=len(watch.rows),
            epochs=p.epochs,
            steps_per_epoch=batches.steps,
            validation_data=held_out,
            callbacks=[*callbacks, watch],
            verbose=tensorflow_setup.verbosity() if h.chief else 0,
        )
    if watch.best["val_loss"] < head:  # which what is no number never is
        model.set_weights(watch.best_weights)
        return watch.best
    if p.head_epochs:
        end = (
            "became no number (lower train.learning_rate)" if watch.diverged else "came no lower than before"
        )
        console.say(f"train: the validation loss {end}: the head is kept, on the backbone as it came")
    model.set_weights(before)
    return None


def resume(watch: Watch, model: Any, state: State | None, h: Hardware) -> None:
    """Brings back what an interrupted training had come to, if all workers know the same of it."""
    epochs = len(state.rows) if state else 0
    # Asked by those without a backup too: the others wait for the answer.
    if h.everywhere(epochs) != {epochs} or state is None:
        return
    model.optimizer.build(model.trainable_variables)
    for variable, value in zip(devices.variables(model.optimizer), state.optimizer, strict=True):
        variable.assign(value)
    model.set_weights(state.weights)
    watch.best_weights = state.best
    for row in state.rows:
        watch.log.put(row)
    console.say(f"train: goes on after epoch {len(watch.rows)}, where it was interrupted")


def train(
    data: Dataset,
    target: Path,
    live_folder: Path,
    p: Train,
    m: Model,
    h: Hardware,
    logs: Path | None = None,
) -> Row:
    """Trains a classifier and writes the models' folder; returns the row of the epoch that was kept.

    Args:
        live_folder: gets the metrics as they come, for DVC's plots, and a sheet of augmented pictures.
        logs: gets TensorBoard's logs.

    Raises:
        BackboneError: the backbone can't be fetched or loaded, is not the one that was pinned, or gives no
            numbers.
        ParamError: the devices can't share a batch, there are fewer pictures than one, or the loss became no
            number.
    """
    h.check(p.batch_size)
    if p.batch_size > data.size("train"):
        raise ParamError(
            f"train.batch_size is {p.batch_size}, but there are {data.size('train')} training pictures; "
            "make it no more than that"
        )
    console.say(f"train: {m.backbone} on {h.line()}")
    keras.utils.set_random_seed(p.seed)
    found = store.facts(m.backbone, m.sha256)
    facts = {"backbone": m.backbone, "backbone_sha256": found.sha256, "versions": _versions()}
    source = fingerprint([facts, h.devices, h.precision, h.deterministic])
    draws = found.is_stochastic and p.fine_tune and p.batch_norm == "batch"  # else it is run as it is in use
    with h.strategy.scope():
        backbone = classifier.backbone_layer(
            m.backbone, trainable=p.fine_tune, sha256=m.sha256, draws_by=p.seed if draws else None
        )
        model = classifier.network(backbone, len(data.class_names), data.image_size, m.l2)
    facts["dataset"] = sha256(data.folder / DATASET_FACTS)
    backup = Backup(_place([source, facts["dataset"], asdict(p), asdict(m), h.replicas, h.jit]))
    batches = Batches(data, p, m.dropout, model.get_layer("backbone").output_shape[1])
    sheet = batches.sheet() if p.augment.changes else None
    with Live(str(live_folder), save_dvc_exp=False, dvcyaml=None, report=None) as live:
        log, kept = Log(live), None
        if p.head_epochs:
            extract = feature_cache.extractor(backbone)
            known, held_out = (feature_cache.of_split(extract, data, split, source) for split in HEAD_SPLITS)
            kept = train_head(model, known, held_out, class_weights(data, p), m.dropout, p, h, log)
            if not finite(kept):
                raise BackboneError(
                    f"model.backbone: {m.backbone} gives features that are no numbers in {h.precision}; "
                    "try compute.precision: float32, or another backbone"
                )
            head = model.get_layer("head")
            head.set_weights(h.mean(head.get_weights()))  # machines that differ fit it a little differently
            console.say(f"train: head, best of {len(log.rows)} epochs {_shown(kept)}")
        if p.fine_tune or p.augment.changes:
            with h.strategy.scope():
                callbacks = [SameDraws(p.seed)] if draws else []
                if logs and h.chief:  # each training by itself
                    shown = str(logs / backup.file.name[:12])
                    callbacks.append(keras.callbacks.TensorBoard(shown, write_graph=False))
                kept = fine_tune(model, batches, p, h, log, backup, callbacks) or kept
    if kept is None or not finite(kept):
        raise ParamError(f"train.learning_rate is {p.learning_rate}, too much: the loss became no number")
    if sheet:
        sheet.save(live_folder / AUGMENTED)
    contract = Contract(data.class_names, data.image_size, data.resize)
    with replacing(target) as temporary:
        temporary.mkdir()
        classifier.save(temporary, model, contract, facts | {"best_epoch": kept})
        log.write(temporary / "history.csv")
    if h.chief:
        backup.forget()
    return kept


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("tensorflow", "tf-keras", "tensorflow-hub")}


def _place(facts: list[Any]) -> Path:
    """Where a training is backed up: another's, with other facts or other code, is never mistaken for it."""
    core = Path(__file__).parent / "core"
    code = [file for room in ("backbones", "training") for file in code_files(core / room)]
    return cache_folder() / "training" / fingerprint(facts, Path(__file__), *code)


def finite(row: Row) -> bool:
    return bool(np.isfinite(row["val_loss"]))


def _shown(row: Row) -> str:
    return f"{row['epoch']}: validation loss {row['val_loss']:.4f}, accuracy {row['val_accuracy']:.4f}"


def main() -> None:
    p = params.load(Params)
    h = devices.decide(
        p.compute.strategy, p.compute.precision, p.compute.jit, deterministic=p.compute.deterministic
    )
    logs = cache_folder() / "tensorboard" if p.compute.tensorboard else None
    with TemporaryDirectory() as nowhere:  # what workers have to say that isn't theirs to write
        top = Path() if h.chief else Path(nowhere)
        best = train(Dataset.load(DATASET), top / MODELS, top / TRAINING, p.train, p.model, h, logs)
    console.say(f"train: kept {best['phase']} epoch {_shown(best)}")


if __name__ == "__main__":
    cli.stage(main)
