"""The table of predictions: a row for each test image, and what to compare and part the images by.

Columns: `path` and `sha256` of the file; `label` and `predicted`, names of classes; `p_<class>`, the
probability of each class; `slice_<kind>`, the part that the image is in; `baseline_<name>`, what a trivial
classifier says.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from tasks.core.base.arrays import Array
from tasks.core.data.parquet import write_parquet
from tasks.core.evaluation.metrics import Answers

PROBABILITY, SLICE, BASELINE = "p_", "slice_", "baseline_"


def of(paths: list[str], labels: Array, probabilities: Array, names: tuple[str, ...]) -> pd.DataFrame:
    """Makes the first columns of the table.

    Args:
        labels: int (n,), places of classes.
        probabilities: float (n, classes).
        names: of the classes, in their order.
    """
    classes = np.array(names)
    frame = pd.DataFrame(probabilities, columns=[PROBABILITY + name for name in names])
    frame.insert(0, "path", paths)
    frame.insert(1, "label", classes[labels])
    frame.insert(2, "predicted", classes[probabilities.argmax(axis=1)])
    return frame


def write(path: Path, frame: pd.DataFrame) -> None:
    """Writes the table: probabilities float32, all else text."""
    types = [
        (name, pa.float32() if name.startswith(PROBABILITY) else pa.string()) for name in map(str, frame)
    ]
    write_parquet(path, frame, pa.schema(types))


def class_names(frame: pd.DataFrame) -> tuple[str, ...]:
    columns = (name for name in map(str, frame) if name.startswith(PROBABILITY))
    return tuple(name.removeprefix(PROBABILITY) for name in columns)


def arrays(frame: pd.DataFrame) -> tuple[Array, Array]:
    """Labels, int (n,), and probabilities, float (n, classes)."""
    names = class_names(frame)
    return _places(frame["label"], names), frame[[PROBABILITY + name for name in names]].to_numpy(float)


def answers(frame: pd.DataFrame) -> Answers:
    return Answers.of(*arrays(frame))


def baseline(frame: pd.DataFrame, name: str) -> Answers:
    """What a trivial classifier answers, each time with probability 1."""
    names = class_names(frame)
    labels, predicted = (_places(frame[column], names) for column in ("label", BASELINE + name))
    right = labels == predicted
    return Answers(labels, predicted, np.ones(len(frame)), right.astype(float), (~right).astype(int))


def another(other: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """Another model's table for the images that our own holds too, with its labels and all classes of both.

    A class that one of them doesn't know has probability -1 there.
    """
    # Of another image under the same path the other model said nothing.
    same = [name for name in ("path", "sha256") if name in own and name in other]
    names = dict.fromkeys([*class_names(own), *class_names(other)])
    columns = [PROBABILITY + name for name in names]
    answered = other.reindex(columns=[*same, "predicted", *columns], fill_value=-1.0)
    return own[[*same, "label"]].merge(answered, on=same, validate="one_to_one")


def _places(labels: pd.Series, names: tuple[str, ...]) -> Array:
    return labels.map({name: place for place, name in enumerate(names)}).to_numpy(int)
