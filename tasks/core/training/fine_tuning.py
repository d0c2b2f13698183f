"""Fine-tuning: it goes on from the head, with the backbone or with augmented images."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.core.backbones import tensorflow_setup
from tasks.core.backbones.tensorflow_setup import keras
from tasks.core.base import console
from tasks.core.training import callbacks
from tasks.core.training.batches import Batches
from tasks.core.training.callbacks import BestWeights, EarlyStopping, FitHeadAnew, History, Log, may_be_below
from tasks.core.training.checkpoint import Backup, Row, TrainingState
from tasks.core.training.config import Recipe, Train
from tasks.core.training.devices import Hardware, variables

NOT_DECAYED = ["bias", "beta", "gamma"]


def loss(params: Train) -> Any:
    return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=params.label_smoothing)


def learning_rate(params: Recipe, steps: int) -> Any:
    """Fine-tuning's rate by step: it rises from zero over the warm-up, then falls along a cosine or stays.

    Args:
        steps: of an epoch.
    """
    warmup, total = round(steps * params.warmup), steps * params.epochs
    lowest = 0.0 if params.schedule == "cosine" else 1.0  # the cosine's end, as a share of its beginning
    return keras.optimizers.schedules.CosineDecay(
        0.0, max(1, total - warmup), lowest, warmup_target=params.learning_rate, warmup_steps=warmup
    )


def optimizer(params: Recipe, steps: int) -> Any:
    """Fine-tuning's optimizer; `steps` are those of an epoch."""
    rate = learning_rate(params, steps)
    if params.optimizer == "sgd":
        return keras.optimizers.SGD(rate, momentum=params.momentum)
    if params.optimizer == "adam":
        return keras.optimizers.Adam(rate)
    chosen = keras.optimizers.AdamW(rate, weight_decay=params.weight_decay)
    chosen.exclude_from_weight_decay(var_names=NOT_DECAYED)
    return chosen


@dataclass(frozen=True)
class Record:
    """Where a training is written as it goes: history, backup, and callbacks for other logs."""

    log: Log
    backup: Backup
    callbacks: list[Any]


def fine_tune(
    whole: Any, batches: Batches, hardware: Hardware, record: Record, anew: FitHeadAnew | None
) -> Row | None:
    """Goes on from the head with the backbone, or, where that is frozen, on augmented images.

    Args:
        whole: the classifier as it trains.
        batches: what it is fed, by its parameters.
        anew: fits the head after each epoch; none, if it only trains with the rest.

    Returns:
        The row of the epoch of the lowest validation loss, whose weights it then has. None, if that is not
        below the head's, or with `anew` if it is above that beyond doubt.
    """
    params = batches.p
    whole.compile(
        hardware.optimizer(optimizer(params, batches.steps)),
        loss(params),
        weighted_metrics=["accuracy"],
        jit_compile=hardware.jit,
    )
    held_out = batches.validation()
    history = History("fine_tune" if params.fine_tune else "augmented", record.log)
    best = BestWeights(history)
    limit = anew.limit if anew else np.inf
    stopping = EarlyStopping(history, params.patience, limit)
    if params.head and not anew:
        # Measured again: on features kept in a cache, the last digits are others.
        limit = whole.evaluate(held_out, verbose=0, return_dict=True)["loss"] - callbacks.penalties(whole)
    saving = [callbacks.Checkpoint(history, best, record.backup)] if hardware.chief else []
    # Before what reads their numbers; the head is fitted to what the mean of the replicas says.
    first = [callbacks.AverageReplicas(), anew or callbacks.WithoutPenalties()]
    resume(history, best, whole, record.backup.load(), hardware)
    if not stopping.done:
        whole.fit(
            batches.training(len(history.rows)),
            initial_epoch=len(history.rows),
            epochs=params.epochs,
            steps_per_epoch=batches.steps,
            validation_data=None if anew else held_out,
            callbacks=[*first, *record.callbacks, history, best, stopping, *saving],
            verbose=tensorflow_setup.verbosity() if hardware.chief else 0,
        )
    if may_be_below(history.best, limit):  # which what is no number never is
        whole.set_weights(best.weights)
        return history.best
    if params.head:
        became = "became no number (lower train.learning_rate)"
        end = became if history.diverged else f"came not as low as {limit:.4f}"
        console.say(f"train: the validation loss {end}: the head is kept, on the backbone as it came")
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
