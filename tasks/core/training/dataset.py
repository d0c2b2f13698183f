"""Reading a built data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from tasks.core.backbones.tensorflow_setup import AUTOTUNE, tf, without_autotune
from tasks.core.base.contract import Packing, Resize
from tasks.core.base.errors import DataError
from tasks.core.base.files import read_json
from tasks.core.base.paths import DATASET_FACTS

SHUFFLE_BYTES = 1 << 29
SIDE_BY_SIDE = 16  # files
INDEXED = 1024  # records at once
_TEXT = tf.io.FixedLenFeature([], tf.string)
_NAMES = {"path": _TEXT, "label": tf.io.FixedLenFeature([], tf.int64)}
_SPEC = _NAMES | {"image": _TEXT, "sha256": _TEXT}


@dataclass(frozen=True)
class Dataset:
    """A built data set: what `dataset.json` says, and where its records are."""

    folder: Path
    class_names: tuple[str, ...]
    image_size: int
    resize: Resize
    record: Packing
    counts: dict[str, dict[str, int]]  # split -> class -> images
    shards: dict[str, str]  # file name -> sha256
    auto: dict[str, str]  # parameter -> what was chosen, and why

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads `dataset.json`.

        Raises:
            DataError: there is none.
        """
        file = folder / DATASET_FACTS
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
            auto=facts["auto"],
        )

    def size(self, split: str) -> int:
        return sum(self.counts[split].values())

    def read(self, split: str, batch: int, count: int | None = None) -> Any:
        """Streams a split in batches, in its order on disk.

        Args:
            count: so many images of it at most, at even distances: neighbours are of one class.

        Returns:
            A `tf.data.Dataset` of dicts: `image` uint8 (n, size, size, 3), `label` int64 (n,), `path` string
            (n,), `sha256` string (n,), of the image's file.
        """
        records = tf.data.TFRecordDataset(self._paths(self.files(split)))
        if count is not None and count < self.size(split):
            size = self.size(split)
            chosen = records.enumerate().filter(
                lambda place, _: (place + 1) * count // size > place * count // size
            )
            records = chosen.map(lambda _, record: record)
        return self._batch(records, batch)

    def stream(self, names: Sequence[str], batch: int) -> Any:
        """Streams these files of records as `read` does, in the order given."""
        return self._batch(tf.data.TFRecordDataset(self._paths(names)), batch)

    def _batch(self, records: Any, batch: int) -> Any:
        if self.record == "raw":  # a batch is parsed at once, in a third of the time
            stream = records.batch(batch).map(self._parse_all, num_parallel_calls=AUTOTUNE)
        else:
            stream = records.map(self.parse, num_parallel_calls=AUTOTUNE).batch(batch)
        return without_autotune(stream.prefetch(AUTOTUNE))

    def index(self, split: str) -> pd.DataFrame:
        """`path` and `label`, the place of the class, of each image of a split, in the order of `read`."""
        records = tf.data.TFRecordDataset(self._paths(self.files(split))).batch(INDEXED)
        parts = list(records.map(lambda each: tf.io.parse_example(each, _NAMES)).as_numpy_iterator())
        path, label = (np.concatenate([part[name] for part in parts]) for name in _NAMES)
        return pd.DataFrame({"path": [one.decode() for one in path], "label": label})

    def read_shuffled(self, split: str, seed: Any) -> Any:
        """Streams a split's records in an order that depends on the seed, and nothing else.

        They come as they are on disk: what is dropped or drawn again later needs no parsing now.

        Files are read side by side in a random order, and each next image is drawn from a buffer that holds
        half a gigabyte of them: all of most data sets.

        Args:
            seed: an integer, or a tensor of one.

        Returns:
            A `tf.data.Dataset` of strings, for `parse`.
        """
        paths = self._paths(self.files(split))
        each = sum(Path(path).stat().st_size for path in paths) / self.size(split)
        held = min(self.size(split), max(1, int(SHUFFLE_BYTES / each)))

        def once(seed: Any) -> Any:
            # Of this function's graph alone. TensorFlow would else mix its global seed in, which others set.
            tf.compat.v1.set_random_seed(1)
            order = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths), seed, False)
            records = order.interleave(tf.data.TFRecordDataset, SIDE_BY_SIDE, num_parallel_calls=AUTOTUNE)
            return records.shuffle(held, seed, False)

        return without_autotune(tf.data.Dataset.from_tensors(tf.cast(seed, tf.int64)).flat_map(once))

    def files(self, split: str) -> list[str]:
        """Names of the files of records of a split, in order."""
        return sorted(name for name in self.shards if name.startswith(f"{split}-"))

    def _paths(self, names: Sequence[str]) -> list[str]:
        return [str(self.folder / name) for name in names]

    def parse_path(self, serialized: Any) -> Any:
        """Reads the path alone of one record: a string."""
        return tf.io.parse_single_example(serialized, _NAMES)["path"]

    def parse(self, serialized: Any) -> dict[str, Any]:
        """Reads one record: an image of the dict that `read` streams."""
        example = tf.io.parse_single_example(serialized, _SPEC)
        if self.record == "raw":
            image = tf.io.decode_raw(example["image"], tf.uint8)
        else:
            image = tf.io.decode_image(example["image"], channels=3, expand_animations=False)
        example["image"] = tf.reshape(image, (self.image_size, self.image_size, 3))
        return dict(example)

    def _parse_all(self, serialized: Any) -> dict[str, Any]:
        example = tf.io.parse_example(serialized, _SPEC)
        image = tf.io.decode_raw(example["image"], tf.uint8)
        example["image"] = tf.reshape(image, (-1, self.image_size, self.image_size, 3))
        return dict(example)
