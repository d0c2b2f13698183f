"""Which images are the same or nearly so: an index of their perceptual hashes."""

from itertools import combinations, pairwise
from math import comb

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from tasks.core.data.manifest import MEASURES

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.intp]

BITS = 64
# What images of the same pixels have in common; entropy depends on whether they are stored as grey or as RGB.
LOOKS = ["phash", "width", "height", *(measure for measure in MEASURES if measure != "entropy")]
BLOCK = 4_000_000  # pairs compared at a time
SEARCH = 20  # comparisons in the time that it takes to find the first


def near_sets(hashes: Hashes, distance: int) -> Places:
    """Numbers the sets that near hashes form: those that differ in at most `distance` bits, and their chains.

    Multi-index hashing (Norouzi et al., 2012): of two near hashes, cut into m parts each, there is a part
    in which they differ in few bits, so that only hashes with such a part in common are compared. Those
    known to be in one set are not, or all frames of one scene would be compared with one another.

    Args:
        hashes: distinct, (n,).

    Returns:
        For each hash its set's number.
    """
    sets = np.arange(len(hashes))
    parts = min(range(2, BITS // 4), key=lambda parts: _cost(parts, len(hashes), distance))
    edges = np.linspace(0, BITS, parts + 1).astype(int).tolist()
    for (low, high), radius in zip(pairwise(edges), _radii(parts, distance), strict=True):
        part = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        for count in range(radius + 1):
            for bits in combinations(range(high - low), count):
                flipped = part ^ np.uint64(sum(1 << bit for bit in bits))
                sets = _join(sets, hashes, part, flipped, distance)
    return sets


def _radii(parts: int, distance: int) -> list[int]:
    """Bits in which each part may differ, so that near hashes agree as far in one part at the least.

    If they differed by more in every part, they would differ in more than `distance` bits. -1 is for a
    part that need not be looked at.
    """
    return [distance // parts - (place > distance % parts) for place in range(parts)]


def _cost(parts: int, count: int, distance: int) -> float:
    """How long `count` random hashes take, in comparisons of two hashes."""
    width = BITS // parts
    searches: int = sum(comb(width, bits) for radius in _radii(parts, distance) for bits in range(radius + 1))
    return searches * (SEARCH + count * 0.5**width)


def _join(sets: Places, hashes: Hashes, part: Hashes, wanted: Hashes, distance: int) -> Places:
    """Joins the sets of near hashes, looking at pairs where the part of one is what the other one wants."""
    count = np.uint64(max(1, len(hashes)))
    todo = np.argsort(wanted)  # searching in order is quicker
    while len(todo):
        key = part * count + sets.astype(np.uint64)
        order = np.argsort(key)
        own = wanted[todo] * count + sets[todo].astype(np.uint64)
        key, low, high = key[order], wanted[todo] * count, (wanted[todo] + np.uint64(1)) * count
        start, stop = np.searchsorted(key, low), np.searchsorted(key, high)
        known, beyond = np.searchsorted(key, own), np.searchsorted(key, own, "right")
        length = stop - start - (beyond - known)
        block = slice(max(1, int(np.searchsorted(np.cumsum(length), BLOCK, "right"))))
        # For each hash of the block: the places from `start` on, without those of its own set.
        repeats = length[block]
        first = np.repeat(todo[block], repeats)
        at = np.arange(len(first)) - np.repeat(np.cumsum(repeats) - repeats - start[block], repeats)
        at += np.repeat((beyond - known)[block], repeats) * (at >= np.repeat(known[block], repeats))
        near = _near(hashes, first, order[at], distance)
        if near.any():
            sets = _components(sets[first[near]], sets[order[at][near]], len(sets))[sets]
        todo = todo[block.stop :]
    return sets


def _near(hashes: Hashes, first: Places, second: Places, distance: int) -> npt.NDArray[np.bool_]:
    near: npt.NDArray[np.bool_] = np.bitwise_count(hashes[first] ^ hashes[second]) <= distance
    return near


def _components(starts: Places, ends: Places, size: int) -> Places:
    """Numbers the parts of a graph that its edges connect: for each node that of its part."""
    graph = coo_matrix((np.ones(len(starts), bool), (starts, ends)), (size, size))
    parts: Places = connected_components(graph, directed=False)[1]
    return parts


def near_duplicates(manifest: pd.DataFrame, distance: int, telling: pd.Series, small: pd.Series) -> pd.Series:
    """Numbers the sets of images that are the same or nearly so, each row with its set's number.

    Two images are near where their perceptual hashes differ in at most `distance` of 64 bits; a chain
    of near ones is one set.

    Images whose size and every measure are equal show the same pixels, in whatever file.

    Args:
        manifest: readable images with `sha256`, `phash`, size and measures.
        telling: whether the hash of an image says anything; that of a blank one doesn't.
        small: images with so few pixels that different ones have near hashes; equal ones still count.
    """
    content, contents = pd.factorize(manifest["sha256"])
    hashed, hashes = pd.factorize(manifest["phash"])
    hashed += len(contents)  # a graph: a content has a hash and pixels, a hash is near another
    values = np.array([int(text, 16) for text in hashes], np.uint64)
    large = np.unique(hashed[telling & ~small])
    _, first, place = np.unique(
        near_sets(values[large - len(contents)], distance), return_index=True, return_inverse=True
    )
    pixels = manifest.groupby(LOOKS, sort=False).ngroup().to_numpy() + len(contents) + len(hashes)
    starts = np.concatenate([content[telling], large, content])
    ends = np.concatenate([hashed[telling], large[first][place], pixels])
    size = len(contents) + len(hashes) + len(manifest)
    return pd.Series(_components(starts, ends, size)[content], manifest.index)
