"""What the checks look at beside the manifest's own columns."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from tasks.core.validation.config import Validate
from tasks.core.validation.groups import MergedGroups
from tasks.core.validation.near_duplicates import near_duplicates

MIN_HASH_SIDE = 64  # pixels; hashes of smaller images lie so close that only equal ones tell anything
ENTROPY_SCALE = 10  # bits; CleanVision's score of information is entropy over this


def number_near_sets(manifest: pd.DataFrame, p: Validate) -> pd.Series:
    """Numbers the sets of readable images that are the same or nearly so."""
    telling = manifest["entropy"] / ENTROPY_SCALE >= p.low_information
    small = manifest[["width", "height"]].min(axis=1) < MIN_HASH_SIDE
    return near_duplicates(manifest, p.near_distance, telling, small)


def with_derived_columns(
    manifest: pd.DataFrame, near_set: pd.Series, merged: Iterable[MergedGroups]
) -> pd.DataFrame:
    """The manifest with what the checks look at besides: null for images that can't be read.

    Adds `near_set` (number), `aspect_ratio` (shorter over longer side), `side` (root of the area, pixels),
    `copies` (images of this content), `labels` (of its content), `alike` (contents in its set), `groups`
    (of the labels file in its set), `earlier_groups` (that have become its group), `hinted_splits` (of its
    group), `spellings` (of its label), `class_size` (readable images of its label).
    """
    frame = manifest.assign(near_set=near_set.reindex(manifest.index))
    frame.loc[frame["error"].notna(), "sha256"] = None
    sides = frame[["width", "height"]]
    frame["aspect_ratio"] = sides.min(axis=1) / sides.max(axis=1)
    frame["side"] = np.sqrt(sides.prod(axis=1, min_count=2))
    by_content = frame.groupby("sha256")
    frame["copies"] = by_content["path"].transform("size")
    frame["labels"] = by_content["label"].transform("nunique")
    frame["alike"] = frame.groupby("near_set")["sha256"].transform("nunique")
    frame["groups"] = frame.groupby("near_set")["given_group"].transform("nunique")
    frame["earlier_groups"] = frame["group"].map({one.group: len(one.tied) for one in merged}).fillna(1)
    frame["hinted_splits"] = (
        frame["split_hint"].groupby(frame["group"].fillna(frame["sha256"])).transform("nunique")
    )
    frame["class_size"] = frame["error"].isna().groupby(frame["label"]).transform("sum")
    frame["spellings"] = frame["label"].groupby(frame["label"].str.casefold()).transform("nunique")
    return frame
