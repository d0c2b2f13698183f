"""The three layouts are told apart, and every image gets a true row."""

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from tasks.core.base.errors import DataError
from tasks.core.data import discovery, manifest
from tasks.core.data.parquet import read_parquet, write_parquet
from tests.images import scanned, write_classes


def labels_file(folder: Path, text: str = "path,label\n") -> Path:
    file = folder / "labels.csv"
    file.write_text(text, "utf-8")
    return file


def found(folder: Path, labels: Path) -> dict[str, tuple[str, str | None]]:
    entries, _ = discovery.discover(folder, labels)
    return {entry.path: (entry.label, entry.split_hint) for entry in entries}


def test_folders_are_classes(tmp_path: Path) -> None:
    write_classes(tmp_path / "pictures", count=2)
    (tmp_path / "pictures/red/deeper").mkdir()
    (tmp_path / "pictures/red/000.png").rename(tmp_path / "pictures/red/deeper/000.png")
    (tmp_path / "pictures/.hidden").mkdir()
    (tmp_path / "pictures/red/Thumbs.db").write_bytes(b"x")
    entries = found(tmp_path / "pictures", labels_file(tmp_path))
    assert len(entries) == 6
    assert entries["red/deeper/000.png"] == ("red", None)


def test_folders_named_after_splits_are_hints(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        write_classes(tmp_path / "pictures" / name, count=1)
    entries = found(tmp_path / "pictures", labels_file(tmp_path))
    assert entries["val/blue/000.png"] == ("blue", "validation")
    assert len(entries) == 9


def test_splits_go_by_the_names_that_people_give_them(tmp_path: Path) -> None:
    for name in ("Train", "valid", "testing"):
        write_classes(tmp_path / "pictures" / name, count=1)
    entries = found(tmp_path / "pictures", labels_file(tmp_path))
    assert entries["valid/blue/000.png"] == ("blue", "validation")
    assert entries["Train/red/000.png"] == ("red", "train")


def test_a_class_beside_splits_is_refused_and_does_not_make_classes_of_them(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write_classes(tmp_path / "pictures" / name, count=1)
    write_classes(tmp_path / "pictures", ["gold"], count=1)
    with pytest.raises(DataError, match="splits test, train and beside them gold"):
        discovery.discover(tmp_path / "pictures", labels_file(tmp_path))


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write_classes(tmp_path / "pictures", ["red", "blue"], count=1)
    (tmp_path / "pictures/red").rename(tmp_path / "pictures/train")
    assert found(tmp_path / "pictures", labels_file(tmp_path))["train/000.png"] == ("train", None)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_labels_file_with_rows_wins(tmp_path: Path, suffix: str) -> None:
    write_classes(tmp_path / "pictures", count=1)
    rows = {
        "path": ["red/000.png", "blue/000.png"],
        "label": ["warm", "cold"],
        "group": ["g", None],
        "split": ["val", None],
    }
    file = tmp_path / f"labels{suffix}"
    frame = pd.DataFrame(rows)
    frame.to_csv(file, index=False) if suffix == ".csv" else frame.to_parquet(file)
    (first, second), _ = discovery.discover(tmp_path / "pictures", file)
    assert (first.label, first.group, first.split_hint) == ("cold", None, None)
    assert (second.label, second.group, second.split_hint) == ("warm", "g", "validation")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label\nred/999.png,red\n", "red/999.png"),
        ("path,label\nred/000.png,red\nred/000.png,blue\n", "twice"),
        ("file,label\nred/000.png,red\n", "no column 'path'"),
        ("path,label,split\nred/000.png,red,trian\n", "'trian'"),
        ("path,label\nred/000.png,\n", "without a path or label"),
        ("path,label\nred/000.png,red,\n", "more fields than its first line"),
        ("path,label\nred/0,0.png,red\n", "more fields than its first line"),
    ],
)
def test_a_labels_file_with_a_slip_is_refused(tmp_path: Path, text: str, words: str) -> None:
    write_classes(tmp_path / "pictures", count=1)
    with pytest.raises(DataError, match=words) as caught:
        discovery.discover(tmp_path / "pictures", labels_file(tmp_path, text))
    assert "labels.csv" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["path,label\n", "path,label\nred/000.png,warm\nblue/000.png,cold\n"])
def test_files_that_are_no_images_are_counted_whoever_names_the_labels(tmp_path: Path, text: str) -> None:
    write_classes(tmp_path / "pictures", count=1)
    for name in ("notes.TXT", "red/README", "red/a.heic", "red/.hidden"):
        (tmp_path / "pictures" / name).touch()
    _, skipped = discovery.discover(tmp_path / "pictures", labels_file(tmp_path, text))
    assert skipped == {"": 1, ".heic": 1, ".txt": 1}


def test_an_image_beside_the_class_folders_is_refused(tmp_path: Path) -> None:
    write_classes(tmp_path / "pictures", count=1)
    Image.new("RGB", (9, 9)).save(tmp_path / "pictures/stray.png")
    with pytest.raises(DataError, match=r"stray\.png"):
        discovery.discover(tmp_path / "pictures", labels_file(tmp_path))


def test_every_image_gets_a_row_and_a_bad_one_says_why(tmp_path: Path) -> None:
    write_classes(tmp_path / "pictures", count=2)
    (tmp_path / "pictures/red/001.png").write_bytes(b"")
    frame = scanned(tmp_path / "pictures", labels_file(tmp_path))
    write_parquet(tmp_path / "manifest.parquet", frame, manifest.SCHEMA)
    back = read_parquet(tmp_path / "manifest.parquet")
    assert list(back.columns) == manifest.SCHEMA.names
    bad = back[back["error"].notna()]
    assert list(bad["path"]) == ["red/001.png"]
    assert set(manifest.readable(back)["width"]) == {40}
