"""A file of records: what goes into it, and writing it.

A module of its own: processes find what they work with by its module's name, and that of a stage that was
started is `__main__`.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import PIL

from tasks.core.base.contract import Packing, Resize
from tasks.core.base.errors import DataError
from tasks.core.base.files import fingerprint, sha256
from tasks.core.data import images, tfrecord


@dataclass(frozen=True)
class Picture:
    """What a record holds besides the pixels."""

    path: str
    sha256: str
    label: int


@dataclass(frozen=True)
class Recipe:
    """How pictures become records: side in pixels, fit and format."""

    size: int
    resize: Resize
    record: Packing


@dataclass(frozen=True)
class Shard:
    """A file of records to be written."""

    file: Path
    folder: Path
    pictures: tuple[Picture, ...]
    recipe: Recipe

    @cached_property
    def source(self) -> str:
        """A digest of all that the file's bytes hang on."""
        facts = [[asdict(picture) for picture in self.pictures], asdict(self.recipe), _code()]
        return fingerprint(facts)


@cache
def _code() -> list[str]:
    files = (Path(__file__), *(Path(str(module.__file__)) for module in (images, tfrecord)))
    return [PIL.__version__, np.__version__, *map(sha256, files)]


def write(shard: Shard) -> str:
    """Reads, resizes and packs the pictures of a file; returns its digest.

    Raises:
        DataError: a picture is not the one that was validated.
    """
    with shard.file.open("wb") as file:
        for picture in shard.pictures:
            pixels = _pixels(shard.folder / picture.path, picture, shard.recipe)
            features = {"image": images.encoded(pixels, shard.recipe.record), **asdict(picture)}
            texts = {key: value.encode() for key, value in features.items() if isinstance(value, str)}
            tfrecord.write(file, tfrecord.example(features | texts))
    return sha256(shard.file)


def _pixels(path: Path, picture: Picture, recipe: Recipe) -> images.Pixels:
    data = images.content(path)
    if hashlib.sha256(data).hexdigest() != picture.sha256:
        raise DataError(f"{path} was changed since it was validated; run the pipeline again")
    return images.pixels(data, path, recipe.size, recipe.resize)
