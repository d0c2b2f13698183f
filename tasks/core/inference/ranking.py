"""Which backbone? Each is probed on a sample of the user's images."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from tasks.core.backbones import probe, store
from tasks.core.base import console, params
from tasks.core.base.arrays import Array
from tasks.core.base.errors import BackboneError, DataError, ParamError
from tasks.core.base.files import size
from tasks.core.base.params import Data
from tasks.core.data import discovery, image_io
from tasks.core.data.config import Build
from tasks.core.data.entries import Entry
from tasks.core.evaluation.intervals import wilson


@dataclass(frozen=True)
class Params(params.Section):
    data: Data
    build: Build


@dataclass(frozen=True)
class Ranked:
    """A row of the ranking: accuracy of left-out images with its 95 % interval, ms an image, MB.

    passes: the work of a training by `params.yaml`; one is that of the backbone on all training images at its
    own size.
    """

    name: str
    image_size: int
    accuracy: float
    interval_95: tuple[float, float]
    milliseconds: float
    megabytes: float
    passes: float


class Sample(NamedTuple):
    """Some of the user's images, as many of each class.

    labels: places of classes.
    side: typical, in pixels, of the shorter ones.
    counts: images that there are of each class.
    """

    files: list[Path]
    labels: Array
    side: float
    counts: list[int]


def read_sample(data: Data) -> Sample:
    """Draws a sample and looks at it.

    Raises:
        DataError: no usable folder or labels file, or too few images to tell anything.
    """
    entries, _ = discovery.discover(Path(data.images), Path(data.labels))
    # Of a group, as of frames of one scene, the first: the others would be predicted by it.
    groups = {entry.group or entry.path: entry for entry in reversed(shuffle(entries))}
    chosen = list(groups.values())
    labels = np.unique([entry.label for entry in chosen], return_inverse=True)[1]
    files, places, sides = [], [], []
    for place in probe.sample(labels, share=1):
        file = Path(data.images) / chosen[place].path
        try:
            sides.append(min(image_io.decode(image_io.open_image(image_io.content(file))).size))
        except DataError as error:
            console.warn(f"backbones: left out, {file} {error}")
        else:
            files.append(file)
            places.append(int(labels[place]))
    kept = probe.sample(np.array(places, int), share=1)
    if not len(kept):
        raise DataError(f"data.images: {data.images} has too few images that can be read to rank by")
    labels = np.array(places)[kept]
    counts = list(Counter(entry.label for entry in entries).values())
    return Sample([files[place] for place in kept], labels, float(np.median(sides)), counts)


def shuffle(entries: list[Entry]) -> list[Entry]:
    """In an order by a hash of the paths, of which any beginning is a fair sample."""
    return sorted(entries, key=lambda entry: hashlib.sha256(entry.path.encode()).digest())


def rank(
    names: list[str], sizes: list[int], count_passes: Callable[[str, int, list[int]], float]
) -> Iterator[Ranked]:
    """Probes each backbone at each size.

    Args:
        names: none for those that are built in or in the cache.
        sizes: none for those that `model.image_size: auto` may choose.
        count_passes: tells the work of a training, by backbone, image size and images of each class.
    """
    p = params.load(Params)
    sample = read_sample(p.data)

    def read(side: int) -> Array:
        return np.stack([image_io.read(file, side, p.build.resize) for file in sample.files])

    for name in names or [row.name for row in store.list_backbones() if row.cached or row.is_built_in]:
        try:
            given = [store.image_sizes(name, side, sample.side)[0] for side in sizes]
            asked = given or store.image_sizes(name, "auto", sample.side)
            megabytes = size(store.folder(name)) / 1e6
            progress = tqdm(asked, name, unit=" sizes", disable=None, leave=False)
            for seen in probe.probe_sizes(name, progress, read, sample.labels):
                figures = seen.accuracy, wilson(seen.hits), seen.milliseconds
                passes = count_passes(name, seen.size, sample.counts)
                yield Ranked(name, seen.size, *figures, megabytes, passes)
        except (BackboneError, ParamError) as error:
            console.warn(f"backbones: {name} left out, {error}")


def table(rows: Iterable[Ranked]) -> Iterator[str]:
    """The ranking in aligned columns, the most accurate first."""
    yield (
        f"{'name':<26}  {'pixels':>6}  {'accuracy':>8}  {'95 %':<13}  {'ms an image':>11}  {'MB':>5}  "
        f"{'passes':>6}"
    )
    for row in sorted(rows, key=lambda row: -row.accuracy):
        low, high = row.interval_95
        yield (
            f"{row.name:<26}  {row.image_size:>6}  {row.accuracy:>8.1%}  {f'{low:.1%}-{high:.1%}':<13}  "
            f"{row.milliseconds:>11.1f}  {row.megabytes:>5.0f}  "
            f"{row.passes:>6.1f}"
        )
