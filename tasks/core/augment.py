"""Random changes to training pictures, the same for the same seed, epoch and picture."""

from __future__ import annotations

import math
from typing import Any

from tasks.core.params import Augment
from tasks.core.runtime import tf

DRAWS = 5  # random numbers that a picture takes: angle, two shifts, zoom, flip


def draw(seed: int, epoch: Any, index: Any) -> Any:
    """Draws a picture's random numbers: float32 (5,) in [-1, 1).

    They hang on seed, epoch and picture alone, not on the order in which pictures are worked on.
    """
    return tf.random.stateless_uniform([DRAWS], [seed * 1_000_003 + epoch, index], -1.0, 1.0)


def augmented(images: Any, draws: Any, p: Augment) -> Any:
    """Turns, shifts, zooms and flips a batch in one resampling; what comes in from outside is mirrored.

    Args:
        images: float32 (n, h, w, 3).
        draws: float32 (n, 5) in [-1, 1), of `draw`.
        p: `rotation` in degrees to either side, `translation` as a share of the side, `zoom` as a
            share of the size, `horizontal_flip` for half of the pictures.
    """
    height, width = images.shape[1], images.shape[2]
    angle, down, right, zoom, flip = tf.unstack(draws, axis=1)
    angle = angle * p.rotation * math.pi / 180
    scale = 1 + zoom * p.zoom
    mirror = tf.where(flip < 0, -1.0, 1.0) if p.horizontal_flip else tf.ones_like(flip)
    # The matrix takes output pixels to input pixels, about the centre of the picture.
    x, y = (width - 1) / 2, (height - 1) / 2
    a, b = scale * tf.cos(angle) * mirror, -scale * tf.sin(angle)
    c, d = scale * tf.sin(angle) * mirror, scale * tf.cos(angle)
    shift_x = x - a * x - b * y + right * p.translation * width
    shift_y = y - c * x - d * y + down * p.translation * height
    zero = tf.zeros_like(a)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([a, b, shift_x, c, d, shift_y, zero, zero], axis=1),
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )
