"""An image's split stays put whatever comes and goes, and never parts a group."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.base.errors import DataError
from tasks.core.data import splits
from tasks.core.data.splits import SPLITS, Shares, split
from tasks.core.validation import groups

SHARES = Shares(validation=0.1, test=0.2, seed=123)


def rows(count: int) -> pd.DataFrame:
    """A manifest of two classes with `count` images each."""
    frame = pd.DataFrame({"label": ["a", "b"] * count, "sha256": [f"{n:064x}" for n in range(2 * count)]})
    frame["group"], frame["given_group"], frame["split_hint"] = None, None, None
    return frame


def test_the_shares_hold_in_each_class_on_average() -> None:
    frame = rows(5000)
    shares = pd.crosstab(frame["label"], split(frame, SHARES), normalize="index")
    for name, share in (("test", 0.2), ("validation", 0.1), ("train", 0.7)):
        assert np.allclose(shares[name], share, atol=4 * np.sqrt(share * (1 - share) / 5000))


def test_the_split_hangs_on_content_and_seed_alone() -> None:
    frame = rows(500)
    shuffled = frame.sample(frac=1, random_state=3).assign(path="renamed", label="relabelled")
    assert split(frame, SHARES).equals(split(shuffled, SHARES).sort_index())
    assert not split(frame, SHARES).equals(split(frame, replace(SHARES, seed=2)))


@pytest.mark.parametrize("more", [{"validation": 0.2}, {"test": 0.3}])
def test_more_held_out_takes_from_training_alone(more: dict[str, float]) -> None:
    frame = rows(500)
    before, after = split(frame, SHARES), split(frame, replace(SHARES, **more))  # type: ignore[arg-type]
    assert (after != before).any()
    assert (before[after != before] == "train").all()


def test_hints_hold_and_only_missing_splits_are_taken_from_training() -> None:
    frame = rows(100)
    frame.loc[:9, "split_hint"] = "test"
    frame.loc[10:, "split_hint"] = "train"
    result = split(frame, SHARES)
    assert (result[:10] == "test").all()
    assert set(result[10:]) == {"train", "validation"}


@pytest.mark.parametrize("test", [None, "test"])
def test_images_named_for_training_stay_there_where_others_are_named_for_nothing(test: str | None) -> None:
    """Such as synthetic ones, on which nothing is to be tested."""
    frame = rows(300)
    frame.loc[:199, "split_hint"] = "train"
    frame.loc[200:249, "split_hint"] = test
    result = split(frame, SHARES)
    assert set(result[:200]) == {"train"}
    assert set(result[250:]) == ({"train", "validation"} if test else set(splits.SPLITS))
    told = str(splits.named(frame["split_hint"]))
    assert "of 600 images the labels file names 200 for train" in told
    assert told.endswith("no others are drawn for test" if test else "none of these is drawn for another")


def test_a_few_images_named_for_nothing_are_all_that_is_drawn_from_and_said_to_be() -> None:
    """Also where a group ties them to training, so that none is left without a name."""
    frame = rows(100)
    frame["split_hint"] = "train"
    frame.loc[:1, "split_hint"] = None
    frame.loc[:1, "group"] = frame.loc[5:6, "group"] = "g"
    result = split(frame, SHARES)
    assert set(result) == {"train"}
    with pytest.raises(DataError, match="from the 2 images that the labels file names for no split: name"):
        splits.check(frame, result, SHARES)
    assert set(split(frame.assign(split_hint="train"), SHARES)) == set(splits.SPLITS)


def test_a_few_images_named_for_a_split_are_told_to_be_all_of_it() -> None:
    frame = rows(100)
    assert splits.named(frame["split_hint"]) is None
    frame.loc[:1, "split_hint"] = "test"
    assert "of 200 images the labels file names 2 for test" in str(splits.named(frame["split_hint"]))
    assert splits.named(frame["split_hint"].fillna("train")) is None


def test_a_group_that_no_draw_can_divide_is_named() -> None:
    """As where a program writes NA for each image of no group."""
    frame = rows(50)
    assert splits.large(frame) is None
    frame.loc[:49, "given_group"] = frame.loc[:49, "group"] = "NA"
    assert splits.large(frame) is None, "a half"
    frame.loc[50, "given_group"] = frame.loc[50, "group"] = "NA"
    assert str(splits.large(frame)).startswith(
        "51 of 100 images are one group, 'NA', which no split may part"
    )
    frame["split_hint"] = ["train", "validation", "test", "test"] * 25
    assert splits.large(frame) is None, "nothing is drawn"
    assert splits.large(frame.head(10).assign(split_hint=None)) is None, "of so few nothing can be said"


def test_a_group_goes_with_its_named_image() -> None:
    frame = rows(50)
    frame.loc[:4, "group"] = "g"
    frame.loc[2, "split_hint"] = "validation"
    assert (split(frame, SHARES)[:5] == "validation").all()


def test_a_class_without_images_to_train_on_is_refused() -> None:
    frame = rows(100)
    frame.loc[frame["label"] == "a", "split_hint"] = "test"
    with pytest.raises(DataError, match="class 'a' has no image for train"):
        splits.check(frame, split(frame, SHARES), SHARES)


def test_a_class_that_is_not_tested_is_told_of_with_a_seed_that_mends_it() -> None:
    frame = rows(30)
    bad = next(s for s in range(999) if splits.gaps(frame["label"], split(frame, replace(SHARES, seed=s))))
    shares = replace(SHARES, seed=bad)
    warning = splits.check(frame, split(frame, shares), shares)
    assert warning and "has no image for" in warning
    seed = int(warning.split("build.seed to ")[1].split(",")[0])
    assert splits.check(frame, split(frame, replace(SHARES, seed=seed)), SHARES) is None


def test_a_class_that_is_one_film_is_not_to_be_parted() -> None:
    """Splits in the labels file would be refused by `validate`, which knows the frames alike."""
    frame = rows(200)
    frame.loc[frame["label"] == "a", "group"] = "film"
    shares = next(s for seed in range(99) if split(frame, s := replace(SHARES, seed=seed))[0] == "train")
    warning = splits.check(frame, split(frame, shares), shares)
    assert warning and warning.startswith("class 'a' has no image for validation (and 1 more of the kind); ")
    assert "its 200 images are one set of near-duplicates, which no split may part" in warning
    assert "name splits" not in warning and "lower validate.near_distance" in warning
    frame["given_group"] = frame["group"]
    warning = splits.check(frame, split(frame, shares), shares)
    assert warning and "200 images are one group, which no split may part; add images of other gr" in warning


def test_a_group_of_nearly_all_is_told_where_it_leaves_a_class_without_images() -> None:
    """As a column of `none`: to add images would not help."""
    frame = rows(30)
    frame["given_group"] = frame["group"] = "none"
    with pytest.raises(DataError, match=r"60 of 60 images are one group, 'none', .*; if that stands for no"):
        splits.check(frame, pd.Series("train", frame.index), SHARES)


def test_shares_of_less_than_an_image_are_told_and_so_is_a_test_folder_without_labels() -> None:
    frame, none = rows(30), replace(SHARES, test=0.0001)
    with pytest.raises(
        DataError, match=r"for test .*build\.test_split is 0\.0001, less than one of 60: raise"
    ):
        splits.check(frame, split(frame, none).replace("test", "train"), none)
    frame.loc[frame["label"] == "a", "split_hint"] = "test"
    with pytest.raises(DataError, match="all of it is named for test: if that has no labels, take it away"):
        splits.check(frame, split(frame, SHARES), SHARES)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.integers(0, 19),
            st.sampled_from([None, None, "train", "test"]),
            st.booleans(),
        ),
        min_size=3,
        max_size=40,
    )
)
def test_the_seed_that_is_named_is_the_first_without_gaps(
    drawn: list[tuple[str, int, str | None, bool]],
) -> None:
    frame = pd.DataFrame(drawn, columns=["label", "number", "split_hint", "grouped"])
    frame["sha256"] = [f"{place:064x}" for place in range(len(frame))]
    frame["group"] = frame["number"].map("g{}".format).where(frame["grouped"], None)
    frame["split_hint"] = frame["split_hint"].astype(object)
    seeds = (replace(SHARES, seed=seed) for seed in range(splits.SEEDS))
    first = next(
        (other.seed for other in seeds if not splits.gaps(frame["label"], split(frame, other))), None
    )
    told = splits._better_seed(frame, SHARES)
    assert (f"build.seed to {first}," in told) == (first is not None), told


# What follows plays a data set's life: images come and go, run after run.

IMAGES = 40
images = st.sets(st.integers(0, IMAGES - 1), min_size=1)


def manifest_of(present: set[int], named: dict[int, str]) -> pd.DataFrame:
    numbers = sorted(present)
    digests = [f"{hash((7, number)) & (2**256 - 1):064x}" for number in numbers]
    return pd.DataFrame(
        {"sha256": digests, "given_group": [named.get(n) for n in numbers], "split_hint": None}, numbers
    )


def near_sets(present: set[int], chains: list[set[int]]) -> pd.Series:
    """Numbers the sets: images that are next to each other in a chain are near-duplicates."""
    parent = {number: number for number in present}

    def root(number: int) -> int:
        return number if parent[number] == number else root(parent[number])

    for chain in chains:
        links = sorted(chain)
        for one, other in pairwise(links):
            if one in present and other in present:
                parent[root(one)] = root(other)
    return pd.Series({number: root(number) for number in sorted(present)})


def each_has_one(groups: pd.Series, values: pd.Series) -> bool:
    """Whether all members of each group have the same value."""
    return len(set(zip(groups, values, strict=True))) == len(set(groups))


@settings(max_examples=200, deadline=None)  # some thousand images added and removed, in a thousand steps
@given(
    life=st.lists(images, min_size=2, max_size=12),
    chains=st.lists(st.sets(st.integers(0, IMAGES - 1), min_size=2, max_size=6), max_size=6),
    named=st.dictionaries(st.integers(0, IMAGES - 1), st.sampled_from(["p", "q"])),
)
def test_no_image_that_stays_changes_its_split_and_no_group_is_parted(
    life: list[set[int]], chains: list[set[int]], named: dict[int, str]
) -> None:
    before = pd.Series(dtype=object)
    known, names = groups.KnownGroups(), pd.Series(dtype=object)
    for present in life:
        frame = manifest_of(present, named)
        near = near_sets(present, chains)
        frame["group"], merged = groups.assign(frame, near, known)
        now = split(frame, SHARES)
        tied = {name for one in merged for name in one.tied}
        for number in before.index.intersection(now.index):
            if names[number] not in tied:
                assert now[number] == before[number]
        names = frame["group"].fillna(frame["sha256"])
        assert each_has_one(near, now)
        assert each_has_one(frame["given_group"].dropna(), now[frame["given_group"].notna()])
        assert each_has_one(names, now)
        before, known = now, groups.KnownGroups.of(frame)
        assert set(now) <= set(SPLITS)
