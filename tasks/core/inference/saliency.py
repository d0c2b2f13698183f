"""Which parts of an image a prediction depends on: what happens when they are hidden.

Occlusion (Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014). It asks the
classifier and looks at nothing inside, so that it explains an artifact of any format.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from tasks.core.data.image_io import Pixels

Array = npt.NDArray[np.float32]
GRID = 8  # windows along each side, each twice as wide as their distance
SHOWN = 256  # pixels of a side of the drawing
CAPTION = 20  # of the line below it
COOL = np.array([11, 92, 173.0])  # colour-blind people can distinguish it from the other too
WARM = np.array([200, 60, 20.0])


def occlusion(image: Array, predict: Callable[[Array], Array], place: int) -> Array:
    """Measures how much less likely a class gets with each part of the image hidden behind its mean colour.

    Args:
        image: float32 (size, size, 3) in [0, 1].
        predict: from (n, size, size, 3) to probabilities (n, classes).
        place: of the class.

    Returns:
        Float32 (GRID, GRID): the drop of the probability, -1 to 1; above 0 where a part speaks for it.
    """
    side = len(image)
    edges = np.linspace(0, side, GRID + 1).round().astype(int)
    margin = max(1, side // GRID // 2)
    hidden = np.repeat(image[None], GRID * GRID, axis=0)
    mean = image.mean(axis=(0, 1))
    for number, copy in enumerate(hidden):
        row, column = divmod(number, GRID)
        top, left = max(0, edges[row] - margin), max(0, edges[column] - margin)
        copy[top : edges[row + 1] + margin, left : edges[column + 1] + margin] = mean
    before = predict(image[None])[0, place]
    drops: Array = (before - predict(hidden)[:, place]).reshape(GRID, GRID).astype(np.float32)
    return drops


def drawing(pixels: Pixels, drops: Array, caption: str) -> Image.Image:
    """Puts an image, and beside it the same in grey under its drops: warm for the class, cool against it.

    Args:
        pixels: uint8 (size, size, 3).
        drops: as `occlusion` gives them; the strongest has full colour.
        caption: what the classifier says, in a few words.
    """
    square = (SHOWN, SHOWN)
    image = Image.fromarray(pixels).resize(square, Image.Resampling.BILINEAR)
    strength = drops / max(float(np.abs(drops).max()), 1e-6)
    resized = Image.fromarray(strength).resize(square, Image.Resampling.BICUBIC)
    smooth = np.asarray(resized).clip(-1, 1)[..., None]
    grey = np.asarray(image.convert("L"), np.float32)[..., None]
    colour = np.where(smooth > 0, WARM, COOL)
    share = np.abs(smooth) * 0.7
    heat = Image.fromarray((grey * (1 - share) + colour * share).round().astype(np.uint8))
    both = Image.new("RGB", (2 * SHOWN, SHOWN + CAPTION))
    both.paste(image, (0, 0))
    both.paste(heat, (SHOWN, 0))
    ImageDraw.Draw(both).text((6, SHOWN + 4), f"{caption}. Warm speaks for it, cool against.", "white")
    return both
