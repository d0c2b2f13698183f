"""Splits never part what belongs together, and records hold what the pictures hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from tasks import build
from tasks.core import images, manifest, params
from tasks.core.errors import ParamError
from tasks.core.params import Compute
from tasks.core.records import Dataset
from tasks.core.serialize import read_json
from tasks.core.splits import SPLITS
from tasks.core.tables import write_parquet
from tests.pictures import ALONE, scanned, write_classes
from tests.structure import ROOT

PARAMS = params.load(ROOT / "params.yaml")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("build")
    write_classes(top / "pictures", count=12)
    (top / "pictures/red/000.png").write_bytes(b"")
    (top / "labels.csv").write_text("path,label\n")
    frame = scanned(top / "pictures", top / "labels.csv")
    write_parquet(top / "manifest.parquet", frame, manifest.SCHEMA)
    return top


def built(
    top: Path,
    target: Path,
    backbone: str = "efficientnet_lite0",
    compute: Compute = ALONE,
    accepted: Mapping[str, Path] = MappingProxyType({}),
    **changes: Any,
) -> Dataset:
    p = dataclasses.replace(PARAMS.build, **changes)
    manifest = top / "manifest.parquet"
    build.build(top / "pictures", manifest, target, p, backbone, "auto", compute, accepted)
    return Dataset.load(target)


@pytest.mark.parametrize(("record", "tolerance"), [("raw", 0), ("png", 0), ("jpeg", 40)])
def test_records_hold_what_the_pictures_hold(
    pictures: Path, tmp_path: Path, record: str, tolerance: int
) -> None:
    data = built(pictures, tmp_path / "dataset", record=record)
    seen = 0
    for name in SPLITS:
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
    assert sum(counts[split]["red"] for split in SPLITS) == 11


def test_an_unknown_backbone_is_refused_and_nothing_is_written(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ParamError, match="'resnext'"):
        built(pictures, tmp_path / "dataset", backbone="resnext")
    assert list(tmp_path.iterdir()) == []
