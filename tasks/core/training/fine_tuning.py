"""Fine-tuning: it goes on from the head, and ends with weights that are no worse on validation images."""

from typing import Any

import numpy as np

from tasks.core.backbones import tensorflow_setup
from tasks.core.backbones.tensorflow_setup import keras
from tasks.core.base import console
from tasks.core.training import callbacks
from tasks.core.training.batches import Batches
from tasks.core.training.callbacks import BestWeights, EarlyStopping, History, Log, is_finite
from tasks.core.training.checkpoint import Backup, Row, TrainingState, Weights
from tasks.core.training.config import Recipe, Train
from tasks.core.training.devices import Hardware, variables

NOT_DECAYED = ["bias", "beta", "gamma"]
SHARES = (0.1, 0.25, 0.5, 0.75)  # of the way from the head's weights to those of the best epoch


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


def fine_tune(
    whole: Any,
    batches: Batches,
    hardware: Hardware,
    log: Log,
    backup: Backup,
    others: list[Any],
) -> Row | None:
    """Goes on from the head with the backbone, or, where that is frozen, on augmented images.

    Args:
        whole: the classifier as it trains.
        batches: what it is fed, by its parameters.

    Returns:
        The best epoch's row. With `train.interpolate` its validation loss is that of the weights that are
        taken, and `share` how far they are from the head's to the epoch's. None if none had a lower
        validation loss than the head: the weights are then as they were.
    """
    params, before = batches.p, whole.get_weights()
    whole.compile(
        hardware.optimizer(optimizer(params, batches.steps)),
        loss(params),
        weighted_metrics=["accuracy"],
        jit_compile=hardware.jit,
    )
    held_out = batches.validation()
    # Measured again: a backbone may have penalties of its own, which the head's loss on features lacks.
    before_it = whole.evaluate(held_out, verbose=0, return_dict=True)["loss"] if params.head else np.inf
    history = History("fine_tune" if params.fine_tune else "augmented", log)
    best = BestWeights(history)
    stopping = EarlyStopping(history, params.patience)
    saving = [callbacks.Checkpoint(history, best, backup)] if hardware.chief else []
    resume(history, best, whole, backup.load(), hardware)

    def train(epochs: int) -> None:
        whole.fit(
            batches.training(len(history.rows)),
            initial_epoch=len(history.rows),
            epochs=epochs,
            steps_per_epoch=batches.steps,
            validation_data=held_out,
            callbacks=[*others, callbacks.AverageReplicas(), history, best, stopping, *saving],
            verbose=tensorflow_setup.verbosity() if hardware.chief else 0,
        )

    if not history.rows:
        train(1)
    mixes = params.interpolate and params.head
    first = len(history.rows) == 1
    if not stopping.done and (not (mixes and first) or gains(whole, before, held_out, before_it)):
        train(params.epochs)
    found, weights = history.best, best.weights
    if mixes and is_finite(found):
        found, weights = interpolate(whole, before, weights, held_out, found)
    if found["val_loss"] < before_it:  # which what is no number never is
        whole.set_weights(weights)
        return found
    if params.head:
        became = "became no number (lower train.learning_rate)"
        end = became if history.diverged else "came no lower than before"
        console.say(f"train: the validation loss {end}: the head is kept, on the backbone as it came")
    whole.set_weights(before)
    return None


def gains(whole: Any, before: Weights, held_out: Any, before_it: float) -> bool:
    """Whether a tenth or a quarter of the way to the weights of the first epoch lowers the validation loss.

    Where none does, two epochs more don't help either, whatever the loss at the end of the way is: on digits
    it is twice the head's and a tenth of the way pays; on textiles it is so too, and no part of the way does.
    """
    after = whole.get_weights()
    losses = [_evaluate(whole, before, after, share, held_out)["loss"] for share in SHARES[:2]]
    whole.set_weights(after)
    if min(losses) < before_it:
        return True
    console.say(
        "train: neither a tenth nor a quarter of the way to epoch 1 lowers the validation loss: it ends there"
    )
    return False


def interpolate(
    whole: Any, before: Weights, after: Weights, held_out: Any, epoch: Row
) -> tuple[Row, Weights]:
    """Finds the weights between two that have the lowest validation loss (WiSE-FT; Wortsman et al., 2022).

    Where the statistics of batch normalization are frozen, the loss has no barrier on the way, and mostly is
    lower there than at either end: what fine-tuning has learned counts, and what it has forgotten less.
    """
    found = {1.0: epoch}
    for share in SHARES:
        logs = _evaluate(whole, before, after, share, held_out)
        numbers = {f"val_{name}": round(float(logs[name]), 6) for name in ("loss", "accuracy")}
        found[share] = epoch | numbers | {"share": share}
    losses = ", ".join(f"{row['val_loss']:.4f} at {share}" for share, row in sorted(found.items()))
    console.say(f"train: validation loss on the way from the head to epoch {epoch['epoch']}: {losses}")
    share = min(found, key=lambda share: float(found[share]["val_loss"]))
    return found[share], _between(before, after, share)


def _evaluate(whole: Any, before: Weights, after: Weights, share: float, held_out: Any) -> dict[str, float]:
    whole.set_weights(_between(before, after, share))
    logs: dict[str, float] = whole.evaluate(held_out, verbose=0, return_dict=True)
    return logs


def _between(before: Weights, after: Weights, share: float) -> Weights:
    if share == 1:
        return after
    return [(1 - share) * old + share * new for old, new in zip(before, after, strict=True)]


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
