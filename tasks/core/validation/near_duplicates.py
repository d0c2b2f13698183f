"""Pictures that belong together: near-duplicates, and the groups that no split may part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
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
# What pictures of the same pixels have in common; entropy hangs on whether they are kept as grey or as RGB.
LOOKS = ["phash", "width", "height", *(measure for measure in MEASURES if measure != "entropy")]
BLOCK = 4_000_000  # pairs compared at a time
SEARCH = 20  # comparisons in the time that it takes to find the first


@dataclass(frozen=True)
class Tie:
    """A group that was several before: a new picture lies between them, or the user has given them a name."""

    group: str
    tied: tuple[str, ...]


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
                sets = _joined(sets, hashes, part, flipped, distance)
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


def _joined(sets: Places, hashes: Hashes, part: Hashes, wanted: Hashes, distance: int) -> Places:
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
            sets = _merged(sets, sets[first[near]], sets[order[at][near]])
        todo = todo[block.stop :]
    return sets


def _near(hashes: Hashes, first: Places, second: Places, distance: int) -> npt.NDArray[np.bool_]:
    near: npt.NDArray[np.bool_] = np.bitwise_count(hashes[first] ^ hashes[second]) <= distance
    return near


def _merged(sets: Places, starts: Places, ends: Places) -> Places:
    graph = coo_matrix((np.ones(len(starts), bool), (starts, ends)), (len(sets), len(sets)))
    merged: Places = connected_components(graph, directed=False)[1][sets]
    return merged


def near_duplicates(manifest: pd.DataFrame, distance: int, telling: pd.Series, small: pd.Series) -> pd.Series:
    """Numbers the sets of pictures that are the same or nearly so, each row with its set's number.

    Two pictures are near where their perceptual hashes differ in at most `distance` of 64 bits; a chain
    of near ones is one set.

    Pictures whose size and every measure are equal show the same pixels, in whatever file.

    Args:
        manifest: readable pictures with `sha256`, `phash`, size and measures.
        telling: whether the hash of a picture says anything; that of a blank one doesn't.
        small: pictures with so few pixels that different ones have near hashes; equal ones still count.
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
    graph = coo_matrix((np.ones(len(starts), bool), (starts, ends)), (size, size))
    return pd.Series(connected_components(graph, directed=False)[1][content], manifest.index)


def known_groups(accepted: pd.DataFrame) -> dict[str, str]:
    """The group of each content, by sha256, in a manifest that was accepted.

    One that the user gave is not kept: what counts of these is what the user gives now. One that a
    near-duplicate lent to a picture is, or the picture might change its split when that one goes.
    """
    given = accepted[accepted["given_group"].notna()]["sha256"]
    own = accepted[accepted["given_group"].isna()]
    names = own["group"].fillna(own["sha256"])
    return dict(zip(given, given, strict=True)) | dict(zip(own["sha256"], names, strict=True))


def assign(
    manifest: pd.DataFrame, near: pd.Series, previous: Mapping[str, str]
) -> tuple[pd.Series, list[Tie]]:
    """Names each picture's group: what the user says, else its set of near-duplicates, else none.

    A set is named after the content of one of its pictures, and keeps that name whatever is added or
    taken away later, since the name decides the split.

    Args:
        manifest: readable pictures with `sha256` and the user's own `given_group`.
        near: the number of each picture's set of near-duplicates.
        previous: what `known_groups` gives of the manifest before.

    Returns:
        The groups, null for a picture by itself, and those that were several before.
    """
    groups = manifest["given_group"].astype(object).where(manifest["given_group"].notna(), None)
    ties = []
    together = near.groupby(near).transform("size") > 1
    remembered = manifest["sha256"].map(lambda digest: previous.get(digest, digest)) != manifest["sha256"]
    for _, places in near[together | remembered].groupby(near).groups.items():
        own, unnamed = groups[places].dropna(), places[groups[places].isna()]
        digests = manifest.loc[unnamed, "sha256"]
        known = Counter(previous[digest] for digest in digests if digest in previous)
        if len(own):
            name = min(own)
        elif known:
            name = min(known, key=lambda group: (-known[group], group))
        else:
            name = min(digests)
        groups[unnamed] = name
        if tied := set(known) - {name}:
            ties.append(Tie(name, tuple(sorted(tied | {name}))))
    return groups, ties
