"""Which pictures train, which choose the best epoch, and which test: a choice that stays put."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace

import pandas as pd

from tasks.core.errors import DataError

SPLITS = ("train", "validation", "test")
STRICTEST = ("test", "validation", "train")  # what a group follows if its pictures' hints differ
SEEDS = 100  # tried when looking for a better one


@dataclass(frozen=True)
class Shares:
    """The shares of the pictures that are held out, 0-1, and the seed of the draw."""

    validation: float
    test: float
    seed: int


def split(manifest: pd.DataFrame, shares: Shares) -> pd.Series:
    """Gives each picture `train`, `validation` or `test`.

    A picture's split is drawn by a hash of the seed and its group, which is what the manifest says, else its
    content. It hangs on nothing else, and so stays the same whatever pictures come or go. The shares hold on
    average, in every class and over all, as those of any random draw do; another share moves pictures
    between that split and training alone.

    Where folders or the labels file name splits, those hold, and a group goes with its named pictures. A
    split that is named for any picture is that of the named pictures: an official test set stays what it is.
    Only the splits that are not named are drawn, from all others.

    Args:
        manifest: readable pictures with `group`, `split_hint` and `sha256`.

    Returns:
        The split of each row, by the manifest's index.
    """
    group = manifest["group"].astype(object).fillna(manifest["sha256"])
    hint = manifest["split_hint"].astype(object)
    hint = hint.fillna(group.map(_followed(hint, group)))
    named = set(hint.dropna()) - {"train"}
    drawn = group.map({name: _draw(name, shares, named) for name in group.unique()})
    return hint.where(hint.isin(named), drawn)


def _followed(hint: pd.Series, group: pd.Series) -> dict[str, str]:
    """The hint that the pictures of a group without one follow."""
    return {name: min(hints, key=STRICTEST.index) for name, hints in hint.dropna().groupby(group)}


def _draw(group: str, shares: Shares, named: Collection[str]) -> str:
    digest = hashlib.sha256(f"{shares.seed}:{group}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < shares.test and "test" not in named:
        return "test"
    if place >= 1 - shares.validation and "validation" not in named:
        return "validation"
    return "train"


def gaps(labels: pd.Series, splits: pd.Series) -> list[tuple[str, str]]:
    """The classes without a picture in some split, as (class, split)."""
    counts = pd.crosstab(labels, splits).reindex(columns=list(SPLITS), fill_value=0)
    return [(str(label), name) for label, row in counts.iterrows() for name in SPLITS if not row[name]]


def named(hints: pd.Series) -> str | None:
    """Says, where some pictures only are named for a split, that no others are drawn for it."""
    counts = hints.value_counts()
    found = [f"{counts[name]:,} for {name}" for name in SPLITS[1:] if name in counts]
    if not found or hints.notna().all():
        return None
    named = " and ".join(found)
    return f"of {len(hints):,} pictures the labels file names {named}; no others are drawn for that"


def check(manifest: pd.DataFrame, splits: pd.Series, shares: Shares) -> str | None:
    """Looks whether each class has pictures in each split.

    Returns:
        A warning about classes that are not tested, or not validated; none where there are none.

    Raises:
        DataError: a split has no picture at all, or a class has none to train on.
    """
    found = gaps(manifest["label"], splits)
    if not found:
        return None
    label, name = next((gap for gap in found if gap[1] == "train"), found[0])
    more = f" (and {len(found) - 1} more of the kind)" if len(found) > 1 else ""
    remedy = f"add pictures to it, or name splits in the labels file{_better_seed(manifest, shares)}"
    text = f"class {label!r} has no picture for {name}{more}; {remedy}"
    if name == "train" or set(splits) != set(SPLITS):
        raise DataError(text)
    return text


def _better_seed(manifest: pd.DataFrame, shares: Shares) -> str:
    for seed in range(SEEDS):
        if not gaps(manifest["label"], split(manifest, replace(shares, seed=seed))):
            return f", or set build.seed to {seed}, which serves every class"
    return ""
