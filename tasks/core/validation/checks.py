"""What is wrong with a data set, as checks over the manifest with its derived columns."""

from collections.abc import Container, Iterator
from dataclasses import asdict, replace

import pandas as pd
from great_expectations.expectations.row_conditions import Column
from scipy.stats import ks_2samp

from tasks.core.base.errors import first_of
from tasks.core.data.manifest import MEASURES
from tasks.core.validation.config import Validate
from tasks.core.validation.derived_columns import ENTROPY_SCALE
from tasks.core.validation.expectations import Check, ExpectNumberToBeAtMost, gxe, tolerating
from tasks.core.validation.schema import Schema
from tasks.core.validation.shortcuts import shortcut_skills

NAMED = 5  # classes or images that a check names
WORDS = {
    "brightness_p99": "brightness of the brightest pixels (99th percentile, 0-1)",
    "brightness_p05": "brightness of the darkest pixels (5th percentile, 0-1)",
    "blur_score": "a score of edges (0 blurry to 1)",
    "entropy": "bits of entropy",
    "aspect_ratio": "shorter over longer side",
    "side": "pixels of side (root of the area)",
}  # for what a column holds
PREVALENT = 0.5  # CleanVision's; what holds for a larger share of the images is no finding
Bounds = tuple[str, str, str, float | None, float | None]  # kind, name, column, lowest and highest value
AT_MOST_ONE = (  # kind, name, what is expected, the column whose values are not to be above 1, remedy
    (
        "spelling",
        "classes that differ in upper and lower case alone",
        "one spelling of each",
        "spellings",
        "give them one name, or set validate.severity.spelling to warning if they are different classes",
    ),
    (
        "label_conflict",
        "the same image with two labels",
        "one label for each image",
        "labels",
        "take it out of the wrong class",
    ),
    (
        "duplicate",
        "exact duplicates",
        "each image once",
        "copies",
        "keep one of them; copies never lie in different splits",
    ),
    (
        "near_duplicate",
        "near-duplicates",
        "images that differ (validate.near_distance)",
        "alike",
        "nothing needs to be done: they never lie in different splits",
    ),
    (
        "split_conflict",
        "groups that are named for several splits",
        "one split for each group and its near-duplicates",
        "hinted_splits",
        "move them into one split: a model must not be tested on what it was trained on",
    ),
    (
        "group_conflict",
        "near-duplicates in different groups",
        "one group for each set of near-duplicates",
        "groups",
        "nothing needs to be done: such groups are joined, lie in one split, and stay together until the "
        "labels file gives them other names",
    ),
    (
        "groups_merged",
        "groups that have become one",
        "groups that stay apart, as they were in the manifest accepted last",
        "earlier_groups",
        "nothing needs to be done: some of these images may have changed their split",
    ),
)
EDIT = "or change data.schema if that is how it should be"
NOTHING = Schema()


def checks(
    frame: pd.DataFrame, p: Validate, schema: Schema = NOTHING, accepted: pd.DataFrame | None = None
) -> tuple[list[Check], dict[str, float]]:
    """What params.yaml and the schema ask for, over the frame that `with_derived_columns` gives.

    Args:
        accepted: readable images of the manifest accepted last, from which the measures may not drift.

    Returns:
        The checks, and the share of each quality that is not looked for, since most images have it.
    """
    bounds = _bounds(frame, p)
    usual = _prevalent(frame, p, bounds)
    found = [*_files(frame, p), *_classes(frame, p), *_at_most_one(), *_qualities(frame, bounds, usual)]
    found += [*_shortcuts(frame, p), *_expected(frame, schema), *_drift(frame, accepted, schema)]
    severities = asdict(p.severity)
    asked = [
        replace(check, severity=severities[check.kind])
        for check in found
        if severities[check.kind] != "ignore"
    ]
    return asked, usual


def _files(frame: pd.DataFrame, p: Validate) -> Iterator[Check]:
    unread = frame.set_index("path")["error"].dropna().sort_index()
    yield Check(
        "unreadable",
        "unreadable images",
        f"at most {p.max_unreadable} (validate.max_unreadable)",
        gxe.ExpectColumnValuesToBeNull(column="error", mostly=tolerating(p.max_unreadable, len(frame))),
        "replace them, take them out, or raise validate.max_unreadable to leave them out",
        details=first_of([f"{path} {why}" for path, why in unread.items()], NAMED),
    )
    for side in ("width", "height"):
        yield Check(
            "small",
            f"images of small {side}",
            f"at least {p.min_side} pixels (validate.min_side)",
            gxe.ExpectColumnValuesToBeBetween(column=side, min_value=p.min_side),
            "replace them, take them out, or lower validate.min_side",
        )


def _classes(frame: pd.DataFrame, p: Validate) -> Iterator[Check]:
    sizes = frame.groupby("label")["class_size"].first()
    balanced = -(-int(sizes.max()) // p.max_imbalance)
    yield Check(
        "too_few",
        "classes of too few images",
        f"at least {p.min_per_class} readable images of each class (validate.min_per_class)",
        gxe.ExpectColumnValuesToBeBetween(column="class_size", min_value=p.min_per_class),
        "add images to the class, take the class out, or lower validate.min_per_class",
        details=_sizes(sizes[sizes < p.min_per_class]),
    )
    yield Check(
        "imbalance",
        "classes much smaller than the largest",
        f"at least {balanced}, one for {p.max_imbalance} of the largest class (validate.max_imbalance)",
        gxe.ExpectColumnValuesToBeBetween(column="class_size", min_value=balanced),
        "add images to the class, or raise validate.max_imbalance",
        details=_sizes(sizes[sizes < balanced]),
    )


def _sizes(sizes: pd.Series) -> str:
    return first_of([f"{label} ({size})" for label, size in sizes.items()], NAMED)


def _at_most_one() -> Iterator[Check]:
    for kind, name, expects, column, remedy in AT_MOST_ONE:
        expectation = gxe.ExpectColumnValuesToBeBetween(column=column, max_value=1)
        yield Check(kind, name, expects, expectation, remedy)


def _qualities(frame: pd.DataFrame, bounds: list[Bounds], usual: Container[str]) -> Iterator[Check]:
    """CleanVision's checks, with its thresholds in params.yaml."""
    if frame["error"].notna().all():
        return  # and the quartiles of no image
    for kind, name, column, low, high in bounds:
        if kind in usual:
            continue
        named = (("at least", low and max(low, 0)), ("at most", high))
        limits = [f"{words} {limit:.4g}" for words, limit in named if limit is not None]
        yield Check(
            kind,
            name,
            f"{WORDS[column]} of {' and '.join(limits)} (validate.{kind})",
            gxe.ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=high),
            f"look at them; replace them, take them out, or change validate.{kind}",
        )


def _prevalent(frame: pd.DataFrame, p: Validate, bounds: list[Bounds]) -> dict[str, float]:
    """The qualities that most images have, each with its share: they tell of the data and not of faults.

    Of those that would be warnings: what is to be an error is one however many images have it.
    """
    warned = {kind for kind, severity in asdict(p.severity).items() if severity == "warning"}
    usual = {}
    for kind, _, column, low, high in bounds:
        values = frame[column].dropna()
        share = float(((values < low) | (values > high)).mean())  # a bound of None is passed by no value
        if kind in warned and share > PREVALENT:
            usual[kind] = round(share, 4)
    return usual


def _bounds(frame: pd.DataFrame, p: Validate) -> list[Bounds]:
    q1, q3 = frame["side"].quantile([0.25, 0.75])
    spread = p.odd_size * (q3 - q1)
    bits = p.low_information * ENTROPY_SCALE
    return [
        ("dark", "dark images", "brightness_p99", p.dark, None),
        ("light", "light images", "brightness_p05", None, 1 - p.light),
        ("blurry", "blurry images", "blur_score", p.blurry, None),
        ("low_information", "images of little information", "entropy", bits, None),
        ("odd_aspect_ratio", "images of odd aspect ratio", "aspect_ratio", p.odd_aspect_ratio, None),
        ("odd_size", "images of odd size", "side", q1 - spread, q3 + spread),
    ]


def _shortcuts(frame: pd.DataFrame, p: Validate) -> Iterator[Check]:
    for name, skill in shortcut_skills(frame[frame["error"].isna()]).items():
        yield Check(
            "shortcut",
            f"classes told apart by {name} alone",
            f"skill of at most {p.shortcut} (validate.shortcut)",
            ExpectNumberToBeAtMost(column=f"shortcut_skill_{name}", value=skill, max_value=p.shortcut),
            f"make the classes alike in {name}, or the model may learn that and nothing else",
        )


def _expected(frame: pd.DataFrame, schema: Schema) -> Iterator[Check]:
    """What data.schema says, in the severities of params.yaml."""
    if schema.classes is not None:
        yield Check(
            "new_class",
            "images of a new class",
            f"one of the {len(schema.classes)} classes of data.schema",
            gxe.ExpectColumnValuesToBeInSet(column="label", value_set=list(schema.classes)),
            f"move them into a class that is known, {EDIT}",
        )
        present = frame.loc[frame["class_size"] > 0, "label"].unique()
        yield Check(
            "missing_class",
            "classes without an image",
            f"a readable image of each of the {len(schema.classes)} classes of data.schema",
            gxe.ExpectColumnDistinctValuesToContainSet(
                column="label", value_set=list(schema.classes), row_condition=Column("error").is_null()
            ),
            f"bring their images back, {EDIT}",
            details=first_of([label for label in schema.classes if label not in present], NAMED),
        )
    if schema.formats is not None:
        yield Check(
            "unexpected_format",
            "images of an unexpected format",
            f"{', '.join(schema.formats)} (data.schema)",
            gxe.ExpectColumnValuesToBeInSet(column="format", value_set=list(schema.formats)),
            f"convert them, {EDIT}",
        )
    for side, limits in (("width", schema.width), ("height", schema.height)):
        if limits is not None:
            yield Check(
                "size_range",
                f"images of unexpected {side}",
                f"{limits.min} to {limits.max} pixels (data.schema)",
                gxe.ExpectColumnValuesToBeBetween(column=side, min_value=limits.min, max_value=limits.max),
                f"resize them or take them out, {EDIT}",
            )


def _drift(frame: pd.DataFrame, accepted: pd.DataFrame | None, schema: Schema) -> Iterator[Check]:
    if schema.drift is None or accepted is None or accepted.empty or frame["error"].notna().all():
        return
    for name in filter(accepted.columns.__contains__, MEASURES):  # that manifest may be of an earlier version
        statistic = float(ks_2samp(frame[name].dropna(), accepted[name]).statistic)
        yield Check(
            "drift",
            f"drift of {name} from the images accepted last",
            f"Kolmogorov-Smirnov statistic of at most {schema.drift} (data.schema)",
            ExpectNumberToBeAtMost(column=f"drift_of_{name}", value=statistic, max_value=schema.drift),
            f"see whether the new images are what the model will meet, {EDIT}",
        )
