"""Random changes to training images and their features, the same for the same seed, pass and image."""

import math
from dataclasses import astuple
from enum import IntEnum, auto
from typing import Any

from tasks.core.backbones.tensorflow_setup import tf
from tasks.core.training.config import Augment


class Draw(IntEnum):
    """The columns of an image's random numbers. A new one goes to the end, where it changes no other."""

    ANGLE = 0
    DOWN = auto()
    RIGHT = auto()
    ZOOM = auto()
    FLIP = auto()
    WINDOW_SIDE = auto()
    WINDOW_DOWN = auto()
    WINDOW_RIGHT = auto()
    BRIGHTNESS = auto()
    CONTRAST = auto()


def number(seed: int, epoch: Any) -> Any:
    """One number of the seed and the pass, and another for any other two that are likely."""
    return seed * 1_000_003 + epoch


def key(seed: int, epoch: Any, path: Any) -> Any:
    """What an image's random numbers depend on: int64 (2,), whatever order images are worked on in."""
    return tf.stack([number(seed, epoch), tf.strings.to_hash_bucket_fast(path, 2**62)])


def draw(key: Any) -> Any:
    """Draws an image's random numbers: float32 (len(Draw),) in [-1, 1)."""
    return tf.random.stateless_uniform([len(Draw)], key, -1.0, 1.0)


def dropout_mask(shape: list[int], key: Any, dropout: float) -> Any:
    """Draws what dropout multiplies features by: float32 of this shape, 0 or 1 / (1 - dropout)."""
    noise = tf.random.stateless_uniform(shape, key)
    return tf.cast(noise >= dropout, tf.float32) / (1 - dropout)


def augment(images: Any, draws: Any, p: Augment) -> Any:
    """Changes a batch of images at random.

    Args:
        images: float32 (n, h, w, 3) in [0, 1], as is what comes out.
        draws: float32 (n, len(Draw)) in [-1, 1), of `draw`.
        p: `rotation` in degrees to either side; `translation` as a share of the side; `zoom` as a share
            of the size; `crop`, the most of each side that a random window leaves out; `horizontal_flip` for
            half of the images; `brightness`, the most that is added or taken away; `contrast`, the share by
            which differences from the mean grow or shrink.
    """
    assert "auto" not in astuple(p), "which `symmetry` decides"
    return _lit(_move(images, draws, p), draws, p)


def _move(images: Any, draws: Any, p: Augment) -> Any:
    """Cuts, turns, shifts, zooms and flips in one resampling; what comes in from outside is mirrored."""
    if not any((p.rotation, p.translation, p.zoom, p.crop, p.horizontal_flip)):
        return images
    height, width = images.shape[1], images.shape[2]
    drawn = tf.unstack(draws, axis=1)
    angle = drawn[Draw.ANGLE] * p.rotation * math.pi / 180
    window = 1 - (drawn[Draw.WINDOW_SIDE] + 1) / 2 * p.crop
    scale = (1 + drawn[Draw.ZOOM] * p.zoom) * window
    mirror = tf.where(drawn[Draw.FLIP] < 0, -1.0, 1.0) if p.horizontal_flip else tf.ones_like(angle)
    # The matrix takes output pixels to input pixels, about the centre of the image.
    x, y = (width - 1) / 2, (height - 1) / 2
    a, b = scale * tf.cos(angle) * mirror, -scale * tf.sin(angle)
    c, d = scale * tf.sin(angle) * mirror, scale * tf.cos(angle)
    room = (1 - window) / 2  # how far the window may lie from the centre and still be inside
    shift_x = (
        x - a * x - b * y + (drawn[Draw.RIGHT] * p.translation + drawn[Draw.WINDOW_RIGHT] * room) * width
    )
    shift_y = y - c * x - d * y + (drawn[Draw.DOWN] * p.translation + drawn[Draw.WINDOW_DOWN] * room) * height
    zero = tf.zeros_like(a)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([a, b, shift_x, c, d, shift_y, zero, zero], axis=1),
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )


def _lit(images: Any, draws: Any, p: Augment) -> Any:
    """Makes lighter or darker, and differences from the image's mean larger or smaller."""
    if not (p.brightness or p.contrast):
        return images
    brightness, contrast = (draws[:, name, None, None, None] for name in (Draw.BRIGHTNESS, Draw.CONTRAST))
    mean = tf.reduce_mean(images, axis=(1, 2), keepdims=True)
    changed = (images - mean) * (1 + contrast * p.contrast) + mean + brightness * p.brightness
    return tf.clip_by_value(changed, 0.0, 1.0)


def mix_up(images: Any, labels: Any, keys: Any, alpha: float) -> tuple[Any, Any]:
    """Mixes each image, and its label, with the next of the batch: mixup (Zhang et al., 2017).

    Args:
        images: float32 (n, h, w, 3).
        labels: one-hot float32 (n, classes).
        keys: int64 (n, 2) of `key`.
        alpha: of the Beta distribution of the shares; 0 mixes nothing, 1 mixes in any share alike.
    """
    if not alpha:
        return images, labels
    one, other = tf.unstack(
        tf.map_fn(lambda key: tf.random.stateless_gamma([2], key, alpha), keys, tf.float32), axis=1
    )
    share = (one / tf.maximum(one + other, 1e-12))[:, None]  # two gammas make a Beta
    wide = share[:, :, None, None]
    return (
        wide * images + (1 - wide) * tf.roll(images, 1, axis=0),
        share * labels + (1 - share) * tf.roll(labels, 1, axis=0),
    )
