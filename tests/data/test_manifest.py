"""The three layouts are told apart, and every image gets a true row."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tasks.core.base.errors import DataError
from tasks.core.data import discovery, manifest
from tasks.core.data.labels_file import own_columns
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


@pytest.mark.parametrize(
    "names",
    [("training_set", "testset"), ("seg_train", "seg_pred"), ("train", "validate"), ("TRAIN", "eval")],
)
def test_splits_that_are_called_otherwise_are_told_and_do_not_become_classes(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    for name in names:
        write_classes(tmp_path / "pictures" / name, count=1)
    with pytest.raises(DataError, match="taken for no splits; name splits train, validation and test"):
        discovery.discover(tmp_path / "pictures", labels_file(tmp_path))


@pytest.mark.parametrize("names", [("steam train", "bullet train"), ("train", "bus"), ("test tube", "flask")])
def test_classes_with_words_of_splits_in_their_names_are_classes(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    for name in names:
        write_classes(tmp_path / "pictures" / name, ["gold", "navy"], count=1)
    labels = {label for label, _ in found(tmp_path / "pictures", labels_file(tmp_path)).values()}
    assert labels == set(names)


@pytest.mark.parametrize("names", [("seg_train", "seg_test", "seg_pred"), ("training", "validation")])
@pytest.mark.parametrize("within", ["red/0.png", "0.png"])
def test_splits_within_folders_of_their_own_names_are_no_classes(
    tmp_path: Path, names: tuple[str, ...], within: str
) -> None:
    """As some archives unpack: a model would learn to tell train from test, without a word."""
    for name in names:
        file = tmp_path / "pictures" / name / name / within
        file.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(file)
    doubled = "seg_test/seg_test" if len(names) == 3 else "training/training"
    with pytest.raises(DataError, match=f"{doubled}.* make classes of splits; move what is in"):
        discovery.discover(tmp_path / "pictures", labels_file(tmp_path))


def test_classes_that_hold_other_folders_are_no_splits(tmp_path: Path) -> None:
    write_classes(tmp_path / "pictures/Training Shoes", ["gold"], count=1)
    write_classes(tmp_path / "pictures/Test Strips", ["navy"], count=1)
    assert len(found(tmp_path / "pictures", labels_file(tmp_path))) == 2


def test_copies_of_a_data_set_are_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A model would learn to tell the copies apart, and do so without a mistake."""
    for name in ("color", "grayscale"):
        write_classes(tmp_path / "pictures" / name, ["gold", "navy"], count=1)
    assert len(found(tmp_path / "pictures", labels_file(tmp_path))) == 4
    said = capfd.readouterr().err
    assert "color, grayscale, all hold the folders gold, navy; if these are the classes, give" in said
    write_classes(tmp_path / "pictures/color", ["pink"], count=1)
    found(tmp_path / "pictures", labels_file(tmp_path))
    assert capfd.readouterr().err == "", "as where a class has folders of dates"


def test_a_folder_around_the_classes_is_told(tmp_path: Path) -> None:
    write_classes(tmp_path / "pictures/data", count=1)
    with pytest.raises(DataError, match=r"one class only, 'data'.* the folders in it, give .*/pictures/data"):
        discovery.discover(tmp_path / "pictures", labels_file(tmp_path))


def test_blank_rows_of_a_spreadsheet_are_none(tmp_path: Path) -> None:
    write_classes(tmp_path / "pictures", count=1)
    file = labels_file(tmp_path, "path,label\nred/000.png,red\n,\nblue/000.png,blue\n,\n,\n")
    assert len(found(tmp_path / "pictures", file)) == 2
    assert list(own_columns(file).index) == ["red/000.png", "blue/000.png"]


def test_a_letter_that_unicode_writes_in_two_ways_is_told(tmp_path: Path) -> None:
    write_classes(tmp_path / "pictures", count=1)
    (tmp_path / "pictures/red/000.png").rename(tmp_path / "pictures/red/\u00e9.png")
    file = labels_file(tmp_path, "path,label\nred/e\u0301.png,red\nblue/000.png,blue\n")
    with pytest.raises(DataError, match="write its letters in NFC, as the file's name has them"):
        discovery.discover(tmp_path / "pictures", file)


@pytest.mark.parametrize("name", ["labels.pq", "labels.PARQUET", "labels"])
def test_parquet_is_known_by_its_content(tmp_path: Path, name: str) -> None:
    write_classes(tmp_path / "pictures", count=1)
    rows = {"path": ["red/000.png", "blue/000.png"], "label": ["a", "b"]}
    pd.DataFrame(rows).to_parquet(tmp_path / name)
    assert len(found(tmp_path / "pictures", tmp_path / name)) == 2


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
        ('path,label\nred/000.png," \u200b"\n', "without a path or label"),
        ("path,label\n,red\n,red\n", "without a path or label"),
        ('path,label\nred/000.png,red\n"blue/000.png,blue\ngreen/000.png",green\n', "a quote .* not closed"),
        (f"path,label\nred/{'0' * 5000}.png,red\n", r"lists 'red/0{96}\.\.\.', which is not in"),
        ("path,label\nred/000.png ,red\n", "leave out the blanks around it"),
        ("path,label\npictures/red/000.png,red\n", "leave out pictures/"),
        ("path,label\na/b/pictures/red/000.png,red\n", "leave out a/b/pictures/"),
        ("path,label\nred/000,red\n", r"its name there ends with \.png: add that"),
        ("path,label\nred/000.PNG,red\n", r"write the suffix as the file has it, not \.PNG"),
        ("path,label\n%72ed/000.png,red\n", "write them without %"),
        ("path;label;score\nred/000.png;red;0,5\n", "';' between its columns"),
        (
            "# labels\npath,label\nred/000.png,red\n",
            "begins with '# labels'; its first line must be path,label",
        ),
        ("path,label\nred/000.png,red,\n", "more fields than its first line"),
        ("path,label\nred/0,0.png,red\n", "more fields than its first line"),
    ],
)
def test_a_labels_file_with_a_slip_is_refused(tmp_path: Path, text: str, words: str) -> None:
    write_classes(tmp_path / "pictures", count=1)
    with pytest.raises(DataError, match=words) as caught:
        discovery.discover(tmp_path / "pictures", labels_file(tmp_path, text))
    assert "labels.csv" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("label", [b"red", b"blue"], "the column 'label' as binary; store it as text"),
        ("label", pd.Series([b"red", b"blue"]).astype("category"), "the column 'label' as dictionary"),
        ("label", [[0], [1]], "the column 'label' as list"),
        ("group", [{"a": 1}, {"a": 2}], "the column 'group' as struct"),
    ],
)
def test_a_column_that_is_no_text_makes_no_classes(
    tmp_path: Path, column: str, values: Any, words: str
) -> None:
    """They would be called b'red' and [0]."""
    write_classes(tmp_path / "pictures", count=1)
    file = tmp_path / "labels.parquet"
    known = pd.DataFrame({"path": ["red/000.png", "blue/000.png"], "label": ["warm", "cold"]})
    known.assign(**{column: values}).to_parquet(file)
    with pytest.raises(DataError, match=words):
        discovery.discover(tmp_path / "pictures", file)
    own: dict[str, Any] = {"embedding": [[0.5], [0.7]], "image": [b"1", b"2"], "place": ["here", "there"]}
    known.assign(**own).to_parquet(file)
    assert list(own_columns(file).columns) == ["place"], "of the user's own, text makes slices"


def test_numbers_and_what_pandas_stores_beside_them_are_read_as_they_are(tmp_path: Path) -> None:
    write_classes(tmp_path / "pictures", count=1)
    file = tmp_path / "labels.parquet"
    rows = pd.DataFrame({"path": ["red/000.png", "blue/000.png"], "label": [3, 7], "group": [1, None]})
    rows["group"] = rows["group"].astype("Int64")
    rows.set_index("path").to_parquet(file)
    (first, second), _ = discovery.discover(tmp_path / "pictures", file)
    assert (first.path, first.label, first.group) == ("blue/000.png", "7", None)
    assert (second.label, second.group) == ("3", "1")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_column_that_is_there_twice_is_refused(tmp_path: Path, suffix: str) -> None:
    write_classes(tmp_path / "pictures", count=1)
    file = tmp_path / f"labels{suffix}"
    names, values = ["path", "label", "label"], [["red/000.png"], ["warm"], ["cold"]]
    if suffix == ".csv":
        file.write_text("path,label,label\nred/000.png,warm,cold\n")
    else:
        pq.write_table(pa.table([pa.array(each) for each in values], names), file)
    with pytest.raises(DataError, match="has the column 'label' twice; keep one of them"):
        discovery.discover(tmp_path / "pictures", file)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (("caf\u00e9", "cafe\u0301"), r"'cafe\\u0301' and 'caf\\xe9' look alike"),
        (("red", "red "), "'red' and 'red ' look alike"),
        (("red", "red\u00a0"), r"'red' and 'red\\xa0' look alike"),
        (("red", "red\u200b"), r"'red' and 'red\\u200b' look alike"),
        (("light  red", "light red"), "look alike"),
        (("red\nor so", "blue"), r"the class 'red\\nor so' holds a line end or another control character"),
        (("red\u202ebulb", "blue"), r"the class 'red\\u202ebulb' holds a line end or another control"),
        (("red\u2028", "blue"), "holds a line end"),
        (("red\x07", "blue"), "control character"),
    ],
)
@pytest.mark.parametrize("layout", ["folders", "labels"])
def test_classes_that_nobody_can_tell_apart_or_that_break_lines_are_refused(
    tmp_path: Path, labels: tuple[str, str], words: str, layout: str
) -> None:
    images, file = tmp_path / "pictures", tmp_path / "labels.csv"
    write_classes(images, ["red", "blue"], count=1)
    if layout == "labels":
        rows = {"path": ["red/000.png", "blue/000.png"], "label": labels}
        pd.DataFrame(rows).to_csv(file, index=False)
    else:
        labels_file(tmp_path)
        for name, label in zip(("red", "blue"), labels, strict=True):
            (images / name).rename(images / f"{label}.new")
        for folder in list(images.iterdir()):
            folder.rename(folder.with_suffix(""))
    with pytest.raises(DataError, match=words) as caught:
        discovery.discover(images, file)
    assert "\n" not in str(caught.value)


def test_classes_that_differ_to_the_eye_are_classes(tmp_path: Path) -> None:
    write_classes(tmp_path / "pictures", ["red", "blue", "green", "gold"], count=1)
    labels = ["a", "A", "x\u00b2", "x2"]
    paths = [f"{name}/000.png" for name in ("red", "blue", "green", "gold")]
    pd.DataFrame({"path": paths, "label": labels}).to_csv(tmp_path / "labels.csv", index=False)
    entries, _ = discovery.discover(tmp_path / "pictures", tmp_path / "labels.csv")
    assert {entry.label for entry in entries} == set(labels)


def test_a_group_is_one_however_it_is_written(tmp_path: Path) -> None:
    """Else its images would come into different splits."""
    write_classes(tmp_path / "pictures", ["red", "blue", "green"], count=1)
    text = "path,label,group\nred/000.png,a,caf\u00e9\nblue/000.png,b,cafe\u0301 \ngreen/000.png,b,\n"
    entries, _ = discovery.discover(tmp_path / "pictures", labels_file(tmp_path, text))
    assert {entry.path: entry.group for entry in entries} == {
        "red/000.png": "caf\u00e9",
        "blue/000.png": "caf\u00e9",
        "green/000.png": None,
    }


def test_backslashes_in_a_labels_file_are_told(tmp_path: Path) -> None:
    write_classes(tmp_path / "pictures", count=1)
    file = labels_file(tmp_path, "path,label\nred\\000.png,a\nblue\\000.png,b\n")
    with pytest.raises(DataError, match=r"write paths with / in place of \\"):
        discovery.discover(tmp_path / "pictures", file)


@pytest.mark.parametrize("top", ["", "train/"])
@pytest.mark.parametrize(
    ("held", "words"),
    [
        ((), "; put some there, or remove"),
        ((".DS_Store",), "; put some there, or remove"),
        (("a.heic", "b.HEIC", "c"), r", but 1 without a suffix, 2 \.heic; convert these"),
    ],
)
def test_a_class_folder_without_an_image_is_told_and_no_class_is_lost(
    tmp_path: Path, top: str, held: tuple[str, ...], words: str
) -> None:
    images = tmp_path / "pictures"
    write_classes(images / top, ["red", "blue"], count=1)
    (images / top / "gone").mkdir()
    for name in held:
        (images / top / "gone" / name).touch()
    with pytest.raises(DataError, match=rf"pictures/{top}gone holds no image{words}"):
        discovery.discover(images, labels_file(tmp_path))


@pytest.mark.parametrize("left", ["__MACOSX/train", "@eaDir/x", ".git/hooks", ".ipynb_checkpoints/z"])
def test_what_systems_leave_beside_splits_is_no_class(tmp_path: Path, left: str) -> None:
    for split in ("train", "test"):
        write_classes(tmp_path / "pictures" / split, ["red", "blue"], count=1)
    (tmp_path / "pictures" / left).mkdir(parents=True)
    assert len(found(tmp_path / "pictures", labels_file(tmp_path))) == 4


def test_columns_without_a_name_and_groups_of_blanks_are_none(tmp_path: Path) -> None:
    """As spreadsheets leave them."""
    write_classes(tmp_path / "pictures", ["red", "blue"], count=1)
    text = "path,label,group,,\nred/000.png,a, ,,\nblue/000.png,b,,,\n"
    entries, _ = discovery.discover(tmp_path / "pictures", labels_file(tmp_path, text))
    assert [entry.group for entry in entries] == [None, None]


def test_a_class_that_one_split_has_no_image_of_is_no_lost_class(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_classes(tmp_path / "pictures" / split, ["red", "blue"], count=1)
    (tmp_path / "pictures/test/red/000.png").unlink()
    assert len(found(tmp_path / "pictures", labels_file(tmp_path))) == 3


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
