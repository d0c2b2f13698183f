"""Pictures as TFRecords: decoded and resized once, read many times."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tasks.core.errors import DataError
from tasks.core.images import Packing, Resize
from tasks.core.runtime import AUTOTUNE, tf
from tasks.core.serialize import read_json

PER_SHARD = 2000  # pictures; with raw pictures of 224 pixels a shard is about 300 MB


@dataclass(frozen=True)
class Record:
    """One picture of a data set: `image` is packed as the data set's `record` says."""

    image: bytes
    label: int
    path: str
    sha256: str


def shard_names(split: str, count: int) -> list[str]:
    shards = max(1, -(-count // PER_SHARD))
    return [f"{split}-{shard:05d}-of-{shards:05d}.tfrecord" for shard in range(shards)]


def write_split(folder: Path, split: str, records: Iterable[Record], count: int) -> list[str]:
    """Writes `count` records, `PER_SHARD` to a file, in the order given; returns the file names."""
    names = shard_names(split, count)
    stream = iter(records)
    for name in names:
        with tf.io.TFRecordWriter(str(folder / name)) as writer:
            for record in islice(stream, PER_SHARD):
                writer.write(_example(record).SerializeToString(deterministic=True))
    return names


def _example(record: Record) -> Any:
    def packed(value: bytes) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    label = tf.train.Feature(int64_list=tf.train.Int64List(value=[record.label]))
    feature = {
        "image": packed(record.image),
        "label": label,
        "path": packed(record.path.encode()),
        "sha256": packed(record.sha256.encode()),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature))


@dataclass(frozen=True)
class Dataset:
    """A built data set: what `dataset.json` says, and where its records are."""

    folder: Path
    class_names: tuple[str, ...]
    image_size: int
    resize: Resize
    record: Packing
    counts: dict[str, dict[str, int]]  # split -> class -> pictures
    shards: dict[str, str]  # file name -> sha256

    @classmethod
    def load(cls, folder: Path) -> Dataset:
        """Reads `dataset.json`.

        Raises:
            DataError: there is none.
        """
        file = folder / "dataset.json"
        if not file.is_file():
            raise DataError(f"{file} is missing; run `dvc repro build`")
        facts = read_json(file)
        return cls(
            folder=folder,
            class_names=tuple(facts["class_names"]),
            image_size=facts["image_size"],
            resize=facts["resize"],
            record=facts["record"],
            counts=facts["counts"],
            shards=facts["shards"],
        )

    def size(self, split: str) -> int:
        return sum(self.counts[split].values())

    def read(self, split: str) -> Any:
        """Streams a split, unbatched, in its order on disk.

        Returns:
            A `tf.data.Dataset` of dicts: `image` uint8 (size, size, 3), `label` int64, `path` string.
        """
        files = sorted(str(self.folder / name) for name in self.shards if name.startswith(f"{split}-"))
        return tf.data.TFRecordDataset(files).map(self._parse, num_parallel_calls=AUTOTUNE)

    def _parse(self, serialized: Any) -> dict[str, Any]:
        text = tf.io.FixedLenFeature([], tf.string)
        spec = {"image": text, "label": tf.io.FixedLenFeature([], tf.int64), "path": text}
        example = tf.io.parse_single_example(serialized, spec)
        if self.record == "raw":
            image = tf.io.decode_raw(example["image"], tf.uint8)
        else:
            image = tf.io.decode_image(example["image"], channels=3, expand_animations=False)
        example["image"] = tf.reshape(image, (self.image_size, self.image_size, 3))
        return dict(example)
