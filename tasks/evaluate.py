"""Stage `evaluate`: measures the trained model on pictures it has not seen, and doubts their labels.

Only pictures for validation and test are judged: of those that it was trained on, a model knows the label.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tasks.core import classifier, cli, label_errors, metrics, params, runtime
from tasks.core.paths import DATASET, LABEL_ERRORS, METRICS, MODELS, PREDICTIONS
from tasks.core.records import Dataset
from tasks.core.runtime import AUTOTUNE, tf
from tasks.core.serialize import write_json
from tasks.core.tables import write_parquet


def predict(model: Any, data: Dataset, split: str, batch_size: int) -> pd.DataFrame:
    """Predicts a split: `path`, `label` and `predicted` (class names), and `p_<class>` for each class."""
    rows: list[pd.DataFrame] = []
    names = np.array(data.class_names)

    @tf.function
    def probabilities(images: Any) -> Any:
        return tf.nn.softmax(model(classifier.to_float(images), training=False))

    for batch in data.read(split).batch(batch_size).prefetch(AUTOTUNE):
        answer = probabilities(batch["image"]).numpy()
        frame = pd.DataFrame(answer, columns=[f"p_{name}" for name in names])
        frame.insert(0, "path", [path.decode() for path in batch["path"].numpy()])
        frame.insert(1, "label", names[batch["label"].numpy()])
        frame.insert(2, "predicted", names[answer.argmax(axis=1)])
        rows.append(frame)
    return pd.concat(rows, ignore_index=True)


def measured(frames: dict[str, pd.DataFrame], names: tuple[str, ...], p: params.Evaluate) -> dict[str, Any]:
    """Gives what `metrics.json` holds, from the predictions of each split."""
    result: dict[str, Any] = {}
    for split, frame in frames.items():
        labels, probabilities = _arrays(frame, names)
        result[split] = metrics.headline(labels, probabilities, p.calibration_bins, p.bootstrap, p.seed)
    result["per_class"] = metrics.per_class(*_arrays(frames["test"], names), names)
    result["slices"] = {}
    return result


def doubted(frames: dict[str, pd.DataFrame], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Gives what `label_errors.json` holds, from the predictions of each split."""
    frame = pd.concat([frame.assign(split=split) for split, frame in frames.items()], ignore_index=True)
    return label_errors.described(frame, *_arrays(frame, names))


def _arrays(frame: pd.DataFrame, names: tuple[str, ...]) -> tuple[metrics.Array, metrics.Array]:
    labels = frame["label"].map({name: place for place, name in enumerate(names)}).to_numpy(int)
    return labels, frame[[f"p_{name}" for name in names]].to_numpy(float)


def evaluate(models: Path, dataset: Path, p: params.Evaluate) -> tuple[dict[str, Any], int]:
    """Evaluates the model of a folder and writes metrics, predictions of the test split, and label errors.

    Returns:
        The metrics, and the number of likely label errors.
    """
    runtime.deterministic(p.seed)
    model, _ = classifier.load(models)
    data = Dataset.load(dataset)
    frames = {split: predict(model, data, split, p.batch_size) for split in ("test", "validation")}
    result, doubts = measured(frames, data.class_names, p), doubted(frames, data.class_names)
    text = [(name, pa.string()) for name in ("path", "label", "predicted")]
    schema = pa.schema(text + [(f"p_{name}", pa.float32()) for name in data.class_names])
    write_parquet(PREDICTIONS, frames["test"], schema)
    write_json(LABEL_ERRORS, doubts)
    write_json(METRICS, result)
    return result, len(doubts)


def main() -> None:
    p = params.load()
    result, doubts = evaluate(MODELS, DATASET, p.evaluate)
    test = result["test"]
    low, high = test["interval_95"]["accuracy"]
    cli.say(
        f"evaluate: test accuracy {test['accuracy']:.4f} (95 %: {low:.4f} to {high:.4f}), "
        f"{test['n']} pictures; {doubts} likely label errors"
    )


if __name__ == "__main__":
    cli.stage(main)
