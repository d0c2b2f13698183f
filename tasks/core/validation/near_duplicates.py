"""Which images are the same or nearly so: an index of their perceptual hashes, and their colours."""

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
Colours = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

BITS = 64
# What images of the same pixels have in common; entropy depends on whether they are stored as grey or as RGB.
LOOKS = ["phash", "chroma", "width", "height", *(measure for measure in MEASURES if measure != "entropy")]
BLOCK = 4_000_000  # pairs compared before what was found in them is known
PAIRS = 200_000  # in memory at a time
SEARCH = 20  # comparisons in the time that it takes to find the first
# Root mean squares of Cb and Cr, 0-255. JPEG at quality 30, half the size, 3 % cut off, or 30 % more contrast
# came to 13 at most on 315 photographs and drawings; two flags of one outline mostly to 20 to 60.
OTHER_COLOURS = 20
GREY = 4  # from 128: an image that nowhere is further is grey, and may be a copy of one in any colour


def near_sets(hashes: Hashes, colours: Colours, distance: int) -> Places:
    """Numbers the sets that near images form, and their chains.

    Two are near whose hashes differ in at most `distance` bits and whose colours are alike.

    Multi-index hashing (Norouzi et al., 2012): of two near hashes, cut into m parts each, there is a part
    in which they differ in few bits, so that only hashes with such a part in common are compared. Those
    known to be in one set are not, or all frames of one scene would be compared with one another.

    Args:
        hashes: (n,).
        colours: mean Cb and Cr of each image's cells, (n, values).

    Returns:
        For each image its set's number.
    """
    sets = np.arange(len(hashes))
    parts = min(range(2, BITS // 4), key=lambda parts: _cost(parts, len(hashes), distance))
    edges = np.linspace(0, BITS, parts + 1).astype(int).tolist()
    for (low, high), radius in zip(pairwise(edges), _radii(parts, distance), strict=True):
        part = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        for count in range(radius + 1):
            for bits in combinations(range(high - low), count):
                flipped = part ^ np.uint64(sum(1 << bit for bit in bits))
                sets = _join(sets, hashes, colours, part, flipped, distance)
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


def _join(
    sets: Places, hashes: Hashes, colours: Colours, part: Hashes, wanted: Hashes, distance: int
) -> Places:
    """Joins the sets of near images, looking at pairs where the part of one is what the other one wants."""
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
        end = _reach(length, BLOCK)
        found = []
        begin = 0
        while begin < end:
            some = slice(begin, min(end, begin + _reach(length[begin:end], PAIRS)))
            # For each hash of these: the places from `start` on, without those of its own set.
            repeats = length[some]
            first = np.repeat(todo[some], repeats)
            at = np.arange(len(first)) - np.repeat(np.cumsum(repeats) - repeats - start[some], repeats)
            at += np.repeat((beyond - known)[some], repeats) * (at >= np.repeat(known[some], repeats))
            second = order[at]
            near = _near(hashes, first, second, distance)
            first, second = first[near], second[near]
            alike = _alike(colours[first], colours[second])
            found.append((sets[first[alike]], sets[second[alike]]))
            begin = some.stop
        starts, ends = np.concatenate(found, axis=1)
        if len(starts):
            sets = components(starts, ends, len(sets))[sets]
        todo = todo[end:]
    return sets


def _near(hashes: Hashes, first: Places, second: Places, distance: int) -> Mask:
    near: Mask = np.bitwise_count(hashes[first] ^ hashes[second]) <= distance
    return near


def _reach(lengths: Places, most: int) -> int:
    """How many of these, one at least, come to at most so much."""
    return max(1, int(np.searchsorted(np.cumsum(lengths), most, "right")))


def _alike(first: Colours, second: Colours) -> Mask:
    """Whether images have about the same colours, or one of them is grey."""
    difference = first.astype(np.float32) - second
    near: Mask = (difference**2).mean(axis=1, dtype=np.float32) <= OTHER_COLOURS**2
    return near | _grey(first) | _grey(second)


def _grey(colours: Colours) -> Mask:
    grey: Mask = np.abs(colours.astype(np.int16) - 128).max(axis=1) <= GREY
    return grey


def components(starts: Places, ends: Places, size: int) -> Places:
    """Numbers the parts of a graph that its edges connect: for each node that of its part."""
    graph = coo_matrix((np.ones(len(starts), bool), (starts, ends)), (size, size))
    parts: Places = connected_components(graph, directed=False)[1]
    return parts


def _from_hex(texts: pd.Series) -> npt.NDArray[np.uint8]:
    """The bytes that texts of one length stand for, (n, bytes)."""
    width = len(texts.iloc[0]) // 2 if len(texts) else 8
    return np.frombuffer(bytes.fromhex("".join(texts)), np.uint8).reshape(-1, width)


def near_duplicates(manifest: pd.DataFrame, distance: int, telling: pd.Series, small: pd.Series) -> pd.Series:
    """Numbers the sets of images that are the same or nearly so, each row with its set's number.

    Two images are near where their perceptual hashes differ in at most `distance` of 64 bits and their
    colours are about the same; a chain of near ones is one set.

    Images whose size and every measure are equal show the same pixels, in whatever file.

    Args:
        manifest: readable images with `sha256`, `phash`, `chroma`, size and measures.
        telling: whether the hash of an image says anything; that of a blank one doesn't.
        small: images with so few pixels that different ones have near hashes; equal ones still count.
    """
    content, contents = pd.factorize(manifest["sha256"])
    look = manifest.groupby(["phash", "chroma"], sort=False).ngroup().to_numpy()
    shown = manifest.iloc[np.unique(look, return_index=True)[1]]
    hashes = _from_hex(shown["phash"]).view(">u8")[:, 0].astype(np.uint64)
    colours = _from_hex(shown["chroma"])
    pixels = manifest.groupby(LOOKS, sort=False).ngroup().to_numpy()
    # A graph of contents and of what they have in common.
    starts, ends, size = [content], [pixels + len(contents)], len(contents) + len(manifest)
    for counted, bits in ((telling, 0), (telling & ~small, distance)):
        looks, place = np.unique(look[counted], return_inverse=True)
        starts.append(content[counted])
        ends.append(near_sets(hashes[looks], colours[looks], bits)[place] + size)
        size += len(manifest)
    return pd.Series(components(np.concatenate(starts), np.concatenate(ends), size)[content], manifest.index)
