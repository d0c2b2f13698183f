"""Parts of the test images that a model may be worse on than on the whole."""

from collections.abc import Container
from typing import Any

import numpy as np
import pandas as pd

from tasks.core.base.arrays import Array, rounded
from tasks.core.data.manifest import MEASURES
from tasks.core.evaluation.intervals import wilson

MAX_VALUES = 20  # values of a column that are parts of their own; what is rarer is one part together
REST = "all others"
NONE = "none"  # without a value


def parts(images: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """Says for each image which part it is in, a column for each way of parting them.

    Args:
        images: rows of the manifest.
        own: the user's own columns of the labels file, by the same index; may have none.

    Returns:
        Text, by the same index: quartiles `q1` to `q4` of each quality measure and of the size in pixels, the
        format, the group of the labels file, and the user's columns. Measures that are all alike, and columns
        without a value, are left out.
    """
    numbers = _numbers(images)
    names = images[["format"]].assign(group=images["given_group"])
    taken = [*numbers, *names]
    names = names.join(
        own.rename(columns={name: _free(name, {*taken, *own}, " of the labels") for name in taken})
    )
    quartiles = {name: _quartiles(numbers[name].to_numpy(float)) for name in numbers}
    columns = {name: part for name, part in quartiles.items() if len(set(part)) > 1}
    columns |= {str(name): _values(names[name]) for name in names if names[name].notna().any()}
    return pd.DataFrame(columns, images.index)


def _free(name: str, taken: Container[Any], more: str) -> str:
    """A name that is not taken: the one given, or with more words to it."""
    while name in taken:
        name += more
    return name


def _numbers(images: pd.DataFrame) -> pd.DataFrame:
    """What quartiles are made of: the quality measures, and the size in pixels."""
    return images[list(MEASURES)].assign(size=images["width"] * images["height"])


def _quartiles(values: Array) -> Array:
    """A value that several quartiles share counts to the lowest of them."""
    edges = np.quantile(values, [0.25, 0.5, 0.75])
    return np.array(["q1", "q2", "q3", "q4"], object)[np.searchsorted(edges, values)]


def _values(column: pd.Series) -> Array:
    values = set(column.dropna().astype(str))
    none = _free(NONE, values, " (no value)")
    text = column.astype(object).where(column.notna(), none).astype(str)
    frequent = text.value_counts().sort_index().sort_values(ascending=False, kind="stable").index
    if len(frequent) > MAX_VALUES:
        rest = _free(REST, values, " (rare values)")
        text = text.where(text.isin(frequent[: MAX_VALUES - 1]), rest)
    return text.to_numpy(object)


def describe(parted: pd.DataFrame, images: pd.DataFrame, right: Array, min_slice: int) -> dict[str, Any]:
    """What `metrics.json` says of the slices: of what is measured, their accuracy alone.

    Args:
        parted: what `parts` gave.
        right: bool (n,), whether the answer to each image is.
        min_slice: images that a slice needs to be `judged`.

    Returns:
        For each column and each of its values `n`, `accuracy` with its 95 % interval, `judged`, and for
        quartiles `range`, the smallest and largest value in them.
    """
    numbers = _numbers(images)
    result: dict[str, dict[str, Any]] = {}
    for column in map(str, parted):
        result[column] = {}
        for value in sorted(set(parted[column])):
            chosen = (parted[column] == value).to_numpy()
            answered = right[chosen]
            facts: dict[str, Any] = {
                "n": len(answered),
                "accuracy": rounded(answered.mean()),
                "interval_95": [rounded(end) for end in wilson(answered)],
                "judged": len(answered) >= min_slice,
            }
            if column in numbers:
                values = numbers[column].to_numpy()[chosen]
                facts["range"] = [rounded(values.min()), rounded(values.max())]
            result[column][value] = facts
    return result
