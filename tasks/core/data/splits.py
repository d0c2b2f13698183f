"""Which images train, which choose the best epoch, and which test: a choice that stays put."""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa

from tasks.core.base.errors import DataError, first_of
from tasks.core.data.parquet import read_parquet, write_parquet

SPLITS = ("train", "validation", "test")
STRICTEST = ("test", "validation", "train")  # what a group follows if its images' hints differ
SEEDS = 100  # tried when looking for a better one
MIN_TEST_IMAGES = 10  # of 10 right predictions, 95 % are sure of no more than an accuracy of 72 % (Wilson)
LARGE = 0.5  # share of the images that splits are drawn from, in one group
SHOWN = 5  # classes that a line names
FILE = "splits.parquet"  # in the data set's folder
SCHEMA = pa.schema([("path", pa.string()), ("split", pa.string())])


@dataclass(frozen=True)
class Shares:
    """The shares of the images that are held out, 0-1, and the seed of the draw."""

    validation: float
    test: float
    seed: int


def split(manifest: pd.DataFrame, shares: Shares) -> pd.Series:
    """Gives each image `train`, `validation` or `test`.

    An image's split is drawn by a hash of the seed and its group, which is what the manifest says, else its
    content. It depends on nothing else, and so stays the same whatever images come or go. The shares hold on
    average, in every class and over all, as those of any random draw do; another share moves images
    between that split and training alone.

    Where folders or the labels file name splits, those hold, and a group goes with its named images. A
    split that is named for any image is that of the named images: an official test set stays what it is.
    Only the splits that are not named are drawn: from images that are named for none, or from those for
    training if all are named, as by folders `train` and `test`.

    Args:
        manifest: readable images with `group`, `split_hint` and `sha256`.

    Returns:
        The split of each row, by the manifest's index.
    """
    group, hint, held = _groups(manifest)
    drawn = pd.Series([_draw(name, shares, held) for name in group], group.index, dtype=object)
    return hint.where(hint.isin(held), drawn)


def _groups(manifest: pd.DataFrame) -> tuple[pd.Series, pd.Series, set[str]]:
    """Each image's group, its hint, which is that of its group if it has none, and which hints hold."""
    group = manifest["group"].astype(object).fillna(manifest["sha256"])
    hint = manifest["split_hint"].astype(object)
    if hint.notna().any():
        hint = hint.fillna(_followed(hint, group))
    held = set(hint.dropna())
    return group, hint, held - {"train"} if manifest["split_hint"].notna().all() else held


def write(dataset: Path, images: pd.DataFrame) -> None:
    """Writes which split each image is in, for those who don't read the records."""
    write_parquet(dataset / FILE, images[["path", "split"]], SCHEMA)


def read(dataset: Path, paths: pd.Series) -> pd.Series:
    """The split of each of these paths, by their index."""
    return paths.map(read_parquet(dataset / FILE).set_index("path")["split"])


def _followed(hint: pd.Series, group: pd.Series) -> pd.Series:
    """The strictest hint in the group of each image."""
    places = hint.map({name: place for place, name in enumerate(STRICTEST)}).astype(float)
    return places.groupby(group).transform("min").map(dict(enumerate(STRICTEST)))


def _draw(group: str, shares: Shares, named: Collection[str]) -> str:
    digest = hashlib.sha256(f"{shares.seed}:{group}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < shares.test and "test" not in named:
        return "test"
    if place >= 1 - shares.validation and "validation" not in named:
        return "validation"
    return "train"


def gaps(labels: pd.Series, splits: pd.Series) -> list[tuple[str, str]]:
    """The classes without an image in some split, as (class, split)."""
    counts = pd.crosstab(labels, splits).reindex(columns=list(SPLITS), fill_value=0)
    return [(str(label), name) for label, row in counts.iterrows() for name in SPLITS if not row[name]]


def named(hints: pd.Series) -> str | None:
    """Says, where some images only are named for a split, that these are all of it, or stay in training."""
    counts = hints.value_counts()
    if counts.empty or hints.notna().all():
        return None
    found = " and ".join(f"{counts[name]:,} for {name}" for name in SPLITS if name in counts)
    held_out = " and ".join(name for name in SPLITS[1:] if name in counts)
    what = f"no others are drawn for {held_out}" if held_out else "none of these is drawn for another"
    return f"of {len(hints):,} images the labels file names {found}; {what}"


def check(manifest: pd.DataFrame, splits: pd.Series, shares: Shares) -> str | None:
    """Looks whether each class has images in each split.

    Returns:
        A warning about classes that are not tested, or not validated; none where there are none.

    Raises:
        DataError: a split has no image at all, or a class has none to train on.
    """
    found = gaps(manifest["label"], splits)
    if not found:
        return None
    label, name = next((gap for gap in found if gap[1] == "train"), found[0])
    more = f" (and {len(found) - 1} more of the kind)" if len(found) > 1 else ""
    group, _, _ = _groups(manifest)
    of_label = group[manifest["label"] == label]
    remedy = f"add images to it, or name splits in the labels file{_better_seed(manifest, shares)}"
    unnamed = int(manifest["split_hint"].isna().sum())
    if (manifest["split_hint"] == "train").any() and unnamed:
        remedy = (
            f"it is drawn from the {unnamed:,} images that the labels file names for no split: name some "
            f"for {name}; or name all for a split, and it is drawn from those for training"
        )
    share = {"validation": shares.validation, "test": shares.test}.get(name)
    if share is not None and share * group.nunique() < 1 and name not in set(splits):
        remedy = f"build.{name}_split is {share:g}, less than one of {group.nunique():,}: raise it"
    hints = manifest["split_hint"][manifest["label"] == label]
    if name == "train" and hints.notna().all():
        remedy = f"all of it is named for {hints.iloc[0]}: if that has no labels, take it away"
    count = of_label.nunique()
    if name != "train" and count < min(len(SPLITS), len(of_label)):  # naming splits would part groups
        given = manifest["given_group"][manifest["label"] == label]
        remedy = large(manifest) or _of_few_groups(len(of_label), count, are_given=bool(given.notna().all()))
    text = f"class {label!r} has no image for {name}{more}; {remedy}"
    if name == "train" or set(splits) != set(SPLITS):
        raise DataError(text)
    return text


def _of_few_groups(images: int, count: int, *, are_given: bool) -> str:
    one, many, remedy = "one group", f"{count} groups", "add images of other groups"
    if not are_given:
        one, many = (f"{what} of near-duplicates" for what in ("one set", f"{count} sets"))
        remedy = "add images unlike these, or, if they are different images, lower validate.near_distance"
    return f"its {images} images are {one if count == 1 else many}, which no split may part; {remedy}"


def _better_seed(manifest: pd.DataFrame, shares: Shares) -> str:
    """Looks for a seed without gaps. Most fail at the classes of few groups, so those are tried first."""
    group, hint, fixed = _groups(manifest)
    if set(SPLITS[1:]) <= fixed:
        return ""  # none is drawn
    is_fixed = hint.isin(fixed)
    named = hint[is_fixed].groupby(manifest["label"]).unique()
    drawn = group[~is_fixed].groupby(manifest["label"]).unique()
    classes = [
        (drawn.get(label, ()), set(SPLITS).difference(named.get(label, ())))
        for label in manifest["label"].unique()
    ]
    classes.sort(key=lambda each: len(each[0]))
    for seed in range(SEEDS):
        other = replace(shares, seed=seed)
        if all(_fill(wanted, groups, other, fixed) for groups, wanted in classes):
            return f", or set build.seed to {seed}, which serves every class and draws all splits again"
    return ""


def _fill(wanted: Collection[str], groups: Iterable[str], shares: Shares, named: Collection[str]) -> bool:
    """Whether the groups of a class come to lie in all of these splits."""
    left = set(wanted)
    for group in groups:
        left.discard(_draw(group, shares, named))
        if not left:
            return True
    return not left


def large(manifest: pd.DataFrame) -> str | None:
    """Names the user's group that most of the images are in that splits are drawn from.

    Args:
        manifest: what `split` takes, with `given_group`.
    """
    _, hint, held = _groups(manifest)
    drawn = manifest["given_group"][~hint.isin(held)]
    name, count = next(iter(drawn.value_counts().items()), ("", 0))
    if set(SPLITS[1:]) <= held or count <= max(LARGE * len(drawn), MIN_TEST_IMAGES):
        return None
    return (
        f"{count:,} of {len(drawn):,} images are one group, {name!r}, which no split may part; if that "
        "stands for no group, leave the field empty in the labels file"
    )


def few(labels: pd.Series, splits: pd.Series) -> str | None:
    """Names the classes that have so few images for test that their figures say little."""
    counts = labels[splits == "test"].value_counts().sort_index()
    counts = counts[counts < MIN_TEST_IMAGES]
    if counts.empty:
        return None
    named = first_of([f"{label} {count}" for label, count in counts.items()], SHOWN)
    return f"fewer than {MIN_TEST_IMAGES} images for test of {named}: what is measured on so few says little"
