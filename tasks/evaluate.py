"""Stage `evaluate`: measures the trained model on images it has not seen, and doubts their labels.

Its answers for validation and test images are judged: of those that it was trained on, it knows the label.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.core.backbones import tensorflow_setup
from tasks.core.base import cli, console, params
from tasks.core.base.arrays import Array, rounded
from tasks.core.base.files import replacing, write_json
from tasks.core.base.params import Data
from tasks.core.base.paths import DATASET, EVALUATION, LABEL_ERRORS, MANIFEST, METRICS, MODELS, PREDICTIONS
from tasks.core.data.image_io import Pixels
from tasks.core.data.labels_file import own_columns
from tasks.core.data.manifest import MEASURES
from tasks.core.data.parquet import read_parquet
from tasks.core.evaluation import (
    baselines,
    calibration,
    estimates,
    intervals,
    label_errors,
    metrics,
    predictions,
    slices,
)
from tasks.core.evaluation.config import Evaluate
from tasks.core.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from tasks.core.evaluation.metrics import Answers
from tasks.core.training import classifier
from tasks.core.training.classifier import Predict
from tasks.core.training.dataset import Dataset

COLUMNS = ("path", "sha256", "given_group", "format", "width", "height", *MEASURES)  # of the manifest
MAX_BASELINE_IMAGES = 2000  # training images that the baseline of colours learns from


@dataclass(frozen=True)
class Params(params.Section):
    data: Data
    evaluate: Evaluate


def predict(predict_batch: Predict, data: Dataset, split: str, batch_size: int) -> pd.DataFrame:
    """Predicts a split: the first columns of the table of predictions."""
    batches = [
        (batch["path"].numpy(), batch["label"].numpy(), predict_batch(batch["image"]))
        for batch in data.read(split, batch_size)
    ]
    paths, labels, probabilities = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return predictions.of([path.decode() for path in paths], labels, probabilities, data.class_names)


def baseline_classes(data: Dataset, batch_size: int) -> dict[str, Array]:
    """What each baseline says of the test images, in their order: places of classes."""
    sample = data.read("train", batch_size, MAX_BASELINE_IMAGES)
    seen = [(batch["label"].numpy(), batch["image"].numpy()) for batch in sample]
    labels = np.concatenate([label for label, _ in seen])
    features = baselines.histograms(images for _, images in seen)
    asked = baselines.histograms(batch["image"].numpy() for batch in data.read("test", batch_size))
    counts = [data.counts["train"][name] for name in data.class_names]
    return {
        "majority": baselines.majority(np.repeat(range(len(counts)), counts), len(asked)),
        "colours": baselines.colours(features, labels, asked),
    }


def robustness(predict_batch: Predict, data: Dataset, p: Evaluate) -> dict[str, Any]:
    """Accuracy on corrupted test images, by corruption and severity, its mean, and that on clean ones.

    The interval is that over images, each with all its corruptions.
    """
    batch = next(iter(data.read("test", p.robustness, p.robustness)))
    images, labels = batch["image"].numpy(), batch["label"].numpy()

    def right(images: Pixels) -> Array:
        parts = (images[start : start + p.batch_size] for start in range(0, len(images), p.batch_size))
        hits: Array = np.concatenate([predict_batch(part).argmax(axis=1) for part in parts]) == labels
        return hits

    hits: dict[str, dict[str, Array]] = {}
    for name in CORRUPTIONS:
        console.say(f"evaluate: {len(labels)} images corrupted by {name}")
        hits[name] = {str(s): right(corrupt(images, name, s, p.seed)) for s in SEVERITIES}
    each = np.mean([hit for severities in hits.values() for hit in severities.values()], axis=0)
    ends = intervals.bootstrap(lambda rows: each[rows].mean(), len(labels), p.bootstrap, p.seed)
    return {
        "n": len(labels),
        "unharmed": rounded(right(images).mean()),
        "accuracy": rounded(each.mean()),
        "interval_95": {"accuracy": [rounded(end) for end in np.clip(ends, 0, 1)]},
        "corruptions": {
            name: {severity: rounded(hit.mean()) for severity, hit in severities.items()}
            for name, severities in hits.items()
        },
    }


def evaluate(
    models: Path, dataset: Path, manifest: Path, labels: Path, p: Evaluate
) -> tuple[dict[str, Any], int]:
    """Evaluates the model of a folder and writes metrics, predictions of the test split, and label errors.

    Returns:
        The metrics, and the number of likely label errors among validation and test images.
    """
    tensorflow_setup.deterministic(p.seed)
    model, _ = classifier.load(models)
    in_training = classifier.label_errors(models)
    return measure(classifier.predictor(model), Dataset.load(dataset), manifest, labels, p, in_training)


def measure(
    predict_batch: Predict,
    data: Dataset,
    manifest: Path,
    labels: Path,
    p: Evaluate,
    in_training: Sequence[dict[str, Any]] = (),
) -> tuple[dict[str, Any], int]:
    """What `evaluate` does with a loaded model; `in_training` are label errors that `train` has found."""
    frames = {split: predict(predict_batch, data, split, p.batch_size) for split in ("test", "validation")}
    images = read_parquet(manifest, COLUMNS).set_index("path").loc[frames["test"]["path"]]
    # The user's columns aren't in the manifest, where a new one would build and train again.
    parted = slices.parts(images, own_columns(labels).reindex(images.index))
    table = frames["test"].join(parted.reset_index(drop=True).add_prefix(predictions.SLICE))
    table.insert(1, "sha256", images["sha256"].to_numpy())
    said = baseline_classes(data, p.batch_size)
    for name, places in said.items():
        table[predictions.BASELINE + name] = np.array(data.class_names)[places]
    answers = {split: predictions.answers(frame) for split, frame in frames.items()}
    result: dict[str, Any] = {
        split: estimates.headline(answer, p.calibration_bins, p.bootstrap, p.seed)
        for split, answer in answers.items()
    }
    result["per_class"] = metrics.per_class(answers["test"], data.class_names)
    result["slices"] = slices.describe(parted, images, answers["test"].right, p.min_slice)
    temperature = calibration.temperature(*predictions.arrays(frames["validation"]))
    known, before = predictions.arrays(frames["test"])
    after = Answers.of(known, calibration.apply_temperature(before, temperature))
    curves = {"before": answers["test"], "after": after}
    result["calibration"] = {"temperature": temperature} | {
        when: metrics.measure(of, p.calibration_bins, "probabilities") for when, of in curves.items()
    }
    result["baselines"] = {
        name: metrics.measure(predictions.baseline(table, name), p.calibration_bins, "classes")
        for name in said
    }
    if p.robustness:
        result["robustness"] = robustness(predict_batch, data, p)
    judged = pd.concat([frame.assign(split=split) for split, frame in frames.items()], ignore_index=True)
    held_out = label_errors.describe(judged, *predictions.arrays(judged))
    issues = [*held_out, *in_training]  # not in one order: their confidences are measured differently
    predictions.write(PREDICTIONS, table)
    _write_tables(table, curves, result.get("robustness", {}), p.calibration_bins)
    write_json(LABEL_ERRORS, issues)
    write_json(METRICS, result)
    return result, len(held_out)


def _write_tables(test: pd.DataFrame, answers: dict[str, Answers], robust: dict[str, Any], bins: int) -> None:
    """Writes what `dvc plots` draws: `answers` are those of each curve of reliability."""
    curves = [
        pd.DataFrame(calibration.reliability(of.confidence, of.right, bins)).assign(when=when)
        for when, of in answers.items()
    ]
    curve = [
        {"corruption": name, "severity": int(severity), "accuracy": value}
        for name, severities in robust.get("corruptions", {}).items()
        for severity, value in severities.items()
    ]
    tables = {
        "confusion": test[["label", "predicted"]],
        "reliability": pd.concat(curves),
        "robustness": pd.DataFrame(curve, columns=["corruption", "severity", "accuracy"]),
    }
    with replacing(EVALUATION) as folder:
        folder.mkdir()
        for name, table in tables.items():
            table.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")


def main() -> None:
    p = params.load(Params)
    result, issues = evaluate(MODELS, DATASET, MANIFEST, Path(p.data.labels), p.evaluate)
    test = result["test"]
    low, high = test["interval_95"]["accuracy"]
    console.say(
        f"evaluate: test accuracy {test['accuracy']:.4f} (95 %: {low:.4f} to {high:.4f}), "
        f"{test['n']} images; {issues} likely label errors among these and the validation images"
    )


if __name__ == "__main__":
    cli.stage(main)
