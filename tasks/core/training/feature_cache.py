"""What a frozen backbone says of images: computed once, and kept by what it depends on."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tasks.core.backbones import layer
from tasks.core.base.arrays import Array, recall_arrays
from tasks.core.base.files import code_files, fingerprint
from tasks.core.base.matrix import blocks, let_go, new_matrix, take_rows
from tasks.core.base.paths import cache_folder
from tasks.core.training.dataset import Dataset

BATCH = 64
LARGEST = 1e15  # of a feature: float32 holds the sums of squares over all images


@dataclass(frozen=True)
class Features:
    """Of a split: values float32 (n, k), mapped from disk if they are large, and the places of the classes,
    int64 (n,).

    seconds: that they took, when they were computed.
    """

    values: np.ndarray
    labels: np.ndarray
    seconds: float = 0.0

    def part(self, rows: Array) -> "Features":
        """Those of some images: `rows` is bool (n,)."""
        return replace(self, values=take_rows(self.values, rows), labels=self.labels[rows])

    @property
    def are_numbers(self) -> bool:
        """Whether they are, and small enough to compute with."""
        return all((np.abs(part) < LARGEST).all() for (part,) in blocks(self.values))


def of_split(extract: Callable[[Any], Any], data: Dataset, split: str, source: str) -> Features:
    """Gives the features of a split.

    They are kept file by file of records, in the cache folder: what is known is not computed again, and when
    images come, only the files that they fall into are.

    Args:
        source: says what, besides the images, the features depend on: the backbone and how it is run.
    """
    source = fingerprint(source, Path(__file__), *code_files(Path(layer.__file__).parent))
    return _collect(data, split, lambda name: _of_file(extract, data, name, source))


def compute(extract: Callable[[Any], Any], data: Dataset, split: str) -> Features:
    """Gives the features of a split by a backbone that is like no other, so that they are not kept."""
    return _collect(data, split, lambda name: _compute(extract, data, name))


def _collect(data: Dataset, split: str, of_file: Callable[[str], Features]) -> Features:
    """Puts together what the files of records of a split come to."""
    count, seconds, labels = data.size(split), 0.0, np.empty(0, np.int64)
    values = np.empty((0, 0), np.float32)
    with tqdm(total=count, desc="features", unit=" images", disable=None, leave=False) as progress:
        for part in map(of_file, data.files(split)):
            if not len(labels):
                values = new_matrix(count, part.values.shape[1])
            values[len(labels) : len(labels) + len(part.labels)] = part.values
            let_go(values)
            labels = np.concatenate([labels, part.labels])
            seconds += part.seconds
            progress.update(len(part.labels))
    return Features(values, labels, seconds)


def _of_file(extract: Callable[[Any], Any], data: Dataset, name: str, source: str) -> Features:
    cache_path = cache_folder() / "features" / fingerprint([data.shards[name], source])

    def compute() -> dict[str, Array]:
        found = _compute(extract, data, name)
        return {"values": found.values, "labels": found.labels, "seconds": np.array(found.seconds)}

    known = recall_arrays(cache_path, {"values", "labels", "seconds"}, compute)
    return Features(known["values"], known["labels"], float(known["seconds"]))


def _compute(extract: Callable[[Any], Any], data: Dataset, name: str) -> Features:
    computed, times = [], [time.perf_counter()]
    for batch in data.stream([name], BATCH):
        computed.append((np.asarray(extract(batch["image"])), np.asarray(batch["label"])))
        times.append(time.perf_counter())
    values, labels = (np.concatenate(arrays) for arrays in zip(*computed, strict=True))
    # The first batch, in which the graph is made, takes longer than its work.
    seconds = float(np.median(np.diff(times))) * len(values) / min(BATCH, len(values))
    return Features(values, labels, seconds)
