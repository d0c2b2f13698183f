"""Reading a built data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.contract import Packing, Resize
from tasks.core.errors import DataError
from tasks.core.runtime import AUTOTUNE, tf
from tasks.core.serialize import read_json


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
