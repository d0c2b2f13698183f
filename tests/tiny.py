"""A small data set to train on. Also for processes that tests start, which pytest and Prefect would delay."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.structure import ROOT


@dataclass(frozen=True)
class Tiny:
    """A small data set of three colours, a backbone of one convolution, and a way to train on them."""

    folder: Path

    @property
    def images(self) -> Path:
        return self.folder / "pictures"

    @property
    def dataset(self) -> Path:
        return self.folder / "dataset"

    @property
    def models(self) -> Path:
        return self.folder / "models"

    def train(
        self,
        target: Path,
        backbone: str = "backbone",
        hardware: Any = None,
        logs: Path | None = None,
        **changes: Any,
    ) -> dict[str, Any]:
        """Trains into `target`, with values of the section `train` changed; returns the best epoch's row."""
        from tasks import train
        from tasks.check import Params
        from tasks.core.base import params
        from tasks.core.training.dataset import Dataset
        from tasks.core.training.devices import choose_devices

        p = params.read(ROOT / "params.yaml", Params)
        quick: dict[str, Any] = {"epochs": 3, "batch_size": 8, "learning_rate": 0.05}
        quick |= {"optimizer": "sgd", "batch_norm": "batch", "unfreeze": 1.0, "label_smoothing": 0.1}
        quick |= {"refit": False, "fine_tune": True, "class_weight": "none", "wrong_labels": "keep"}
        settings = dataclasses.replace(p.train, **(quick | changes))
        model = dataclasses.replace(p.model, backbone=str(self.folder / backbone))
        chosen = hardware or choose_devices("one", "float32", False, deterministic=True)
        live = target.with_name(f"{target.name}-live")
        return train.train(Dataset.load(self.dataset), target, live, settings, model, chosen, logs)


def recipe(**changes: Any) -> Any:
    """The shipped parameters of training, with what is auto decided."""
    from tasks.check import Params
    from tasks.core.base import params
    from tasks.core.training.config import Augment, Recipe

    p = params.read(ROOT / "params.yaml", Params).train
    decided: dict[str, Any] = {"fine_tune": True, "unfreeze": 1.0, "epochs": 3, "batch_size": 32}
    decided |= {"batch_norm": "frozen", "optimizer": "adam", "learning_rate": 0.0003, "class_weight": "none"}
    augment = Augment(10, 0.1, 0.1, 0.0, False, 0.0, 0.0)
    return Recipe.of(p, **{"augment": augment} | decided | changes)
