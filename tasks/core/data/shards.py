"""A file of records: what goes into it, and writing it.

A module of its own: processes find what they work with by its module's name, and that of a stage that was
started is `__main__`.
"""

from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import PIL

from tasks.core.base.contract import Packing, Resize
from tasks.core.base.files import fingerprint, sha256
from tasks.core.data import image_io, tfrecord


@dataclass(frozen=True, slots=True)
class Image:
    """What a record holds besides the pixels."""

    path: str
    sha256: str
    label: int


@dataclass(frozen=True)
class Recipe:
    """How images become records: side in pixels, fit and format."""

    size: int
    resize: Resize
    record: Packing


@dataclass(frozen=True)
class Shard:
    """A file of records to be written.

    folder: that paths of images start from. sizes: bytes of each image.
    """

    file: Path
    folder: Path
    images: tuple[Image, ...]
    recipe: Recipe
    sizes: tuple[int, ...]

    @cached_property
    def source(self) -> str:
        """A digest of all that the file's bytes depend on."""
        facts = [[asdict(image) for image in self.images], asdict(self.recipe), _code()]
        return fingerprint(facts)


@cache
def _code() -> list[str]:
    files = (Path(__file__), *(Path(str(module.__file__)) for module in (image_io, tfrecord)))
    return [PIL.__version__, np.__version__, *map(sha256, files)]


def write(shard: Shard) -> str:
    """Reads, resizes and packs the images of a file; returns its digest.

    Raises:
        DataError: an image is not the one that was validated.
    """
    with shard.file.open("wb") as file:
        for image in shard.images:
            pixels = read(shard.folder / image.path, image, shard.recipe)
            features = {"image": image_io.encode(pixels, shard.recipe.record), **asdict(image)}
            texts = {key: value.encode() for key, value in features.items() if isinstance(value, str)}
            tfrecord.write(file, tfrecord.example(features | texts))
    return sha256(shard.file)


def read(path: Path, image: Image, recipe: Recipe) -> image_io.Pixels:
    """Reads and resizes an image: uint8 (size, size, 3).

    Raises:
        DataError: it is not the one that was validated.
    """
    data = image_io.validated(path, image.sha256)
    return image_io.pixels(data, path, recipe.size, recipe.resize)
