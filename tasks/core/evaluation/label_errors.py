"""Images whose label is likely to be wrong, by confident learning (Northcutt, Jiang and Chuang, 2021)."""

from typing import Any

import numpy as np
import pandas as pd
from cleanlab.filter import find_label_issues

from tasks.core.base.arrays import Array


def likely(labels: Array, probabilities: Array) -> list[int]:
    """Finds the rows that the model is surer to be of another class than it usually is of that class.

    The usual is the mean probability of a class over the images with its label. So a class without images
    here is never held against a label, and where there is one class alone, nothing is.

    Args:
        labels: int (n,), places of classes.
        probabilities: float (n, classes), of images that the model was not trained on.
    """
    if len(np.unique(labels)) < 2:
        return []
    rows = find_label_issues(
        labels,
        probabilities,
        filter_by="confident_learning",  # the default warns of small classes and passes over them
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    return [int(row) for row in rows]


def describe(predictions: pd.DataFrame, labels: Array, probabilities: Array) -> list[dict[str, Any]]:
    """The likely label errors among predictions, the least credible label first.

    Args:
        predictions: `path`, `label`, `predicted` and `split`, a row for each of `labels` and `probabilities`.

    Returns:
        For each `path`, `label`, `suggested` (the likeliest class), `self_confidence` (the probability of its
        own label, 0-1) and `split`.
    """
    columns = ["path", "label", "suggested", "self_confidence", "split"]
    own = probabilities[np.arange(len(labels)), labels].round(6)
    frame = predictions.assign(self_confidence=own).rename(columns={"predicted": "suggested"})
    found = frame.iloc[likely(labels, probabilities)][columns].sort_values(["self_confidence", "path"])
    rows: list[dict[str, Any]] = found.to_dict("records")  # type: ignore[assignment]
    return rows
