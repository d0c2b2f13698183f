"""The groups that no split may part: those of the user, and sets of near-duplicates."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class MergedGroups:
    """A group that was several before: a new image lies between them, or the user has given them a name."""

    group: str
    tied: tuple[str, ...]


def known_groups(accepted: pd.DataFrame) -> dict[str, str]:
    """The group of each content, by sha256, in a manifest that was accepted.

    One that the user gave is not kept: what counts of these is what the user gives now. One that a
    near-duplicate lent to an image is, or the image might change its split when that one goes.
    """
    given = accepted[accepted["given_group"].notna()]["sha256"]
    own = accepted[accepted["given_group"].isna()]
    names = own["group"].fillna(own["sha256"])
    return dict(zip(given, given, strict=True)) | dict(zip(own["sha256"], names, strict=True))


def assign(
    manifest: pd.DataFrame, near: pd.Series, previous: Mapping[str, str]
) -> tuple[pd.Series, list[MergedGroups]]:
    """Names each image's group: what the user says, else its set of near-duplicates, else none.

    A set is named after the content of one of its images, and keeps that name whatever is added or
    taken away later, since the name decides the split.

    Args:
        manifest: readable images with `sha256` and the user's own `given_group`.
        near: the number of each image's set of near-duplicates.
        previous: what `known_groups` gives of the manifest before.

    Returns:
        The groups, null for an image alone, and those that were several before.
    """
    groups = manifest["given_group"].astype(object).where(manifest["given_group"].notna(), None)
    merged = []
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
            merged.append(MergedGroups(name, tuple(sorted(tied | {name}))))
    return groups, merged
