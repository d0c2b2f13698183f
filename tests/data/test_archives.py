"""Images in tar and ZIP files are read as those in folders are, and a bad archive is one line."""

import io
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks import predict
from tasks.core.base.errors import DataError
from tasks.core.data import archives, discovery, image_io, manifest
from tasks.core.data.parquet import write_parquet
from tasks.core.inference import scoring
from tests.data.test_build import built
from tests.images import ALONE, scanned, write_classes

Pack = Callable[[Path, dict[str, bytes]], None]


def pack_tar(file: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(file, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def pack_zip(file: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)


PACKERS = [pytest.param(pack_tar, ".tar", id="tar"), pytest.param(pack_zip, ".zip", id="zip")]


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loose")
    write_classes(folder / "pictures", count=12)
    (folder / "labels.csv").write_text("path,label\n")
    return folder


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for archives, with a labels file without rows, and a cache of its own."""
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "pictures").mkdir()
    (tmp_path / "labels.csv").write_text("path,label\n")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def found(top: Path) -> list[tuple[str, str, str | None]]:
    entries, _ = discovery.discover(top / "pictures", top / "labels.csv")
    return [(entry.path, entry.label, entry.split_hint) for entry in entries]


@pytest.mark.parametrize(("pack", "suffix"), PACKERS)
def test_the_same_images_come_to_the_same_manifest_and_records(
    loose: Path, top: Path, pack: Pack, suffix: str
) -> None:
    files = contents(loose / "pictures")
    names = list(files)
    for number, part in enumerate((names[::2], names[1::2])):
        pack(top / "pictures" / f"{number}{suffix}", {f"./{name}": files[name] for name in part})
    frames = [scanned(folder / "pictures", folder / "labels.csv") for folder in (loose, top)]
    for folder, frame in zip((loose, top), frames, strict=True):
        write_parquet(folder / "manifest.parquet", frame, manifest.SCHEMA)
    one, other = (frame.set_index("sha256").drop(columns="path").sort_index() for frame in frames)
    pd.testing.assert_frame_equal(one, other)
    assert set(frames[1]["path"].str[:2]) == {f"{number}." for number in (0, 1)}
    digests = set()
    for folder in (loose, top):
        data = built(folder, top / f"{folder.name}-dataset")
        images = [each for split in ("train", "validation", "test") for each in data.read(split, 4).unbatch()]
        digests.add(
            tuple(sorted((each["sha256"].numpy(), each["image"].numpy().tobytes()) for each in images))
        )
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.tar/cat/1.png", "a.tar/dog/1.png"], [("cat", None), ("dog", None)]),
        (["cat/a.tar/1.png", "dog/1.png"], [("cat", None), ("dog", None)]),
        (["a.zip/train/cat/1.png", "a.zip/test/dog/1.png"], [("dog", "test"), ("cat", "train")]),
        (["train/a.tar/cat/1.png", "val/b.tar/dog/1.png"], [("cat", "train"), ("dog", "validation")]),
        (["train-00.tar/cat/1.png", "val-00.tar/dog/1.png"], [("cat", "train"), ("dog", "validation")]),
        (["trains.tar/cat/1.png", "b.tar/dog/1.png"], [("dog", None), ("cat", None)]),
        (["train/cat/1.png", "val-00.tar/dog/1.png"], [("cat", "train"), ("dog", "validation")]),
        (["train.tar/cat/1.png", "dog/1.png"], [("dog", None), ("cat", None)]),
        (["train.zip/train/cat/1.png", "test.zip/test/dog/1.png"], [("dog", "test"), ("cat", "train")]),
        (["A.TAR/cat/1.png", "A.TAR/dog/.hidden.png", "A.TAR/dog/2.PNG"], [("cat", None), ("dog", None)]),
    ],
)
def test_an_archive_counts_as_the_folder_it_is_in(
    top: Path, names: list[str], expected: list[tuple[str, str | None]]
) -> None:
    packed: dict[str, dict[str, bytes]] = {}
    for name in names:
        inner = archives.INTO.search(name)
        if inner:
            packed.setdefault(name[: inner.end() - 1], {})[name[inner.end() :]] = b"x"
        else:
            (top / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
            (top / "pictures" / name).write_bytes(b"x")
    for name, files in packed.items():
        file = top / "pictures" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        (pack_tar if file.suffix.lower() == ".tar" else pack_zip)(file, files)
    assert [(label, hint) for _, label, hint in found(top)] == expected


@pytest.mark.parametrize(
    "names",
    [("train.zip", "validate.zip"), ("pets_train.tar", "pets_test.tar"), ("testset.zip", "holdout-00.zip")],
)
def test_archives_of_splits_that_are_called_otherwise_are_told(top: Path, names: tuple[str, ...]) -> None:
    """Or all of their images would be drawn anew, those for test among those to learn from."""
    for name in names:
        pack = pack_tar if name.endswith(".tar") else pack_zip
        pack(top / "pictures" / name, {"cat/1.png": b"x", "dog/1.png": b"x"})
    with pytest.raises(DataError, match="taken for no splits; name splits train, validation and test"):
        found(top)


def test_archives_with_words_of_splits_in_their_names_hold_classes(top: Path) -> None:
    pack_zip(top / "pictures/trainers.zip", {"shoe/1.png": b"x"})
    pack_zip(top / "pictures/test tubes.zip", {"tube/1.png": b"x"})
    assert [label for _, label, _ in found(top)] == ["tube", "shoe"]


def test_webdatasets_files_of_classes_are_read(top: Path) -> None:
    files = {"000.cls": b"3\n", "000.jpg": b"x", "001.seg.png": b"x", "001.cls": b"7", "notes.txt": b"x"}
    pack_tar(top / "pictures/train-000000.tar", files)
    archive = "train-000000.tar"
    assert found(top) == [(f"{archive}/000.jpg", "3", "train"), (f"{archive}/001.seg.png", "7", "train")]


@pytest.mark.parametrize(("pack", "suffix"), PACKERS)
def test_a_labels_file_names_images_in_archives(top: Path, pack: Pack, suffix: str) -> None:
    pack(top / f"pictures/a{suffix}", {"1.png": b"x", "2.png": b"x"})
    (top / "labels.csv").write_text(f"path,label\na{suffix}/1.png,cat\na{suffix}/2.png,dog\n")
    assert found(top) == [(f"a{suffix}/1.png", "cat", None), (f"a{suffix}/2.png", "dog", None)]
    (top / "labels.csv").write_text(f"path,label\na{suffix}/1.png,cat\na{suffix}/3.png,dog\n")
    with pytest.raises(DataError, match=rf"lists 'a{suffix}/3.png', which is not in .* \(1 of 2 are not\)"):
        found(top)


@pytest.mark.parametrize("names", [["part1/a.tar", "part2/a.tar"], ["a.tar", "train/b.tar"]])
def test_what_a_file_says_of_a_class_counts_more_than_folders(top: Path, names: list[str]) -> None:
    for name, label in zip(names, (b"cat", b"dog"), strict=True):
        (top / "pictures" / name).parent.mkdir(exist_ok=True)
        pack_tar(top / "pictures" / name, {"s/1.jpg": b"x", "s/1.cls": label, "2.jpg": b"x", "2.cls": label})
    assert {label for _, label, _ in found(top)} == {"cat", "dog"}


def climbing(file: Path) -> None:
    pack_tar(file.with_suffix(".tar"), {"cat/1.png": b"x", "../dog/1.png": b"x"})


def absolute(file: Path) -> None:
    pack_zip(file.with_suffix(".zip"), {"cat/1.png": b"x", "/etc/1.png": b"x"})


def twice(file: Path) -> None:
    pack_zip(file.with_suffix(".zip"), {"cat/1.png": b"x", "./cat/1.png": b"x"})


def compressed(file: Path) -> None:
    with tarfile.open(file.with_suffix(".tar"), "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("cat/1.png"))


def truncated(file: Path) -> None:
    pack_tar(file.with_suffix(".tar"), {f"cat/{n}.png": bytes(2000) for n in range(9)})
    os.truncate(file.with_suffix(".tar"), 9000)


def cut_between(file: Path) -> None:
    pack_tar(
        file.with_suffix(".tar"), {f"{c}/{n}.png": bytes(1024) for c in ("cat", "dog") for n in range(3)}
    )
    os.truncate(file.with_suffix(".tar"), 4 * (512 + 1024))


def bad_header(file: Path) -> None:
    pack_tar(
        file.with_suffix(".tar"), {f"{c}/{n}.png": bytes(1024) for c in ("cat", "dog") for n in range(3)}
    )
    with file.with_suffix(".tar").open("r+b") as tar:
        tar.seek(4 * (512 + 1024) + 3)
        tar.write(b"#")


def two_in_one(file: Path) -> None:
    pack_tar(file.with_suffix(".tar"), {"cat/1.png": b"x"})
    pack_tar(file.with_suffix(".two"), {"dog/1.png": b"x"})
    joined = file.with_suffix(".tar").read_bytes() + file.with_suffix(".two").read_bytes()
    file.with_suffix(".two").unlink()
    file.with_suffix(".tar").write_bytes(joined)


def tar_twice(file: Path) -> None:
    pack_tar(file.with_suffix(".tar"), {"cat/1.png": b"x", "./cat/1.png": b"y"})


def without_a_name(file: Path) -> None:
    pack_zip(file.with_suffix(".zip"), {"cat/1.png": b"x", "dog/2.png": b"x"})
    data = file.with_suffix(".zip").read_bytes()
    file.with_suffix(".zip").write_bytes(data.replace(b"dog/2.png", b"dog\\2.png"))


def unread_class(file: Path) -> None:
    pack_tar(file.with_suffix(".tar"), {"cat/1.jpg": b"x", "dog/1.jpg": b"x", "owl/3.heic": b"x"})


def empty_label(file: Path) -> None:
    pack_tar(file.with_suffix(".tar"), {"1.jpg": b"x", "1.cls": b" \n"})


def two_labels(file: Path) -> None:
    pack_tar(file.with_suffix(".tar"), {"1.0.jpg": b"x", "1.0.cls": b"a", "1.1.jpg": b"x", "1.1.cls": b"b"})


def wrapped(file: Path) -> None:
    pack_zip(file.with_suffix(".zip"), {"pets/cat/1.png": b"x", "pets/dog/1.png": b"x"})
    pack_zip(file.with_suffix(".b.zip"), {"cat/2.png": b"x", "owl/2.png": b"x"})


def one_wrapped(file: Path) -> None:
    pack_zip(file.with_suffix(".zip"), {"pets/cat/1.png": b"x", "pets/dog/1.png": b"x"})


def packed_as_gz(file: Path) -> None:
    file.with_suffix(".tar.gz").write_bytes(b"x")


def no_zip(file: Path) -> None:
    file.with_suffix(".zip").write_bytes(b"not one")


def encrypted(file: Path) -> None:
    pack_zip(file.with_suffix(".zip"), {"cat/1.png": b"x"})
    data = bytearray(file.with_suffix(".zip").read_bytes())
    data[6] |= 1  # of the file's own header, and of the list at the end
    data[data.index(b"PK\x01\x02") + 8] |= 1
    file.with_suffix(".zip").write_bytes(data)


def deflate64(file: Path) -> None:
    pack_zip(file.with_suffix(".zip"), {"cat/1.png": b"x"})
    data = bytearray(file.with_suffix(".zip").read_bytes())
    data[data.index(b"PK\x01\x02") + 10] = 9
    file.with_suffix(".zip").write_bytes(data)


def linked(file: Path) -> None:
    with tarfile.open(file.with_suffix(".tar"), "w") as tar:
        info = tarfile.TarInfo("cat/1.png")
        info.type, info.linkname = tarfile.SYMTYPE, "../2.png"
        tar.addfile(info)


def linked_to_nothing(file: Path) -> None:
    with tarfile.open(file.with_suffix(".tar"), "w") as tar:
        info = tarfile.TarInfo("cat/1.png")
        info.type, info.linkname = tarfile.LNKTYPE, "gone.png"
        tar.addfile(info)


def without_class(file: Path) -> None:
    pack_tar(file.with_suffix(".tar"), {"1.png": b"x", "cat/1.png": b"x"})


def unpacked_beside(file: Path) -> None:
    pack_zip(file.with_suffix(".zip"), {"cat/1.png": b"x", "dog/1.png": b"x"})
    (file.parent / "cat").mkdir()
    (file.parent / "cat/1.png").write_bytes(b"x")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (climbing, "holds '../dog/1.png', which leads out of it; make it anew"),
        (absolute, "which leads out of it; make it anew"),
        (twice, "holds 'cat/1.png' twice"),
        (compressed, "can't be read as an uncompressed tar file"),
        (truncated, "can't be read as an uncompressed tar file"),
        (cut_between, "can't be read as an uncompressed tar file (it ends early)"),
        (bad_header, "can't be read as an uncompressed tar file (a header in it is damaged"),
        (two_in_one, "can't be read as an uncompressed tar file (a header in it is damaged, or more lies"),
        (tar_twice, "holds 'cat/1.png' twice"),
        (without_a_name, "make the archive anew with / in its names"),
        (unread_class, "the class 'owl' in "),
        (empty_label, "a.tar/1.cls is empty"),
        (two_labels, "a.tar/1.1.cls says another class"),
        (wrapped, "a.zip has a folder 'pets' around 'cat', which is a class elsewhere"),
        (one_wrapped, "holds one class only, 'pets'; a classifier needs at least two; an archive counts"),
        (packed_as_gz, "holds no image"),
        (no_zip, "can't be read as a ZIP file"),
        (encrypted, "can't be read as a ZIP file (it is encrypted); make it anew"),
        (deflate64, "can't be read as a ZIP file (it is compressed by method 9, not by deflate)"),
        (linked, "cat/1.png is a link or sparse"),
        (linked_to_nothing, "(cat/1.png is a hard link to gone.png, which is not before it); make it anew"),
        (without_class, "a.tar/1.png lies outside of every class folder; pack it with a folder of"),
        (unpacked_beside, "a.zip/cat/1.png lies beside the archive as well"),
    ],
)
def test_what_is_wrong_with_an_archive_is_one_line(
    top: Path, spoil: Callable[[Path], None], words: str
) -> None:
    spoil(top / "pictures/a")
    with pytest.raises(DataError, match=re.escape(words)) as caught:
        found(top)
    assert "\n" not in str(caught.value)


def test_folders_within_classes_may_be_called_alike(top: Path) -> None:
    for label in ("cat", "dog"):
        pack_zip(top / f"pictures/{label}.zip", {f"{label}/small/1.png": b"x", f"{label}/large/1.png": b"x"})
    assert {label for _, label, _ in found(top)} == {"cat", "dog"}


def test_an_archive_that_is_linked_is_read_by_a_labels_file_too(top: Path) -> None:
    pack_zip(top / "elsewhere.zip", {"1.png": b"x", "2.png": b"x"})
    (top / "pictures/a.zip").symlink_to(top / "elsewhere.zip")
    (top / "labels.csv").write_text("path,label\na.zip/1.png,cat\na.zip/2.png,dog\n")
    assert len(found(top)) == 2


def test_a_bad_archive_stops_nobody_who_doesnt_name_it(loose: Path, top: Path) -> None:
    for name in ("1.png", "2.png"):
        (top / "pictures" / name).write_bytes(next(iter(contents(loose / "pictures").values())))
    (top / "pictures/notes.zip").write_bytes(b"not one")
    (top / "pictures/gone.tar").symlink_to(top / "nowhere")
    (top / "labels.csv").write_text("path,label\n1.png,cat\n2.png,dog\n")
    assert len(found(top)) == 2
    names = {Path(source.name).name for source in predict.list_sources([str(top / "pictures")])}
    assert names == {"1.png", "2.png", "notes.zip"}
    frame = scoring.describe(top / "pictures", ALONE)
    assert frame.set_index("path")["error"].to_dict()["notes.zip"].startswith("can't be read as a ZIP file")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (climbing, "holds '../dog/1.png', which leads out of it; make it anew"),
        (twice, "holds 'cat/1.png' twice; make it anew with one of them"),
        (
            linked_to_nothing,
            "can't be read as an uncompressed tar file (cat/1.png is a hard link to gone.png, which is not "
            "before it); make it anew",
        ),
    ],
)
def test_predict_and_score_say_why_an_archive_is_refused(
    top: Path, spoil: Callable[[Path], None], words: str
) -> None:
    spoil(top / "pictures/a")
    (source,) = predict.list_sources([str(top / "pictures")])
    with pytest.raises(DataError) as caught:
        image_io.content(Path(source.name))
    assert str(caught.value) == f"{source.name} {words}"
    assert scoring.describe(top / "pictures", ALONE)["error"].tolist() == [words]


def test_an_image_that_is_called_as_an_archive_is_read(loose: Path, top: Path) -> None:
    (top / "pictures/a.zip").write_bytes((loose / "pictures/blue/000.png").read_bytes())
    (source,) = predict.list_sources([str(top / "pictures")])
    assert image_io.read(Path(source.name), 32, "stretch").shape == (32, 32, 3)
    assert scoring.describe(top / "pictures", ALONE)["error"].isna().all()


def test_an_archive_without_images_is_passed_over_and_told(loose: Path, top: Path) -> None:
    for name, data in contents(loose / "pictures").items():
        (top / "pictures" / name).parent.mkdir(exist_ok=True)
        (top / "pictures" / name).write_bytes(data)
    pack_zip(top / "pictures/papers.zip", {"read me.pdf": b"x"})
    entries, skipped = discovery.discover(top / "pictures", top / "labels.csv")
    assert len(entries) == 36 and skipped == {".pdf": 1}


def test_a_hard_link_in_a_tar_is_the_file_it_is_of(top: Path) -> None:
    with tarfile.open(top / "pictures/a.tar", "w") as tar:
        info = tarfile.TarInfo("cat/1.png")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("dog/1.png")
        link.type, link.linkname = tarfile.LNKTYPE, "cat/1.png"
        tar.addfile(link)
    assert image_io.content(top / "pictures/a.tar/dog/1.png") == b"abc"


@pytest.mark.parametrize(("pack", "suffix"), PACKERS)
def test_a_changed_archive_is_read_anew_and_its_images_are_known(
    loose: Path, top: Path, pack: Pack, suffix: str
) -> None:
    files = contents(loose / "pictures")
    archive = top / f"pictures/a{suffix}"
    pack(archive, files)
    before = scanned(top / "pictures", top / "labels.csv")
    name = "blue/000.png"
    with pytest.raises(DataError, match="was changed since it was validated"):
        image_io.validated(archive / name, "0" * 64)
    changed = files | {name: files["red/000.png"]}
    del changed["blue/001.png"]
    archive.unlink()
    pack(archive, changed)
    after = scanned(top / "pictures", top / "labels.csv")
    assert len(after) == len(before) - 1
    digests = {
        frame_name: frame.set_index("path")["sha256"] for frame_name, frame in (("b", before), ("a", after))
    }
    assert digests["a"][f"a{suffix}/{name}"] == digests["a"][f"a{suffix}/red/000.png"]
    assert digests["b"][f"a{suffix}/{name}"] != digests["a"][f"a{suffix}/{name}"]
    with pytest.raises(DataError, match="is gone since it was validated"):
        image_io.validated(archive / "blue/001.png", "0" * 64)


@pytest.mark.parametrize(("pack", "suffix"), PACKERS)
def test_what_would_explode_is_not_unpacked(
    top: Path, pack: Pack, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 1000)
    pack(top / f"pictures/a{suffix}", {"cat/1.png": bytes(1001), "dog/1.png": bytes(1000)})
    with pytest.raises(DataError, match=r"cat/1.png is too large: 1,001 bytes; make the archive anew"):
        image_io.content(top / f"pictures/a{suffix}/cat/1.png")
    assert len(image_io.content(top / f"pictures/a{suffix}/dog/1.png")) == 1000


def test_an_image_that_is_damaged_in_its_archive_calls_for_another_archive(top: Path) -> None:
    archive = top / "a.zip"
    pack_zip(archive, {"cat/1.png": b"abc"}, zipfile.ZIP_STORED)
    archive.write_bytes(archive.read_bytes().replace(b"abc", b"abd"))
    with pytest.raises(DataError, match=r"1.png can't be read .*Bad CRC.*; make the archive anew"):
        image_io.content(archive / "cat/1.png")
    with pytest.raises(DataError, match=r"2.png is not there; check the path"):
        image_io.content(archive / "cat/2.png")


def test_predict_finds_images_in_the_archives_of_a_folder(loose: Path, top: Path) -> None:
    pack_tar(top / "pictures/a.tar", contents(loose / "pictures"))
    sources = predict.list_sources([str(top / "pictures")])
    assert len(sources) == 36
    assert image_io.read(Path(sources[0].name), 32, "stretch").shape == (32, 32, 3)


def test_predict_takes_an_archive_as_it_takes_a_folder(loose: Path, top: Path) -> None:
    pack_zip(top / "a.zip", contents(loose / "pictures"))
    sources = predict.list_sources([str(top / "a.zip")])
    assert len(sources) == 36 and sources[0].name.startswith(f"{top}/a.zip/")
    assert image_io.read(Path(sources[0].name), 32, "stretch").shape == (32, 32, 3)


def test_predict_passes_over_an_archive_that_is_damaged(loose: Path, top: Path) -> None:
    pack_zip(top / "a.zip", contents(loose / "pictures"))
    (top / "b.zip").write_bytes(b"PK damaged")
    names = [source.name for source in predict.list_sources([f"{top}/*.zip"])]
    assert len(names) == 37 and names[-1] == f"{top}/b.zip"


def test_names_in_utf_8_are_read_where_a_zip_does_not_say_that_they_are(top: Path) -> None:
    """As Info-ZIP and macOS write them; the classes came out as `K├ñfer`."""
    names = {"K\u00e4fer/1.png": b"x", "b/1.png": b"y"}
    pack_zip(top / "pictures/a.zip", names)
    data = bytearray((top / "pictures/a.zip").read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.index(mark) + flags
        assert data[at + 1] & 0x08, "the flag, set by Python"
        data[at + 1] &= ~0x08
    (top / "pictures/a.zip").write_bytes(data)
    entries = found(top)
    assert entries == [("a.zip/K\u00e4fer/1.png", "K\u00e4fer", None), ("a.zip/b/1.png", "b", None)]
    assert image_io.content(top / "pictures/a.zip/K\u00e4fer/1.png") == b"x"


def test_a_folder_may_be_called_as_an_archive_is(loose: Path, top: Path) -> None:
    for label in ("cat.tar", "dog"):
        (top / "pictures" / label).mkdir()
        (top / "pictures" / label / "1.png").write_bytes(next(iter(contents(loose / "pictures").values())))
    assert found(top) == [("cat.tar/1.png", "cat.tar", None), ("dog/1.png", "dog", None)]


def packed(kind: str) -> bytes:
    rng = np.random.default_rng(0)
    files = {f"{label}/{n}.png": rng.bytes(300) for label in ("cat", "dog") for n in range(3)}
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


SOUND = {kind: packed(kind) for kind in ("tar", "zip")}


def edits(kind: str) -> st.SearchStrategy[bytes]:
    """The archive with bytes changed, cut out or put in."""
    sound = SOUND[kind]
    place = st.integers(0, len(sound) - 1)
    change = st.tuples(place, st.integers(0, 8), st.binary(max_size=8))

    def apply(changes: list[tuple[int, int, bytes]]) -> bytes:
        data = sound
        for at, length, new in changes:
            data = data[:at] + new + data[at + length :]
        return data

    return st.lists(change, min_size=1, max_size=4).map(apply)


@pytest.mark.parametrize("kind", ["tar", "zip"])
@settings(max_examples=250, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_archive_is_one_line_or_read(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    file = tmp_path / f"a.{kind}"
    file.unlink(missing_ok=True)
    file.write_bytes(data.draw(edits(kind)))
    archive = archives.Archive(str(file), 0, 0)

    def read() -> Iterator[int]:
        for name in archive.members:
            try:
                yield len(archive.read(name))
            except DataError as error:
                assert "\n" not in str(error)

    try:
        assert sum(read()) < 10_000
        assert kind == "zip" or len(archive.members) == 6, "none is lost without a word"
    except DataError as error:
        assert "make it anew" in str(error) and "\n" not in str(error)
