"""Pictures that belong together: near-duplicates, and the groups that no split may part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from tasks.core.manifest import MEASURES

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.intp]

BITS = 64
LOOKS = ["phash", "width", "height", *MEASURES]
BLOCK = 4_000_000  # candidate pairs compared at a time


@dataclass(frozen=True)
class Tie:
    """A group that a new picture has made of several: its pictures were in different groups before."""

    group: str
    tied: tuple[str, ...]


def near_pairs(hashes: Hashes, distance: int) -> tuple[Places, Places]:
    """Finds all pairs of distinct hashes that differ in at most `distance` bits.

    Multi-index hashing (Norouzi et al., 2012): of two hashes that are near, at least one of m parts
    differs in no more than distance / m bits. Parts of about log2(n) bits keep the candidates few, so that
    the time grows little faster than n.

    Args:
        hashes: distinct, (n,).

    Returns:
        The places of the first and of the second of each pair, first < second.
    """
    parts = max(1, round(BITS / max(8, np.log2(max(len(hashes), 2)))))
    edges = np.linspace(0, BITS, parts + 1).astype(int)
    found: list[npt.NDArray[np.intp]] = [np.empty((0, 2), np.intp)]
    for low, high in pairwise(edges):
        part = (hashes >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        for first, second in _candidates(part, int(high - low), distance // parts):
            near = np.bitwise_count(hashes[first] ^ hashes[second]) <= distance
            found.append(np.stack([first[near], second[near]], axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    return pairs[:, 0], pairs[:, 1]


def _candidates(part: Hashes, width: int, radius: int) -> Iterator[tuple[Places, Places]]:
    """Pairs whose parts differ in at most `radius` bits, first < second, a block at a time."""
    order = np.argsort(part, kind="stable")
    ordered = part[order]
    for count in range(radius + 1):
        for bits in combinations(range(width), count):
            wanted = part ^ np.uint64(sum(1 << bit for bit in bits))
            start = np.searchsorted(ordered, wanted, "left")
            length = np.searchsorted(ordered, wanted, "right") - start
            for block in _blocks(length):
                first = np.repeat(block, length[block])
                within = np.arange(len(first)) - np.repeat(
                    np.cumsum(length[block]) - length[block], length[block]
                )
                second = order[np.repeat(start[block], length[block]) + within]
                keep = first < second
                yield first[keep], second[keep]


def _blocks(length: npt.NDArray[np.intp]) -> Iterator[Places]:
    """Consecutive places whose lengths add up to no more than about `BLOCK`."""
    number = np.cumsum(length) // BLOCK
    yield from np.split(np.arange(len(length)), np.flatnonzero(np.diff(number)) + 1)


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
    first, second = near_pairs(values[large - len(contents)], distance)
    pixels = manifest.groupby(LOOKS, sort=False).ngroup().to_numpy() + len(contents) + len(hashes)
    starts = np.concatenate([content[telling], large[first], content])
    ends = np.concatenate([hashed[telling], large[second], pixels])
    size = len(contents) + len(hashes) + len(manifest)
    graph = coo_matrix((np.ones(len(starts), bool), (starts, ends)), (size, size))
    return pd.Series(connected_components(graph, directed=False)[1][content], manifest.index)


def assign(
    manifest: pd.DataFrame, near: pd.Series, previous: Mapping[str, str]
) -> tuple[pd.Series, list[Tie]]:
    """Names each picture's group: what the user says, else its set of near-duplicates, else none.

    A set is named after the content of one of its pictures, and keeps that name whatever is added or
    taken away later, since the name decides the split.

    Args:
        manifest: readable pictures with `sha256` and the user's own `group`.
        near: the number of each picture's set of near-duplicates.
        previous: the group of each content (sha256) in the manifest before.

    Returns:
        The groups, null for a picture by itself, and those that were several before.
    """
    groups = manifest["group"].astype(object).where(manifest["group"].notna(), None)
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
