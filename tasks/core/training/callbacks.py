"""What happens in and after each epoch of a training."""

import csv
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from dvclive.live import Live

from tasks.core.backbones.tensorflow_setup import keras, tf
from tasks.core.training.checkpoint import Backup, Row, TrainingState, Weights
from tasks.core.training.devices import variables

NUMBERS = ("loss", "accuracy", "val_loss", "val_accuracy")
CURVES = ("head", "fine_tune")  # dvc.yaml draws all phases after the first as one
VAL_LOSS_ERROR = "val_loss_error"  # standard error of how much that differs from the first head's
# What is above the head's loss by less than this share of the error is in doubt, and taken. On seven data
# sets fine-tuning took 8 % off the test loss, with a spread of 20 %: more than some hundred images can tell.
DOUBT = 0.5


class Log:
    """The history of both phases, and the same numbers for DVC's plots as they come."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.rows: list[Row] = []

    def add(self, row: Row) -> None:
        self.rows.append(row)
        self.live.step = row["epoch"]
        curve = CURVES[row["phase"] != "head"]
        for name in NUMBERS:
            self.live.log_metric(f"{curve}/{name}", row[name])

    def write_missing_plots(self) -> None:
        """Writes plots without points, as `Live` has them, of a phase that wasn't trained: DVC wants them."""
        for curve, name in product(CURVES, NUMBERS):
            plot = Path(self.live.plots_dir) / "metrics" / curve / f"{name}.tsv"
            plot.parent.mkdir(parents=True, exist_ok=True)
            if not plot.exists():
                plot.write_text(f"step\t{name}\n", "utf-8")

    def write(self, file: Path) -> None:
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(
                stream, ["phase", "epoch", *NUMBERS], extrasaction="ignore", lineterminator="\n"
            )
            writer.writeheader()
            writer.writerows(self.rows)


class History(keras.callbacks.Callback):  # type: ignore[misc]
    """The epochs of one phase. Most other callbacks read it, so that it goes before them."""

    def __init__(self, phase: str, log: Log) -> None:
        super().__init__()
        self.phase, self.log = phase, log
        self.rows: list[Row] = []

    @property
    def best(self) -> Row:
        """The first epoch of the lowest validation loss."""
        return min(self.rows, key=lambda row: float(row["val_loss"]) if is_finite(row) else np.inf)

    @property
    def diverged(self) -> bool:
        return bool(self.rows) and not is_finite(self.rows[-1])

    def add(self, row: Row) -> None:
        self.rows.append(row)
        self.log.add(row)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        numbers = {name: round(float(logs[name]), 6) for name in (*NUMBERS, VAL_LOSS_ERROR) if name in logs}
        self.add({"phase": self.phase, "epoch": epoch + 1} | numbers)


class BestWeights(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the weights of the best epoch."""

    def __init__(self, history: History) -> None:
        super().__init__()
        self.history = history
        self.weights: Weights = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        if self.history.best["epoch"] == epoch + 1:
            self.weights = self.model.get_weights()


class EarlyStopping(keras.callbacks.Callback):  # type: ignore[misc]
    """Ends training after `patience` epochs without a better validation loss, or when it is no number.

    Args:
        limit: a validation loss; where one is above it beyond doubt, training ends at once.
    """

    def __init__(self, history: History, patience: int, limit: float) -> None:
        super().__init__()
        self.history, self.patience, self.limit = history, patience, limit

    @property
    def done(self) -> bool:
        rows = self.history.rows
        if not rows:
            return False
        waited = len(rows) - int(self.history.best["epoch"]) >= self.patience
        return waited or not may_be_below(rows[-1], self.limit)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self.model.stop_training = self.done


class Checkpoint(keras.callbacks.Callback):  # type: ignore[misc]
    """Saves what an interrupted training resumes from."""

    def __init__(self, history: History, best: BestWeights, backup: Backup) -> None:
        super().__init__()
        self.history, self.best, self.backup = history, best, backup

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        optimizer = keras.backend.batch_get_value(variables(self.model.optimizer))
        weights = self.model.get_weights()
        self.backup.save(TrainingState(weights, optimizer, self.best.weights, self.history.rows))


class AverageReplicas(keras.callbacks.Callback):  # type: ignore[misc]
    """Has all devices continue with the mean of the statistics that each has computed.

    The mean is what is saved. So it is what is validated, and what an interrupted training resumes from.
    """

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self._average()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        self._average()

    def _average(self) -> None:
        if self.model.distribute_strategy.num_replicas_in_sync > 1:
            self.model.set_weights(self.model.get_weights())


class WithoutPenalties(keras.callbacks.Callback):  # type: ignore[misc]
    """Takes what Keras adds to the loss for the size of weights, at the epoch's end, from both losses.

    It goes before all callbacks that read them, and compare them with a head's, which have no such part.
    """

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:  # noqa: ARG002
        added = penalties(self.model)
        logs.update({name: logs[name] - added for name in ("loss", "val_loss")})


class FitHeadAnew(keras.callbacks.Callback):  # type: ignore[misc]
    """Fits the head to what the backbone has become; the epoch's numbers are then those of this head.

    It goes before all callbacks that read them.

    Args:
        refit: gives the head of a classifier in training other weights; returns `NUMBERS` and
            `VAL_LOSS_ERROR`.
        limit: the validation loss of the first head.
    """

    def __init__(self, refit: Callable[[Any], dict[str, float]], limit: float) -> None:
        super().__init__()
        self.refit, self.limit = refit, limit

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:  # noqa: ARG002
        logs.update(self.refit(self.model))


def reset_seed(seed: int) -> Any:
    """Sets the seed again at each epoch, so that a backbone draws the same after an interruption.

    TensorFlow then prepares the whole step again, which takes as long as some steps do.
    """
    return keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: tf.random.set_seed(seed))


def penalties(model: Any) -> float:
    """What Keras adds to a model's loss, for the size of its weights as they are now."""
    return float(sum(model.losses))


def may_be_below(row: Row, limit: float) -> bool:
    """Whether its validation loss is below a limit, within doubt; what is no number never is."""
    return bool(row["val_loss"] - DOUBT * row.get(VAL_LOSS_ERROR, 0) < limit)


def is_finite(row: Row) -> bool:
    return bool(np.isfinite(row["val_loss"]))
