"""What training is fed: full batches out of one endless stream, in an order that seed and epoch decide."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from tasks.core.backbones.layer import to_float
from tasks.core.backbones.tensorflow_setup import AUTOTUNE, tf, without_autotune
from tasks.core.base.arrays import Array
from tasks.core.training.augmentation import augment, draw, dropout_mask, key, mix_up
from tasks.core.training.config import ClassWeight, Recipe
from tasks.core.training.dataset import Dataset

HELD_OUT_BATCH = 64
HASHES = 2**62  # of paths, so many that no two are likely to share one
ROWS, COLUMNS, GAP = 6, 8, 4  # of the sheet of augmented images; the gap in pixels
SHEET = (1200, 1200)  # pixels that it has at most


@dataclass(frozen=True)
class Batches:
    """Batches of `((images, dropout_mask), labels, weights)` for the classifier as it trains.

    images: float32 (n, size, size, 3) in [0, 1].
    dropout_mask: float32 (n, width), what dropout multiplies the features by: 0, or 1 / (1 - dropout).
    labels: float32 (n, classes), one-hot or mixed.
    weights: float32 (n,), of the images in the loss.
    """

    data: Dataset
    p: Recipe
    dropout: float
    width: int  # of the backbone's features
    left_out: dict[str, str] = field(default_factory=dict)  # paths of training images, and their classes

    @property
    def size(self) -> int:
        """Images of a pass."""
        return self.data.size("train") - len(self.left_out)

    @property
    def steps(self) -> int:
        """Batches of an epoch. An epoch's last batch goes on with images of the next pass over them."""
        return -(-self.size // self.p.batch_size)

    def training(self, epoch: int) -> Any:
        """Streams batches from the beginning of an epoch on, counted from 0, without end."""
        passes, into = divmod(epoch * self.steps * self.p.batch_size, self.size)
        stream = tf.data.Dataset.range(passes, 2**31).flat_map(self._pass).skip(into)
        stream = stream.map(self._draw, AUTOTUNE).batch(self.p.batch_size, drop_remainder=True)
        return _shareable(stream.map(self._finish, AUTOTUNE))

    def _pass(self, number: Any) -> Any:
        """The record of every image once, in this pass's order, with the pass's number."""
        records = self.data.read_shuffled("train", self.p.seed + number)
        if self.left_out:
            records = records.filter(self._is_trained_on)
        return records.map(lambda record: (number, record))

    def _is_trained_on(self, record: Any) -> Any:
        left_out = tf.strings.to_hash_bucket_fast(tf.constant(list(self.left_out)), HASHES)
        path = tf.strings.to_hash_bucket_fast(self.data.parse_path(record), HASHES)
        return tf.reduce_all(left_out != path)

    def _draw(self, number: Any, record: Any) -> Any:
        example = self.data.parse(record)
        drawn_by = key(self.p.seed, number, example["path"])
        mask = dropout_mask([self.width], drawn_by + 1, self.dropout)
        return example | {"key": drawn_by, "dropout_mask": mask, "draws": draw(drawn_by)}

    def _finish(self, batch: Any) -> Any:
        labels = tf.one_hot(batch["label"], len(self.data.class_names))
        images = augment(to_float(batch["image"]), batch["draws"], self.p.augment)
        images, labels = mix_up(images, labels, batch["key"] + 2, self.p.mixup)
        assert self.p.class_weight != "auto", "which the head decides"
        weights = tf.linalg.matvec(labels, class_weights(self._counts(), self.p.class_weight))
        return (images, batch["dropout_mask"]), labels, weights

    def _counts(self) -> Array:
        """Images of each class in a pass, (classes,)."""
        left_out = Counter(self.left_out.values())
        return np.array([self.data.counts["train"][name] - left_out[name] for name in self.data.class_names])

    def validation(self) -> Any:
        """The validation images once, as they are."""

        def finished(batch: Any) -> Any:
            count = tf.shape(batch["label"])[0]
            labels = tf.one_hot(batch["label"], len(self.data.class_names))
            return (to_float(batch["image"]), tf.ones((count, self.width))), labels, tf.ones(count)

        count = -(-self.data.size("validation") // HELD_OUT_BATCH)
        stream = self.data.read("validation", HELD_OUT_BATCH).map(finished, AUTOTUNE)
        return _shareable(stream.apply(tf.data.experimental.assert_cardinality(count)))


def sheet(data: Dataset, params: Recipe) -> Image.Image:
    """Draws a few images, a row for each: as it is, and as the first passes change it."""
    rows = []
    for example in data.read_shuffled("train", params.seed).map(data.parse).take(ROWS):
        plain = to_float(example["image"])[None]
        keys = [key(params.seed, number, example["path"]) for number in range(COLUMNS - 1)]
        rows.append(tf.concat([plain, *(augment(plain, draw(k)[None], params.augment) for k in keys)], 0))
    pixels = tf.cast(tf.round(tf.stack(rows) * 255), tf.uint8).numpy()
    gaps = [(0, 0), (0, 0), (GAP, 0), (GAP, 0), (0, 0)]
    tiles = np.pad(pixels, gaps, constant_values=255).transpose(0, 2, 1, 3, 4)
    sheet = Image.fromarray(tiles.reshape(tiles.shape[0] * tiles.shape[1], -1, 3))
    sheet.thumbnail(SHEET)
    return sheet


def class_weights(counts: Array, how: ClassWeight) -> Array:
    """Weights of the classes in the loss, float32 (classes,), on average 1 for each image.

    Args:
        counts: images of each class, int (classes,).
        how: "none": all 1. "balanced": all classes together count alike, as scikit-learn has it. "root": the
            square root of these (Mahajan et al., 2018), half the way between the two.
    """
    exponent = {"none": 0.0, "root": 0.5, "balanced": 1.0}[how]
    weights = np.maximum(counts, 1) ** -exponent
    weights *= counts.sum() / (weights @ counts)
    return np.where(counts > 0, weights, 1.0).astype(np.float32)


def _shareable(stream: Any) -> Any:
    """Has several workers share out each batch, not the files: all see one order, and each takes its part."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return without_autotune(stream.prefetch(AUTOTUNE)).with_options(options)
