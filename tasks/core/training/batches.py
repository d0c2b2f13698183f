"""What training is fed: full batches out of one endless stream, in an order that seed and epoch decide."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from sklearn.utils.class_weight import compute_class_weight

from tasks.core.backbones.layer import to_float
from tasks.core.backbones.tensorflow_setup import AUTOTUNE, tf, without_autotune
from tasks.core.training.augmentation import augment, draw, dropout_mask, key, mix_up
from tasks.core.training.config import Train
from tasks.core.training.dataset import Dataset
from tasks.core.training.effort import Recipe

HELD_OUT_BATCH = 64
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

    @property
    def steps(self) -> int:
        """Batches of an epoch. An epoch's last batch goes on with images of the next pass over them."""
        return -(-self.data.size("train") // self.p.batch_size)

    def training(self, epoch: int) -> Any:
        """Streams batches from the beginning of an epoch on, counted from 0, without end."""
        passes, into = divmod(epoch * self.steps * self.p.batch_size, self.data.size("train"))
        stream = tf.data.Dataset.range(passes, 2**31).flat_map(self._pass).skip(into)
        stream = stream.map(self._draw, AUTOTUNE).batch(self.p.batch_size, drop_remainder=True)
        return _shareable(stream.map(self._finish, AUTOTUNE))

    def _pass(self, number: Any) -> Any:
        """The record of every training image once, in this pass's order, with the pass's number."""
        return self.data.read_shuffled("train", self.p.seed + number).map(lambda record: (number, record))

    def _draw(self, number: Any, record: Any) -> Any:
        example = self.data.parse(record)
        drawn_by = key(self.p.seed, number, example["path"])
        mask = dropout_mask([self.width], drawn_by + 1, self.dropout)
        return example | {"key": drawn_by, "dropout_mask": mask, "draws": draw(drawn_by)}

    def _finish(self, batch: Any) -> Any:
        labels = tf.one_hot(batch["label"], len(self.data.class_names))
        images = augment(to_float(batch["image"]), batch["draws"], self.p.augment)
        images, labels = mix_up(images, labels, batch["key"] + 2, self.p.mixup)
        weights = tf.linalg.matvec(labels, class_weights(self.data, self.p))
        return (images, batch["dropout_mask"]), labels, weights

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


def class_weights(data: Dataset, p: Train) -> np.ndarray:
    """Weights of the classes, float32 (classes,): 1, or balanced as scikit-learn does it."""
    counts = [data.counts["train"][name] for name in data.class_names]
    if p.class_weight == "none":
        return np.ones(len(counts), np.float32)
    places = np.arange(len(counts))
    labels = np.repeat(places, counts)
    found = np.ones(len(counts))
    found[np.unique(labels)] = compute_class_weight("balanced", classes=np.unique(labels), y=labels)
    return found.astype(np.float32)


def _shareable(stream: Any) -> Any:
    """Has several workers share out each batch, not the files: all see one order, and each takes its part."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return without_autotune(stream.prefetch(AUTOTUNE)).with_options(options)
