"""Splits never part what belongs together, and records hold what the pictures hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks import build
from tasks.core import images, manifest, params
from tasks.core.errors import DataError, ParamError
from tasks.core.records import Dataset
from tasks.core.serialize import read_json, write_parquet
from tests.pictures import write_classes
from tests.structure import ROOT

PARAMS = params.load(ROOT / "params.yaml")


def rows(count: int, **columns: Any) -> pd.DataFrame:
    """A manifest of two classes with `count` pictures each."""
    frame = pd.DataFrame({"label": ["a", "b"] * count, "sha256": [f"{n:064x}" for n in range(2 * count)]})
    frame["path"] = frame["label"] + "/" + frame["sha256"]
    frame["group"], frame["split_hint"] = None, None
    return frame.assign(**columns)


def split(frame: pd.DataFrame, seed: int = 1) -> pd.Series:
    return build.split(frame, 0.1, 0.2, seed)


def test_each_class_is_shared_out_as_asked() -> None:
    frame = rows(100)
    counts = pd.crosstab(frame["label"], split(frame))
    assert counts.loc["a"].to_dict() == {"test": 20, "train": 70, "validation": 10}


def test_the_split_hangs_on_content_and_not_on_order_or_names() -> None:
    frame = rows(50)
    shuffled = frame.sample(frac=1, random_state=3).assign(path="renamed")
    assert split(frame).sort_index().equals(split(shuffled).sort_index())
    assert not split(frame).equals(split(frame, seed=2))


def test_pictures_of_a_group_stay_together() -> None:
    frame = rows(60)
    frame["group"] = frame["label"] + (frame.index // 6).astype(str)
    assert (split(frame).groupby(frame["group"]).nunique() == 1).all()


def test_copies_stay_together() -> None:
    frame = rows(40)
    frame = pd.concat([frame, frame.assign(path="copy")], ignore_index=True)
    assert (split(frame).groupby(frame["sha256"]).nunique() == 1).all()


def test_hints_hold_and_only_missing_splits_are_taken_from_training() -> None:
    frame = rows(50)
    frame.loc[:9, "split_hint"] = "test"
    frame.loc[10:, "split_hint"] = "train"
    result = split(frame)
    assert (result[:10] == "test").all()
    assert set(result[10:]) == {"train", "validation"}


def test_a_class_too_small_for_its_splits_is_refused() -> None:
    with pytest.raises(DataError, match="class 'a' has no picture for train"):
        split(rows(2))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("build")
    write_classes(top / "pictures", count=12)
    (top / "pictures/red/000.png").write_bytes(b"")
    (top / "labels.csv").write_text("path,label\n")
    entries = manifest.discover(top / "pictures", top / "labels.csv")
    frame = manifest.scan(top / "pictures", entries, 1)
    write_parquet(top / "manifest.parquet", frame, manifest.SCHEMA)
    return top


def built(top: Path, target: Path, backbone: str = "efficientnet_lite0", **changes: Any) -> Dataset:
    p = dataclasses.replace(PARAMS.build, **changes)
    build.build(top / "pictures", top / "manifest.parquet", target, p, backbone, "auto", 1)
    return Dataset.load(target)


@pytest.mark.parametrize(("record", "tolerance"), [("raw", 0), ("png", 0), ("jpeg", 40)])
def test_records_hold_what_the_pictures_hold(
    pictures: Path, tmp_path: Path, record: str, tolerance: int
) -> None:
    data = built(pictures, tmp_path / "dataset", record=record)
    seen = 0
    for name in manifest.SPLITS:
        for example in data.read(name).as_numpy_iterator():
            path = example["path"].decode()
            expected = images.read(pictures / "pictures" / path, data.image_size, "stretch")
            assert np.abs(example["image"].astype(int) - expected).max() <= tolerance
            assert data.class_names[example["label"]] == path.split("/")[0]
            seen += 1
    assert seen == 35, "the unreadable picture is left out"


def test_small_pictures_get_a_small_size(pictures: Path, tmp_path: Path) -> None:
    assert built(pictures, tmp_path / "dataset").image_size == 64


def test_two_builds_are_equal_and_well_named(pictures: Path, tmp_path: Path) -> None:
    built(pictures, tmp_path / "one")
    built(pictures, tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == [
        "dataset.json",
        *(f"{s}-00000-of-00001.tfrecord" for s in ("test", "train", "validation")),
    ]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    counts = read_json(tmp_path / "one/dataset.json")["counts"]
    assert sum(counts[split]["red"] for split in manifest.SPLITS) == 11


def test_an_unknown_backbone_is_refused_and_nothing_is_written(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ParamError, match="'resnext'"):
        built(pictures, tmp_path / "dataset", backbone="resnext")
    assert list(tmp_path.iterdir()) == []
