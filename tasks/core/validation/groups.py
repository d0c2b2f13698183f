"""The groups that no split may part: those of the user, and sets of near-duplicates."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import pandas as pd

from tasks.core.validation.near_duplicates import components


@dataclass(frozen=True)
class MergedGroups:
    """A group that was several before: a new image lies between them, or the user has given them a name."""

    group: str
    tied: tuple[str, ...]


@dataclass(frozen=True)
class KnownGroups:
    """What the groups were in a manifest that was accepted.

    A group that the user gave to an image is not kept: what counts of these is what the user gives now. One
    that a near-duplicate lent to an image is, or the image might change its split when that one goes.

    Attributes:
        by_content: the name for each sha256.
        by_given: what a group of the labels file was called: another name where it had been joined.
    """

    by_content: Mapping[str, str] = field(default_factory=dict)
    by_given: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, accepted: pd.DataFrame) -> Self:
        """Those of the readable images of a manifest."""
        given = accepted[accepted["given_group"].notna()]
        own = accepted[accepted["given_group"].isna()]
        names = own["group"].fillna(own["sha256"])
        return cls(
            dict(zip(given["sha256"], given["sha256"], strict=True))
            | dict(zip(own["sha256"], names, strict=True)),
            dict(zip(given["given_group"], given["group"], strict=True)),
        )


def assign(
    manifest: pd.DataFrame, near: pd.Series, previous: KnownGroups
) -> tuple[pd.Series, list[MergedGroups]]:
    """Names each image's group: what the user says, else its set of near-duplicates, else none.

    Groups of the user between which near-duplicates lie become one, of the name that comes first, or one
    would train and the other test. A set is named after the content of one of its images. Both keep their
    name whatever is added or taken away later, since the name decides the split.

    Args:
        manifest: readable images with `sha256` and the user's own `given_group`.
        near: the number of each image's set of near-duplicates.
        previous: what the groups were in the manifest before.

    Returns:
        The groups, null for an image alone, and those that were several before.
    """
    given = manifest["given_group"]
    groups = pd.Series(None, manifest.index, dtype=object)
    merged = []
    sets = _tied_by_groups(near, given)
    known = manifest["sha256"].map(previous.by_content)
    named = given.notna() | (known.notna() & (known != manifest["sha256"]))
    together = sets.groupby(sets).transform("size") > 1
    for _, places in sets[together | named].groupby(sets).groups.items():
        own = sorted(given[places].dropna().unique())
        unnamed = places[given[places].isna()]
        before = Counter(known[unnamed].dropna())
        joined = {previous.by_given[name] for name in own if name in previous.by_given}
        if own:
            name = min(joined or own)
        elif before:
            name = min(before, key=lambda group: (-before[group], group))
        else:
            name = min(manifest.loc[unnamed, "sha256"])
        groups[places] = name
        if tied := (joined | set(before)) - {name}:
            merged.append(MergedGroups(name, tuple(sorted(tied | {name}))))
    return groups, merged


def _tied_by_groups(near: pd.Series, given: pd.Series) -> pd.Series:
    """Numbers the sets of images that near-duplicates or a group of the user hold together."""
    named = given.notna().to_numpy()
    sets, group = pd.factorize(near)[0], pd.factorize(given)[0]
    size = len(near) + int(group.max(initial=-1)) + 1
    return pd.Series(components(sets[named], group[named] + len(near), size)[sets], near.index)
