"""Splits never part what belongs together, and records hold what the images hold."""

import dataclasses
import os
import struct
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from tasks import build
from tasks.check import Params
from tasks.core.backbones.tensorflow_setup import tf
from tasks.core.base import params
from tasks.core.base.errors import DataError, ParamError
from tasks.core.base.files import read_json, sha256
from tasks.core.data import image_io, manifest, shards, tfrecord
from tasks.core.data.config import Processes
from tasks.core.data.parquet import read_parquet, write_parquet
from tasks.core.data.splits import SPLITS
from tasks.core.training.dataset import Dataset
from tests.images import ALONE, scanned, write_classes
from tests.structure import ROOT

PARAMS = params.read(ROOT / "params.yaml", Params)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
    compute: Processes = ALONE,
    accepted: Mapping[str, Path] = MappingProxyType({}),
    image_size: int | Literal["auto"] = 64,
    **changes: Any,
) -> Dataset:
    p = dataclasses.replace(PARAMS.build, **changes)
    manifest = top / "manifest.parquet"
    build.build(top / "pictures", manifest, target, p, backbone, image_size, compute, accepted)
    return Dataset.load(target)


@pytest.mark.parametrize(("record", "tolerance"), [("raw", 0), ("png", 0), ("jpeg", 40)])
def test_records_hold_what_the_images_hold(images: Path, tmp_path: Path, record: str, tolerance: int) -> None:
    data = built(images, tmp_path / "dataset", record=record)
    seen = 0
    for name in SPLITS:
        for example in data.read(name, 16).unbatch().as_numpy_iterator():
            path = example["path"].decode()
            expected = image_io.read(images / "pictures" / path, data.image_size, "stretch")
            assert np.abs(example["image"].astype(int) - expected).max() <= tolerance
            assert data.class_names[example["label"]] == path.split("/")[0]
            seen += 1
    assert seen == 35, "the unreadable image is left out"


def test_small_images_get_a_small_size(images: Path, tmp_path: Path) -> None:
    data = built(images, tmp_path / "dataset", image_size="auto")
    assert data.image_size == 64
    assert data.auto == {
        "model.image_size": "64 pixels: their own size; too few images or classes to compare others by"
    }


def write_patterns(folder: Path, fine: bool) -> None:
    """Images of 64 pixels of two classes: fine stripes upright or lying, or black and white."""
    rng = np.random.default_rng(0)
    lines = np.indices((64, 64)) // 2 % 2
    for place in range(60):
        for name, stripes in zip(("a", "b"), lines, strict=True):
            pattern = 60 * stripes if fine else np.full((64, 64), 120 * (name == "b"))
            pixels = pattern[..., None] + rng.integers(0, 120, (64, 64, 1)).repeat(3, axis=2)
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{place:03d}.png")


@pytest.mark.parametrize("fine", [False, True])
def test_a_probe_decides_whether_small_images_are_enlarged(
    fine: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_patterns(tmp_path / "pictures", fine)
    (tmp_path / "labels.csv").write_text("path,label\n")
    frame = scanned(tmp_path / "pictures", tmp_path / "labels.csv")
    write_parquet(tmp_path / "manifest.parquet", frame, manifest.SCHEMA)
    data = built(tmp_path, tmp_path / "dataset", image_size="auto")
    assert data.image_size == 64 or fine
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "predicted by others" in line)
    assert line.removeprefix("build: images of ") == data.auto["model.image_size"]
    assert line.startswith(f"build: images of {data.image_size} pixels: ")


def test_two_builds_are_equal_and_well_named(images: Path, tmp_path: Path) -> None:
    built(images, tmp_path / "one")
    built(images, tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == [
        "dataset.json",
        "splits.parquet",
        *(f"{s}-00000-of-00001.tfrecord" for s in ("test", "train", "validation")),
    ]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    counts = read_json(tmp_path / "one/dataset.json")["counts"]
    assert sum(counts[split]["red"] for split in SPLITS) == 11
    each = read_parquet(tmp_path / "one/splits.parquet")["split"].value_counts()
    assert each.to_dict() == {split: sum(counts[split].values()) for split in SPLITS}


def test_an_unknown_backbone_is_refused_and_nothing_is_written(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ParamError, match="'resnext'"):
        built(images, tmp_path / "dataset", backbone="resnext")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Four images a file on average; collects the names of the files that are written."""
    monkeypatch.setattr(build, "PER_SHARD", 4)
    written: list[str] = []
    write = shards.write

    def noted(shard: shards.Shard) -> str:
        written.append(shard.file.name)
        return write(shard)

    monkeypatch.setattr(shards, "write", noted)
    return written


@pytest.fixture
def growing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hundred images of each class, with a cache of their own, and one more that is not there yet."""
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))
    write_classes(tmp_path / "pictures", count=101)
    for label in ("blue", "green", "red"):
        (tmp_path / f"pictures/{label}/050.png").rename(tmp_path / f"{label}.png")
    (tmp_path / "labels.csv").write_text("path,label\n")
    describe(tmp_path)
    return tmp_path


def describe(top: Path) -> None:
    frame = scanned(top / "pictures", top / "labels.csv")
    write_parquet(top / "manifest.parquet", frame, manifest.SCHEMA)


def add_one_percent(top: Path) -> None:
    for label in ("blue", "green", "red"):
        (top / f"{label}.png").rename(top / f"pictures/{label}/050.png")
    describe(top)


def files(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in folder.iterdir()}


def content(folder: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in files(folder).items()}


def test_a_hundredth_more_images_rewrite_the_files_they_fall_into_and_no_others(
    growing: Path, small_shards: list[str]
) -> None:
    first = built(growing, growing / "first")
    assert len(small_shards) == len(first.shards) > 50
    small_shards.clear()
    add_one_percent(growing)
    second = built(growing, growing / "second", accepted=files(growing / "first"))
    assert 1 <= len(small_shards) <= 3, "one for each new image at most"
    kept = set(first.shards.values()) & set(second.shards.values())
    assert len(kept) == len(second.shards) - len(small_shards)
    again = built(growing, growing / "again")
    assert content(growing / "second") == content(growing / "again"), "as if built at once"
    assert again.size("train") + again.size("validation") + again.size("test") == 303


def test_nothing_is_written_again_where_nothing_changed(growing: Path, small_shards: list[str]) -> None:
    built(growing, growing / "first")
    small_shards.clear()
    built(growing, growing / "second", accepted=files(growing / "first"))
    assert small_shards == []
    assert content(growing / "first") == content(growing / "second")


def test_another_recipe_takes_nothing_over(growing: Path, small_shards: list[str]) -> None:
    built(growing, growing / "first")
    small_shards.clear()
    built(growing, growing / "second", accepted=files(growing / "first"), resize="crop")
    assert len(small_shards) == len(files(growing / "second")) - 2, "all but the two tables"


def test_an_earlier_file_that_was_spoilt_is_written_again(growing: Path, small_shards: list[str]) -> None:
    built(growing, growing / "first")
    expected = content(growing / "first")
    spoilt = sorted(path for name, path in files(growing / "first").items() if name.startswith("train"))[:2]
    spoilt[0].write_bytes(spoilt[0].read_bytes()[:-1] + b"!")
    spoilt[1].write_bytes(b"")
    small_shards.clear()
    built(growing, growing / "second", accepted=files(growing / "first"))
    assert small_shards == [path.name for path in spoilt]
    assert content(growing / "second") == expected


def test_code_that_composes_records_otherwise_takes_nothing_over(
    growing: Path, small_shards: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    built(growing, growing / "first")
    digest = sha256
    edited = Path(str(shards.__file__))
    monkeypatch.setattr(shards, "sha256", lambda path: "edited" if path == edited else digest(path))
    shards._code.cache_clear()
    small_shards.clear()
    built(growing, growing / "second", accepted=files(growing / "first"))
    shards._code.cache_clear()
    assert len(small_shards) == len(content(growing / "second")) - 2


@pytest.mark.parametrize("notes", ["cache/shards.json", "first/dataset.json"])
@pytest.mark.parametrize("text", ["{ trunca", "null"])
def test_spoilt_notes_cost_time_and_nothing_else(
    growing: Path, small_shards: list[str], notes: str, text: str
) -> None:
    built(growing, growing / "first")
    expected = content(growing / "first")
    (growing / notes).write_text(text)
    small_shards.clear()
    built(growing, growing / "second", accepted=files(growing / "first"))
    assert len(small_shards) == len(expected) - 2
    assert content(growing / "second") == expected


def make_a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:50]), "was changed since it was validated"),
        (lambda file: Image.new("RGB", (40, 32)).save(file), "was changed since it was validated"),
        (lambda file: file.unlink(), "is gone since it was validated"),
        (make_a_pipe, "is no regular file"),
    ],
    ids=["shrunk", "replaced", "removed", "made a pipe"],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_an_image_that_changes_after_validation_stops_the_build(
    growing: Path, monkeypatch: pytest.MonkeyPatch, workers: int, damage: Callable[[Path], Any], words: str
) -> None:
    monkeypatch.setattr("tasks.core.data.parallel.MIN_SHARED_WORK", 0)
    damage(growing / "pictures/red/007.png")
    with pytest.raises(DataError, match=words) as caught:
        built(growing, growing / "dataset", compute=Processes(workers, "none"))
    assert "red/007.png" in str(caught.value) and "\n" not in str(caught.value)
    assert not (growing / "dataset").exists()
    assert not list(growing.glob(".*.tmp")), "nothing half-built is left"


NUMBERS = [0, 1, 127, 128, 2**31, 2**63 - 1, -1, -(2**63)]
TEXTS = ["", "plain.png", "größe 猫 🐈\n.png", "x" * 70_000]


def test_tensorflow_reads_back_what_records_hold(tmp_path: Path) -> None:
    rows: list[dict[str, int | bytes]] = [
        {"number": number, "text": text.encode(), "image": bytes(range(256)) * (place % 3)}
        for place, (number, text) in enumerate(product(NUMBERS, TEXTS))
    ]
    with (tmp_path / "some.tfrecord").open("wb") as file:
        for row in rows:
            tfrecord.write(file, tfrecord.example(row))
    spec = {
        "number": tf.io.FixedLenFeature([], tf.int64),
        "text": tf.io.FixedLenFeature([], tf.string),
        "image": tf.io.FixedLenFeature([], tf.string),
    }
    read = tf.data.TFRecordDataset(str(tmp_path / "some.tfrecord"))
    assert rows == list(read.map(lambda data: tf.io.parse_single_example(data, spec)).as_numpy_iterator())


@pytest.mark.parametrize("row", [{"label": 3, "path": b"a.png"}, {"label": -3, "path": b""}, {}])
def test_an_example_has_the_bytes_of_tensorflows_own(row: dict[str, int | bytes]) -> None:
    ours = tf.train.Example.FromString(tfrecord.example(row))
    assert set(ours.features.feature) == set(row)
    assert len(tfrecord.example(row)) == ours.ByteSize(), "no byte more than TensorFlow writes"


def test_a_number_that_no_record_can_hold_is_refused() -> None:
    for number in (2**63, -(2**63) - 1):
        with pytest.raises(struct.error):
            tfrecord.example({"number": number})
