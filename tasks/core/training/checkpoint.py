"""What an interrupted training goes on from: everything that its next epoch depends on."""

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.core.base.arrays import load_arrays, save_arrays
from tasks.core.base.files import code_files, fingerprint, remove
from tasks.core.base.paths import cache_folder

Row = dict[str, Any]  # an epoch in the history: phase, epoch from 1, losses and accuracies
Weights = list[np.ndarray]
ABANDONED = 30 * 24 * 60 * 60  # seconds
CORE = Path(__file__).parents[1]
CODE = (CORE / "base", CORE / "backbones", CORE / "training", CORE.with_name("train.py"))  # as in dvc.yaml


def place(facts: list[Any], code: tuple[Path, ...] = CODE) -> Path:
    """Where a training is backed up: one with other facts or other code has another place."""
    files = [file for path in code for file in code_files(path)]
    return cache_folder() / "training" / fingerprint(facts, *files)


@dataclass(frozen=True)
class TrainingState:
    """A phase after some epochs: weights of the model, its optimizer and its best epoch, and its rows."""

    weights: Weights
    optimizer: Weights
    best: Weights
    rows: list[Row]


@dataclass(frozen=True)
class Backup:
    """One file, replaced after each epoch; a machine that dies meanwhile leaves the one before."""

    file: Path

    def save(self, state: TrainingState) -> None:
        groups = {"weights": state.weights, "optimizer": state.optimizer, "best": state.best}
        arrays = {f"{name}-{i:05d}": array for name, group in groups.items() for i, array in enumerate(group)}
        save_arrays(self.file, rows=np.array(json.dumps(state.rows)), **arrays)

    def load(self) -> TrainingState | None:
        """Reads it back; none if there is none, or it is damaged: the training then begins again."""
        arrays = load_arrays(self.file)
        if arrays is None or "rows" not in arrays:
            return None
        weights, optimizer, best = (
            [arrays[name] for name in sorted(arrays) if name.startswith(f"{group}-")]
            for group in ("weights", "optimizer", "best")
        )
        return TrainingState(weights, optimizer, best, json.loads(str(arrays["rows"])))

    def forget(self) -> None:
        """Removes it, and what trainings left beside it that nobody went on with for a month."""
        remove(self.file)
        for other in self.file.parent.glob("*"):
            with suppress(FileNotFoundError):  # another training ends at the same time
                if time.time() - other.stat().st_mtime > ABANDONED:
                    remove(other)
