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
from tasks.core.base.paths import cache_folder
from tasks.core.training.dataset import Dataset

BATCH = 64
LARGEST = 1e30  # of a feature: float32 holds the sums over all images


@dataclass(frozen=True)
class Features:
    """Of a split: values float32 (n, k), and the places of the classes, int64 (n,).

    seconds: that they took, when they were computed.
    """

    values: np.ndarray
    labels: np.ndarray
    seconds: float = 0.0

    def part(self, rows: Array) -> "Features":
        """Those of some images."""
        return replace(self, values=self.values[rows], labels=self.labels[rows])

    @property
    def are_numbers(self) -> bool:
        """Whether they are, and small enough to compute with."""
        return bool((np.abs(self.values) < LARGEST).all())


def of_split(extract: Callable[[Any], Any], data: Dataset, split: str, source: str) -> Features:
    """Gives the features of a split.

    They are kept file by file of records, in the cache folder: what is known is not computed again, and when
    images come, only the files that they fall into are.

    Args:
        source: says what, besides the images, the features depend on: the backbone and how it is run.
    """
    source = fingerprint(source, Path(__file__), *code_files(Path(layer.__file__).parent))
    parts = []
    with tqdm(total=data.size(split), desc="features", unit=" images", disable=None, leave=False) as progress:
        for name in data.files(split):
            parts.append(_of_file(extract, data, name, source))
            progress.update(len(parts[-1].labels))
    return _join(parts)


def compute(extract: Callable[[Any], Any], data: Dataset, split: str) -> Features:
    """Gives the features of a split by a backbone that is like no other, so that they are not kept."""
    names = tqdm(data.files(split), desc="features", unit=" files", disable=None, leave=False)
    return _join([_compute(extract, data, name) for name in names])


def _join(parts: list[Features]) -> Features:
    return Features(
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.labels for part in parts]),
        sum(part.seconds for part in parts),
    )


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
