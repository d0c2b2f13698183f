"""Slices part the test images by what may matter, and small ones are not judged."""

from pathlib import Path

import numpy as np
import pandas as pd

from tasks.core.data.labels_file import own_columns
from tasks.core.data.manifest import MEASURES
from tasks.core.evaluation import slices

N = 100


def rows(**columns: object) -> pd.DataFrame:
    """A manifest of N images, alike but for brightness."""
    same = dict.fromkeys(MEASURES, 0.5) | {"width": 40, "height": 30, "format": "PNG", "given_group": None}
    paths = pd.Index([f"{place}.png" for place in range(N)], name="path")
    return pd.DataFrame(same | {"brightness": np.arange(N) / N} | columns, index=paths)


def nothing(images: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(index=images.index)


def test_quartiles_are_a_quarter_each_and_what_parts_nothing_is_left_out() -> None:
    parted = slices.parts(rows(), nothing(rows()))
    assert list(parted) == ["brightness", "format"], "a format that all have may still be named in a rule"
    assert parted["brightness"].value_counts().to_dict() == {"q1": 25, "q2": 25, "q3": 25, "q4": 25}
    assert parted["brightness"].iloc[[0, -1]].tolist() == ["q1", "q4"]


def test_a_value_that_most_have_is_one_slice() -> None:
    images = rows(brightness=0.0, saturation=[0.0] * 80 + [0.7] * 20)
    parted = slices.parts(images, nothing(images))
    assert parted["saturation"].value_counts().to_dict() == {"q1": 80, "q4": 20}


def test_size_format_group_and_own_columns_are_slices() -> None:
    half = ["a"] * 50 + [None] * 50
    images = rows(
        brightness=0.0, width=[10] * 50 + [20] * 50, format=["PNG"] * 99 + ["JPEG"], given_group=half
    )
    own = pd.DataFrame({"camera": half, "format": ["x", "y"] * 50}, index=images.index)
    parted = slices.parts(images, own)
    assert {name: sorted(set(parted[name])) for name in parted} == {
        "size": ["q1", "q3"],
        "format": ["JPEG", "PNG"],
        "group": ["a", "none"],
        "camera": ["a", "none"],
        "format of the labels": ["x", "y"],
    }


def test_no_two_columns_get_one_name() -> None:
    """The labels file may have a column that is called as another of it is renamed."""
    images = rows(brightness=0.0)
    for order in (1, -1):
        mine = {"format": "a", "format of the labels": "b"}
        own = pd.DataFrame(dict(list(mine.items())[::order]), index=images.index)
        parted = slices.parts(images, own)
        assert parted.iloc[0].to_dict() == {
            "format": "PNG",
            "format of the labels": "b",
            "format of the labels of the labels": "a",
        }


def test_rare_values_are_one_slice_together() -> None:
    images = rows(brightness=0.0, given_group=["big"] * 40 + [f"small {n:02}" for n in range(60)])
    parted = slices.parts(images, nothing(images))
    counts = parted["group"].value_counts()
    assert len(counts) == slices.MAX_VALUES
    assert counts["big"] == 40
    assert counts[slices.REST] == 60 - (slices.MAX_VALUES - 2)


def test_a_value_that_is_called_as_a_slice_of_ours_is_a_slice_of_its_own() -> None:
    camera = ["none"] * 10 + [None] * 20 + ["x"] * 70
    city = [slices.REST] * 40 + [f"small {n:02}" for n in range(60)]
    images = rows(brightness=0.0)
    parted = slices.parts(images, pd.DataFrame({"camera": camera, "city": city}, index=images.index))
    assert parted["camera"].value_counts().to_dict() == {"x": 70, "none (no value)": 20, "none": 10}
    counts = parted["city"].value_counts()
    assert (counts[slices.REST], counts["all others (rare values)"]) == (40, 60 - (slices.MAX_VALUES - 2))


def test_a_weak_slice_is_told_and_a_small_one_is_not_judged() -> None:
    images = rows(format=["PNG"] * 95 + ["JPEG"] * 5)
    parted = slices.parts(images, nothing(images))
    right = np.arange(N) >= 25  # wrong on the darkest quarter
    found = slices.describe(parted, images, right, 10)
    assert found["brightness"]["q1"]["accuracy"] == 0
    assert found["brightness"]["q1"]["range"] == [0, 0.24]
    assert found["brightness"]["q2"]["accuracy"] == 1
    assert (found["format"]["JPEG"]["n"], found["format"]["JPEG"]["judged"]) == (5, False)
    assert found["format"]["PNG"]["judged"]


def test_the_users_own_columns_are_those_that_mean_nothing_to_us(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("path,label,camera,split\na.png,x,nikon,\nb.png,y,,test\n")
    own = own_columns(file)
    assert list(own) == ["camera"]
    assert own.loc["a.png", "camera"] == "nikon"
    assert own["camera"].isna().tolist() == [False, True]
    file.write_text("path,label\n")
    assert own_columns(file).shape == (0, 0)
