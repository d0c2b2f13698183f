"""Linear probes: how well a regression on a frozen backbone's features tells the user's classes apart.

They take a small part of the time that training does, and what is best in them mostly is so after it.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tasks.core.backbones import logistic, store
from tasks.core.backbones.catalogue import UNPINNED
from tasks.core.backbones.layer import backbone_layer, extractor
from tasks.core.backbones.scaling import Scaling
from tasks.core.backbones.tensorflow_setup import tf
from tasks.core.base.arrays import Array, recall_arrays
from tasks.core.base.errors import BackboneError, brief
from tasks.core.base.files import code_files, fingerprint
from tasks.core.base.paths import cache_folder

SHARE = 0.25  # of the training images that are looked at, but
FEWEST, MOST = 400, 1000  # images, of which the loss is known to about 5 and 3 percent
PER_CLASS = 8  # images of a class at least, where it has them; of many classes some are left out
BATCH = 64
LEAST_COMPARED = 40  # images; what fewer come to is chance
LEAST_GAIN = 0.01  # nats
WORTH = 0.95  # what the loss must fall to where images of twice the side take four times the work


@dataclass(frozen=True)
class Probe:
    """What images of one size came to.

    size: side in pixels. accuracy: 0-1, of `hits`, bool (n,). loss: mean cross-entropy in nats, and losses
    each image's, (n,). milliseconds: that the backbone took for an image when these features were computed.
    """

    size: int
    hits: Array
    losses: Array
    milliseconds: float

    @property
    def accuracy(self) -> float:
        return float(self.hits.mean())

    @property
    def loss(self) -> float:
        return float(self.losses.mean())

    def pays_beside(self, smaller: "Probe") -> bool:
        """Whether the loss is lower beyond its standard error, and by enough for the larger size."""
        enough = smaller.loss * (1 - WORTH ** log2(self.size / smaller.size))
        gains = smaller.losses - self.losses
        least = max(enough, LEAST_GAIN, gains.std() / np.sqrt(len(gains)))
        return bool(gains.mean() > least)


def sample(labels: Array, share: float = SHARE) -> Array:
    """Places of the images to look at: as many of each class, the first of them.

    There are none of classes of a single image, and none at all where they are too few to tell sizes apart.
    """
    wanted = int(np.clip(len(labels) * share, FEWEST, MOST))
    counts = np.bincount(labels)
    classes = np.flatnonzero(counts >= 2)
    count = min(len(classes), wanted // PER_CLASS)
    classes = classes[np.linspace(0, len(classes) - 1, count).astype(int)]
    each = wanted // max(1, count)
    found = [np.flatnonzero(labels == place)[:each] for place in classes]
    places = np.sort(np.concatenate(found)) if len(found) >= 2 else np.empty(0, int)
    return places if len(places) >= LEAST_COMPARED else places[:0]


def probe_sizes(
    name: str, sizes: Iterable[int], images: Callable[[int], Array], labels: Array, sha256: str = UNPINNED
) -> Iterator[Probe]:
    """Probes a backbone on images of each size.

    Features are kept in the cache folder, by the images and the backbone.

    Args:
        sizes: sides in pixels.
        images: gives them at a size, uint8 (n, size, size, 3).
        labels: places of their classes, int (n,), each at least twice.

    Raises:
        BackboneError: it can't be fetched or loaded, has another digest, or gives no numbers.
    """
    facts = store.facts(name, sha256)
    extract = extractor(backbone_layer(name, trainable=False, sha256=sha256, inner=facts.has_endpoints))
    devices = [device.device_type for device in tf.config.list_physical_devices()]
    known_by = [facts.sha256, facts.has_endpoints, devices, version("tensorflow")]
    source = fingerprint(known_by, *code_files(Path(__file__).parent))
    classes = np.unique(labels, return_inverse=True)[1]
    for size in sizes:
        try:
            values, milliseconds = _recall(extract, images(size), source)
        except tf.errors.OpError as error:
            raise BackboneError(f"{name} takes no images of {size} pixels ({brief(error)})") from None
        if values.ndim != 2 or not np.isfinite(values).all():
            raise BackboneError(f"{name} gives no feature vectors of numbers for images of {size} pixels")
        with threadpool_limits(1):
            kinds = {values.shape[1], facts.features or values.shape[1]}
            found = [_predict(values[:, :width], classes) for width in sorted(kinds)]
        best = min(found, key=lambda left_out: left_out.loss)
        yield Probe(size, best.hits, best.losses, milliseconds)


def _recall(extract: Callable[[Array], Any], pixels: Array, source: str) -> tuple[Array, float]:
    """What `_extract` gives, from the cache if it is there."""
    name = fingerprint([hashlib.sha256(pixels.data).hexdigest(), pixels.shape, source])

    def compute() -> dict[str, Array]:
        values, milliseconds = _extract(extract, pixels)
        return {"values": values, "milliseconds": np.array(milliseconds)}

    known = recall_arrays(cache_folder() / "features" / name, {"values", "milliseconds"}, compute)
    return known["values"], float(known["milliseconds"])


def _extract(extract: Callable[[Array], Any], pixels: Array) -> tuple[Array, float]:
    """Features of all images, and the milliseconds that one takes, making the graph aside."""
    extract(pixels[:BATCH])
    begin = time.perf_counter()
    batches = (pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH))
    values = np.concatenate([np.asarray(extract(batch)) for batch in batches])
    return values, (time.perf_counter() - begin) / len(pixels) * 1000


def _predict(values: Array, labels: Array) -> logistic.LeftOut:
    return logistic.cross_validate(Scaling.of(values).apply(values), labels)


def choose_size(probes: Iterator[Probe]) -> tuple[Probe, list[Probe]]:
    """The size that pays, of those from the smallest up, and all that were looked at.

    It ends where the loss rises.
    """
    best = last = next(probes)
    seen = [best]
    for probe in probes:
        seen.append(probe)
        if probe.pays_beside(best):
            best = probe
        if probe.loss > last.loss:
            break
        last = probe
    return best, seen
