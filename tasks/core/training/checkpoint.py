"""What an interrupted training goes on from: everything that its next epoch hangs on."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.core.base.files import remove, replacing

Row = dict[str, Any]  # an epoch in the history: phase, epoch from 1, losses and accuracies
Weights = list[np.ndarray]
ABANDONED = 30 * 24 * 60 * 60  # seconds


@dataclass(frozen=True)
class State:
    """A phase after some epochs: weights of the model, its optimizer and its best epoch, and its rows."""

    weights: Weights
    optimizer: Weights
    best: Weights
    rows: list[Row]


@dataclass(frozen=True)
class Backup:
    """One file, replaced after each epoch; a machine that dies meanwhile leaves the one before."""

    file: Path

    def save(self, state: State) -> None:
        groups = {"weights": state.weights, "optimizer": state.optimizer, "best": state.best}
        arrays = {f"{name}-{i:05d}": array for name, group in groups.items() for i, array in enumerate(group)}
        with replacing(self.file) as temporary, temporary.open("wb") as file:
            np.savez(file, rows=np.array(json.dumps(state.rows)), **arrays)  # type: ignore[arg-type]

    def load(self) -> State | None:
        """Reads it back; none if there is none, or none that can be read."""
        try:
            with self.file.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                groups = {
                    group: [arrays[name] for name in sorted(arrays.files) if name.startswith(f"{group}-")]
                    for group in ("weights", "optimizer", "best")
                }
                return State(rows=json.loads(str(arrays["rows"])), **groups)
        except Exception:  # a damaged zip can raise anything; without it training begins anew
            return None

    def forget(self) -> None:
        """Removes it, and what trainings left beside it that nobody went on with for a month."""
        remove(self.file)
        for other in self.file.parent.glob("*"):
            with suppress(FileNotFoundError):  # another training ends at the same time
                if time.time() - other.stat().st_mtime > ABANDONED:
                    remove(other)
