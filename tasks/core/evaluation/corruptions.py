"""What may befall an image in use: six kinds of harm, each in three severities.

After Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations" (2019). The severities are our own, milder than theirs; lengths are shares of the side, since
images come at the model's size.
"""

from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image, ImageFilter

from tasks.core.data.image_io import Pixels

SEVERITIES = (1, 2, 3)


def brightness(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Lighter or darker by 0.1, 0.2 or 0.3 of the whole range."""
    return _bytes(image + rng.choice([-1, 1]) * 25.5 * severity)


def contrast(image: Pixels, severity: int, _rng: np.random.Generator) -> Pixels:
    """Differences from the mean, shrunk to 0.7, 0.5 or 0.3."""
    mean = image.mean()
    return _bytes(mean + (image - mean) * (0.7, 0.5, 0.3)[severity - 1])


def blur(image: Pixels, severity: int, _rng: np.random.Generator) -> Pixels:
    """Gaussian, its deviation 0.5, 1 or 1.5 % of the side."""
    radius = len(image) * 0.005 * severity
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def noise(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Gaussian in each pixel and colour, its deviation 0.04, 0.08 or 0.12 of the range."""
    return _bytes(image + rng.standard_normal(image.shape) * 255 * 0.04 * severity)


def jpeg(image: Pixels, severity: int, _rng: np.random.Generator) -> Pixels:
    """Compressed by JPEG at a quality of 50, 25 or 10."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=(50, 25, 10)[severity - 1])
    return np.asarray(Image.open(buffer))


def rotation(image: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """Turned by 5, 10 or 15 degrees to either side, the border going on beyond itself."""
    side = len(image)
    margin = side // 4
    wide = Image.fromarray(np.pad(image, ((margin, margin), (margin, margin), (0, 0)), "edge"))
    turned = wide.rotate(float(rng.choice([-1, 1])) * 5 * severity, Image.Resampling.BILINEAR)
    return np.asarray(turned)[margin : margin + side, margin : margin + side]


CORRUPTIONS: dict[str, Callable[[Pixels, int, np.random.Generator], Pixels]] = {
    corruption.__name__: corruption for corruption in (brightness, contrast, blur, noise, jpeg, rotation)
}


def corrupt(images: Pixels, name: str, severity: int, seed: int) -> Pixels:
    """Harms each image, by a seed and its place: every severity draws alike.

    Args:
        images: uint8 (n, size, size, 3).
        name: of `CORRUPTIONS`.
        severity: 1, 2 or 3.
    """
    kind = list(CORRUPTIONS).index(name)
    return np.stack(
        [
            CORRUPTIONS[name](image, severity, np.random.default_rng([seed, kind, place]))
            for place, image in enumerate(images)
        ]
    )


def _bytes(values: np.ndarray) -> Pixels:
    return values.round().clip(0, 255).astype(np.uint8)
