"""Stage `train`: fits a classifier, and writes its weights, its facts and its history."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tasks.core.backbones.config import Model
from tasks.core.base import cli, console, params
from tasks.core.base.contract import Contract
from tasks.core.base.files import replacing, write_json
from tasks.core.base.paths import AUGMENTED, DATASET, MODELS, TRAIN_LABEL_ERRORS, TRAINING, cache_folder
from tasks.core.training import classifier
from tasks.core.training.batches import sheet
from tasks.core.training.checkpoint import Row
from tasks.core.training.config import Compute, Train
from tasks.core.training.dataset import Dataset
from tasks.core.training.devices import Hardware, choose_devices
from tasks.core.training.fit import describe, fit


@dataclass(frozen=True)
class Params(params.Section):
    train: Train
    model: Model
    compute: Compute


def train(
    data: Dataset,
    target: Path,
    live_folder: Path,
    params: Train,
    model_params: Model,
    hardware: Hardware,
    logs: Path | None = None,
) -> Row:
    """Trains a classifier and writes the models' folder; returns the row of its best epoch.

    Args:
        live_folder: gets the metrics as they come, for DVC's plots, and a sheet of augmented images.
        logs: gets TensorBoard's logs.
    """
    fitted = fit(data, params, model_params, hardware, live_folder, logs)
    fitted.log.write_missing_plots()
    if fitted.recipe.goes_on and fitted.recipe.augment.changes:
        sheet(data, fitted.recipe).save(live_folder / AUGMENTED)
    contract = Contract(data.class_names, data.image_size, data.resize)
    with replacing(target) as temporary:
        temporary.mkdir()
        facts = fitted.facts | {"best_epoch": fitted.best_epoch}
        classifier.save(temporary, fitted.model, contract, facts)
        fitted.log.write(temporary / "history.csv")
        write_json(temporary / TRAIN_LABEL_ERRORS, fitted.label_errors)
    if hardware.chief:
        fitted.backup.forget()
    return fitted.best_epoch


def main() -> None:
    p = params.load(Params)
    hardware = choose_devices(
        p.compute.strategy, p.compute.precision, p.compute.jit, deterministic=p.compute.deterministic
    )
    logs = cache_folder() / "tensorboard" if p.compute.tensorboard else None
    with TemporaryDirectory() as nowhere:  # what workers have to say that isn't theirs to write
        top = Path() if hardware.chief else Path(nowhere)
        best = train(Dataset.load(DATASET), top / MODELS, top / TRAINING, p.train, p.model, hardware, logs)
    console.say(f"train: kept {best['phase']} epoch {describe(best)}")


if __name__ == "__main__":
    cli.stage(main)
