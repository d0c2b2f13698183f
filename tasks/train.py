"""Stage `train`: a head on frozen features first, then fine-tuning of every weight from there."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from dvclive.live import Live

from tasks.core import classifier, cli, params, runtime
from tasks.core.augment import augmented, draw
from tasks.core.contract import Contract
from tasks.core.paths import DATASET, MODELS, TRAINING
from tasks.core.records import Dataset
from tasks.core.runtime import AUTOTUNE, keras, tf
from tasks.core.serialize import replacing, sha256

HEAD_BATCH = 64
HEAD_RATE = 0.003  # of Adam; the head is convex, so that any sane rate ends in the same place
HEAD_PATIENCE = 10  # its epochs take milliseconds
FEATURE_BATCH = 64

Row = dict[str, Any]  # an epoch in the history: phase, epoch from 1, losses and accuracies


@dataclass(frozen=True)
class Features:
    """What the frozen backbone says of a split: float32 (n, k), and labels one-hot (n, classes)."""

    values: np.ndarray
    labels: np.ndarray


def features(backbone: Any, data: Dataset, split: str) -> Features:
    """Runs the frozen backbone over each picture of a split, once."""
    classes = len(data.class_names)

    @tf.function
    def extract(images: Any) -> Any:
        return backbone(classifier.to_float(images), training=False)

    values, labels = [], []
    for batch in data.read(split).batch(FEATURE_BATCH).prefetch(AUTOTUNE):
        values.append(extract(batch["image"]).numpy())
        labels.append(tf.one_hot(batch["label"], classes).numpy())
    return Features(np.concatenate(values), np.concatenate(labels))


def train_head(model: Any, train: Features, validation: Features, p: params.Train, log: Log) -> Row:
    """Fits the classifier's own dropout and dense layers to features that don't change."""
    entry = keras.Input(train.values.shape[1:])
    head = keras.Model(entry, model.get_layer("head")(model.get_layer("dropout")(entry)))
    head.compile(keras.optimizers.Adam(HEAD_RATE), loss(p), ["accuracy"])
    held_out = tf.data.Dataset.from_tensors((validation.values, validation.labels))

    def batches(epoch: int) -> Any:
        order = np.random.default_rng((p.seed, epoch)).permutation(len(train.values))
        rows = tf.data.Dataset.from_tensor_slices((train.values[order], train.labels[order]))
        return rows.batch(HEAD_BATCH)

    return fit(head, batches, held_out, "head", p.head_epochs, max(p.patience, HEAD_PATIENCE), log)


def fine_tune(model: Any, data: Dataset, p: params.Train, log: Log) -> Row | None:
    """Goes on from the trained head with every weight: SGD, warm-up of half an epoch, cosine decay.

    Returns:
        The best epoch's row. None if no epoch had a lower validation loss than the head: the model is then
        as it was.
    """
    before = model.get_weights()
    steps = -(-data.size("train") // p.batch_size)
    warmup = steps // 2
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps * p.epochs - warmup), warmup_target=p.learning_rate, warmup_steps=warmup
    )
    model.compile(keras.optimizers.SGD(rate, momentum=p.momentum), loss(p), ["accuracy"])

    def batches(epoch: int) -> Any:
        return training_batches(data, p, epoch)

    held_out = validation_batches(data)
    # Measured anew: a backbone may have penalties of its own, which the head's loss on features lacks.
    head = model.evaluate(held_out, verbose=0, return_dict=True)["loss"]
    best = fit(model, batches, held_out, "fine_tune", p.epochs, p.patience, log, [Progress(p.epochs)])
    if best["val_loss"] < head:
        return best
    cli.say("train: fine-tuning came to no lower validation loss than the head; the head is kept")
    model.set_weights(before)
    return None


def fit(
    model: Any,
    batches: Callable[[int], Any],
    held_out: Any,
    phase: str,
    epochs: int,
    patience: int,
    log: Log,
    callbacks: Sequence[Any] = (),
) -> Row:
    """Trains epoch by epoch and leaves the model with the weights of its best validation loss.

    Args:
        batches: gives the training data of an epoch, counted from 0.
        patience: epochs in a row without a better validation loss after which training stops.

    Returns:
        The row of the best epoch.
    """
    best: Row = {"val_loss": np.inf}
    weights, waited = model.get_weights(), 0
    for epoch in range(epochs):
        history = model.fit(
            batches(epoch),
            initial_epoch=epoch,
            epochs=epoch + 1,
            verbose=0,
            callbacks=list(callbacks),
            validation_data=held_out,
        ).history
        row = log.add(phase, epoch, {name: values[-1] for name, values in history.items()})
        if row["val_loss"] < best["val_loss"]:
            best, weights, waited = row, model.get_weights(), 0
        else:
            waited += 1
        if waited == patience:
            break
    model.set_weights(weights)
    return best


class Progress(keras.callbacks.ProgbarLogger):  # type: ignore[misc]
    """Keras' progress bar, which counts to the last epoch though each is fitted by itself."""

    def __init__(self, epochs: int) -> None:
        super().__init__(count_mode="steps")
        self.last = epochs

    def set_params(self, params: dict[str, Any]) -> None:
        super().set_params(params | {"verbose": runtime.verbosity(), "epochs": self.last})


def loss(p: params.Train) -> Any:
    return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=p.label_smoothing)


def training_batches(data: Dataset, p: params.Train, epoch: int) -> Any:
    """One epoch, shuffled and augmented as seed, epoch and picture say, and nothing else."""
    classes = len(data.class_names)

    def numbered(index: Any, example: Any) -> Any:
        return example["image"], example["label"], draw(p.seed, epoch, index)

    def finished(images: Any, labels: Any, draws: Any) -> Any:
        images = augmented(classifier.to_float(images), draws, p.augment)
        return images, tf.one_hot(labels, classes)

    stream = data.read("train").enumerate().map(numbered, AUTOTUNE)
    stream = stream.shuffle(data.size("train"), seed=p.seed + epoch)
    return stream.batch(p.batch_size).map(finished, AUTOTUNE).prefetch(AUTOTUNE)


def validation_batches(data: Dataset) -> Any:
    classes = len(data.class_names)

    def finished(batch: Any) -> Any:
        return classifier.to_float(batch["image"]), tf.one_hot(batch["label"], classes)

    return data.read("validation").batch(FEATURE_BATCH).map(finished, AUTOTUNE).prefetch(AUTOTUNE)


class Log:
    """The history of both phases, and the same numbers for DVC's plots as they come."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.rows: list[Row] = []

    def add(self, phase: str, epoch: int, logs: dict[str, float]) -> Row:
        names = ("loss", "accuracy", "val_loss", "val_accuracy")
        numbers = {name: round(float(logs[name]), 6) for name in names}
        self.rows.append({"phase": phase, "epoch": epoch + 1} | numbers)
        self.live.step = epoch + 1
        for name, number in numbers.items():
            self.live.log_metric(f"{phase}/{name}", number)
        return self.rows[-1]

    def write(self, file: Path) -> None:
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, self.rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


def train(data: Dataset, target: Path, live_folder: Path, p: params.Train, m: params.Model) -> Row:
    """Trains a classifier and writes the models' folder; returns the row of the epoch that was kept.

    Raises:
        BackboneError: the backbone can't be fetched or loaded.
    """
    runtime.deterministic(p.seed)
    cli.say(f"train: loading {m.backbone}")
    backbone = classifier.backbone_layer(m.backbone, trainable=True)
    model = classifier.network(backbone, len(data.class_names), data.image_size, m.dropout, m.l2)
    with Live(str(live_folder), save_dvc_exp=False, dvcyaml=None, report=None) as live:
        log = Log(live)
        cli.say(f"train: features of {data.size('train') + data.size('validation')} pictures")
        known, held_out = (features(backbone, data, split) for split in ("train", "validation"))
        kept = train_head(model, known, held_out, p, log)
        cli.say(f"train: head, best of {len(log.rows)} epochs {_shown(kept)}")
        if p.fine_tune:
            kept = fine_tune(model, data, p, log) or kept
    contract = Contract(data.class_names, data.image_size, data.resize)
    facts = {
        "backbone": m.backbone,
        "best_epoch": kept,
        "dataset": sha256(data.folder / "dataset.json"),
        "versions": {name: version(name) for name in ("tensorflow", "tf-keras", "tensorflow-hub")},
    }
    with replacing(target) as temporary:
        temporary.mkdir()
        classifier.save(temporary, model, contract, facts)
        log.write(temporary / "history.csv")
    return kept


def _shown(row: Row) -> str:
    return f"{row['epoch']}: validation loss {row['val_loss']:.4f}, accuracy {row['val_accuracy']:.4f}"


def main() -> None:
    p = params.load()
    best = train(Dataset.load(DATASET), MODELS, TRAINING, p.train, p.model)
    cli.say(f"train: kept {best['phase']} epoch {_shown(best)}")


if __name__ == "__main__":
    cli.stage(main)
