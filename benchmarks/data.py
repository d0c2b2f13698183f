"""Images to measure with, made on the spot."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

SIZE = (500, 375)
CLASSES = ("china", "flower")
LONG_AGO = 1_000_000_000  # a scan doesn't trust the time of a file that was changed just before


def write_photographs(folder: Path, count: int) -> None:
    """Writes `count` JPEGs of 500 x 375 pixels, about 50 kB each, in two classes.

    They are crops of scikit-learn's two photographs, of 40 to 100 % of their height, scaled and mirrored:
    noise or plain colours would take another time to decode.
    """
    rng = np.random.default_rng(1)
    sources = {label: Image.fromarray(load_sample_image(f"{label}.jpg")) for label in CLASSES}
    for number in range(count):
        label = CLASSES[number % len(CLASSES)]
        source = sources[label]
        height = rng.uniform(0.4, 1) * source.height
        width = height * SIZE[0] / SIZE[1]
        left, top = rng.uniform(0, source.width - width), rng.uniform(0, source.height - height)
        image = source.resize(SIZE, Image.Resampling.BICUBIC, (left, top, left + width, top + height))
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        _save(image, folder / label / f"{number:05d}.jpg", quality=90)


def write_tiny(folder: Path, count: int) -> None:
    """Writes `count` PNGs of 16 x 16 pixels of noise, in ten classes: quickly made, where number matters."""
    rng = np.random.default_rng(1)
    for number in range(count):
        noise = rng.integers(0, 256, (16, 16, 3), np.uint8)
        _save(Image.fromarray(noise), folder / str(number % 10) / f"{number:06d}.png", compress_level=1)


def _save(image: Image.Image, file: Path, **options: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, **options)
    os.utime(file, (LONG_AGO, LONG_AGO))


def link_copies(source: Path, target: Path, copies: int) -> None:
    """Fills `target` with `copies` of the images of `source` under other names, on no more of the disk."""
    for file in source.rglob("*.*"):
        for copy in range(copies):
            link = target / file.parent.name / f"{copy}-{file.name}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.hardlink_to(file)
