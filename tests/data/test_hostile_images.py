"""Whatever lies in the folder: nothing hangs, nothing blows up, and each bad file is one clear line."""

import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import textwrap
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks.core.base.errors import DataError
from tasks.core.data import discovery, image_io, labels_file
from tasks.core.data.splits import SPLITS
from tasks.core.training.dataset import Dataset
from tests.images import write_classes
from tests.live import unprivileged
from tests.stages import end
from tests.structure import ROOT

BOMB_SIDE = 30_000


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a person has: parameters and sound images, here with a cache of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))
    text = (ROOT / "params.yaml").read_text("utf-8").replace("data/digits", "pictures")
    (tmp_path / "params.yaml").write_text(text, "utf-8")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/labels.csv").write_text("path,label\n")
    (tmp_path / "data/schema.yaml").touch()
    write_classes(tmp_path / "pictures", count=14)
    return tmp_path


def run(stage: str, folder: Path, *before: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """Runs a stage from the shell, by another command if there is one; fails if it takes too long."""
    words = [*before, sys.executable, "-m", f"tasks.{stage}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        words, cwd=folder, env=environment, check=False, capture_output=True, text=True, timeout=seconds
    )


def tolerate(folder: Path, count: int) -> None:
    file = folder / "params.yaml"
    text, changed = re.subn(r"max_unreadable: 0", f"max_unreadable: {count}", file.read_text("utf-8"))
    assert changed == 1
    file.write_text(text, "utf-8")


def unreadable(folder: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((folder / "reports/validation.json").read_text("utf-8"))["unreadable"]
    return found


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(side: int, *chunks: tuple[bytes, bytes]) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(b"\0" * (3 * side + 1))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


def huge_tiff() -> bytes:
    tags = [(256, 4, BOMB_SIDE), (257, 4, BOMB_SIDE), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8)]
    tags += [(277, 3, 1), (278, 4, BOMB_SIDE), (279, 4, BOMB_SIDE**2)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4)


def huge_gif() -> bytes:
    small = saved(Image.new("P", (4, 4)), "GIF")
    return small[:6] + struct.pack("<HH", BOMB_SIDE, BOMB_SIDE) + small[10:]


def gif_with_a_frame_beyond_its_screen() -> bytes:
    small = saved(Image.new("P", (4, 4)), "GIF")
    place = small.index(b"\x2c\0\0\0\0\x04\0\x04\0")
    return small[: place + 5] + struct.pack("<HH", BOMB_SIDE, BOMB_SIDE) + small[place + 9 :]


def huge_webp() -> bytes:
    """Of the largest size that WebP knows, one colour, in its lossless form."""
    small = saved(Image.new("RGB", (4, 4), "red"), "WEBP", lossless=True)
    place = small.index(b"VP8L") + 9
    bits = int.from_bytes(small[place : place + 4], "little") & ~(2**28 - 1) | (16383 - 1) | (16383 - 1) << 14
    return small[:place] + bits.to_bytes(4, "little") + small[place + 4 :]


def huge_bmp() -> bytes:
    small = saved(Image.new("RGB", (4, 4)), "BMP")
    return small[:18] + struct.pack("<ii", BOMB_SIDE, BOMB_SIDE) + small[26:]


def huge_jpeg() -> bytes:
    small = saved(Image.new("RGB", (4, 4)), "JPEG")
    place = small.index(b"\xff\xc0") + 5
    return small[:place] + struct.pack(">HH", 65000, 65000) + small[place + 4 :]


ZEROS = zlib.compress(bytes(400_000_000), 9)  # 400 MB in 400 kB
BOMBS = {
    "a.png": png(BOMB_SIDE),
    "b.tif": huge_tiff(),
    "c.gif": huge_gif(),
    "d.gif": gif_with_a_frame_beyond_its_screen(),
    "e.webp": huge_webp(),
    "f.bmp": huge_bmp(),
    "g.jpg": huge_jpeg(),
    "h.ppm": b"P6 30000 30000 255\n" + bytes(100),
    "text.png": png(8, (b"zTXt", b"Comment\0\0" + ZEROS)),
    "itxt.png": png(8, (b"iTXt", b"Comment\0\1\0\0\0" + ZEROS)),
    "icc.png": png(8, (b"iCCP", b"profile\0\0" + ZEROS)),
}


def test_bombs_are_refused_and_never_go_off(tmp_path: Path) -> None:
    """Decoding one takes 700 MB or more, 400 for the texts; here the peak grows by next to nothing."""
    for name, data in BOMBS.items():
        (tmp_path / name).write_bytes(data)
    script = """
        import json, pathlib, re, sys
        from tasks.core.base import errors
        from tasks.core.data import image_io

        def peak():
            status = pathlib.Path("/proc/self/status").read_text()
            return int(status.split("VmHWM:")[1].split()[0]) // 1024  # unlike getrusage's, its own alone

        start = peak()
        for file in sorted(pathlib.Path(sys.argv[1]).iterdir()):
            try:
                said = image_io.decode(image_io.open_image(file.read_bytes())).size
            except errors.DataError as error:
                said = str(error)
            print(json.dumps([file.name, said, peak() - start]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(BOMBS)
    for name, said, grown in rows:
        assert "too large" in said, name
        assert grown < 50, f"{name} took {grown} MB"


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP", "PPM"])
def test_a_broken_file_is_never_a_fault_of_ours(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Bytes changed here and there: read all the same, or refused, and not a word more."""
    rng = random.Random(0)
    sound = saved(Image.effect_noise((24, 18), 90).convert("RGB"), kind)
    if kind == "TIFF":
        sound = saved(Image.effect_noise((24, 18), 90), kind, compression="tiff_adobe_deflate")
    refused = 0
    for _ in range(1000):
        data = bytearray(sound[: rng.choice([len(sound), rng.randrange(1, len(sound))])])
        for _ in range(rng.choice([0, 1, 4, 16])):
            data[rng.randrange(min(len(data), 120))] = rng.choice([0, 127, 128, 255])
        try:
            image_io.shrink(image_io.open_image(bytes(data)), 8)
        except DataError as error:
            refused += 1
            assert "\n" not in str(error)
    assert 100 < refused < 1000
    assert capfd.readouterr() == ("", "")


ODD_NAMES = [
    "two words.png",
    'it\'s "quoted".png',
    "new\nline.png",
    "\x1b[31mred\t.png",
    "猫 🐈.png",
    "-rf.png",
    "$(rm -rf x) `id` %s {0}.png",
    "back\\slash.png",
    "x" * 240 + ".PNG",
]
NOT_UTF8 = os.fsdecode(b"caf\xe9.png")


def noise(file: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (32, 40, 3), dtype=np.uint8)).save(file, "PNG")


@pytest.fixture
def hostile(workplace: Path) -> Path:
    """Among the sound images: bad ones, pipes, links, sound ones of odd names, and the system's files."""
    blue = workplace / "pictures/blue"
    (blue / "zero.png").touch()
    (blue / "truncated.png").write_bytes((blue / "000.png").read_bytes()[:900])
    (blue / "text.jpg").write_text("not an image at all")
    (blue / "bomb.png").write_bytes(png(BOMB_SIDE))
    (blue / "dangling.png").symlink_to(workplace / "nowhere.png")
    (blue / "loop.png").symlink_to("loop.png")
    os.mkfifo(blue / "pipe.jpg")
    noise(blue / NOT_UTF8, 0)
    for seed, name in enumerate(ODD_NAMES, 1):
        noise(blue / name, seed)
    noise(blue / "really a png.jpg", 100)
    noise(workplace / "outside.png", 101)
    (blue / "link.png").symlink_to(workplace / "outside.png")
    (blue / "folder.jpg").mkdir()
    noise(blue / "folder.jpg/inside.png", 102)
    for name in ("pictures/__MACOSX/blue", "pictures/.git"):
        (workplace / name).mkdir(parents=True)
        noise(workplace / name / "hidden.png", 103)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._000.png", ".hidden.png"):
        (blue / name).write_bytes(b"whatever")
        (workplace / "pictures" / name).write_bytes(b"whatever")
    return workplace


BAD = {
    "blue/zero.png": "is empty",
    "blue/truncated.png": "is truncated",
    "blue/text.jpg": "is not an image",
    "blue/bomb.png": "is too large",
    "blue/dangling.png": "is a link to nothing",
    "blue/loop.png": "is a link to nothing",
    "blue/pipe.jpg": "is no regular file",
    "blue/caf\\udce9.png": "has a name that is not UTF-8",
}
SOUND = ["really a png.jpg", "link.png", "folder.jpg/inside.png", *ODD_NAMES]


def test_each_bad_file_is_named_and_every_other_gets_into_the_records(
    hostile: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    done = run("validate", hostile)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith("validate: unreadable images: blue/bomb.png is too large") and "3 more" in line
    assert line.isprintable()
    assert all(row.isprintable() for row in done.stdout.splitlines())
    found = unreadable(hostile)
    assert set(found) == set(BAD)
    assert all(found[path].startswith(words) for path, words in BAD.items()), found

    tolerate(hostile, 8)
    assert end("validate") == (0, "")
    frame = pd.read_parquet(hostile / "data/manifest.parquet").set_index("path")
    assert set(frame.index) == {*BAD, *(f"blue/{name}" for name in SOUND), *sound()}
    assert frame.loc["blue/really a png.jpg", "format"] == "PNG"

    assert end("build") == (0, "")
    assert capfd.readouterr().err == ""
    data = Dataset.load(hostile / "data/dataset")
    rows = [row for name in SPLITS for row in data.read(name, 16).unbatch().as_numpy_iterator()]
    assert {row["path"].decode() for row in rows} == set(frame.index) - set(BAD)
    for row in rows:
        expected = image_io.read(hostile / "pictures" / row["path"].decode(), data.image_size, "stretch")
        assert np.array_equal(row["image"], expected)


def sound() -> set[str]:
    return {f"{label}/{number:03d}.png" for label in ("blue", "green", "red") for number in range(14)}


def test_what_may_not_be_read_is_named(workplace: Path) -> None:
    (workplace / "pictures/red/003.png").chmod(0)
    done = run("validate", workplace, *unprivileged())
    assert done.returncode == 1
    assert unreadable(workplace) == {"red/003.png": "can't be read (Permission denied)"}
    assert "red/003.png" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["pictures/red", "data/labels.csv"])
def test_what_may_not_be_listed_is_one_line(workplace: Path, name: str) -> None:
    (workplace / name).chmod(0)
    done = run("validate", workplace, *unprivileged())
    (workplace / name).chmod(0o700)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert name in line and "Permission denied" in line


@pytest.mark.parametrize("mode", [0, 0o444])
def test_a_class_folder_that_may_not_be_entered_is_named_and_no_row_of_the_labels(
    workplace: Path, mode: int
) -> None:
    (workplace / "data/labels.csv").write_text("path,label\nred/000.png,red\nblue/000.png,blue\n")
    (workplace / "pictures/red").chmod(mode)
    done = {stage: run(stage, workplace, *unprivileged()) for stage in ("check", "validate")}
    (workplace / "pictures/red").chmod(0o700)
    for each in done.values():
        assert each.returncode == 2
        (line,) = each.stderr.splitlines()
        assert "pictures/red" in line and "permissions" in line and "labels" not in line


def test_a_link_to_a_folder_is_refused(workplace: Path) -> None:
    (workplace / "pictures/red").rename(workplace / "red")
    (workplace / "pictures/red").symlink_to(workplace / "red")
    code, line = end("validate")
    assert code == 2
    assert "pictures/red is a link to a folder" in line and "move the images here" in line


def test_folders_that_link_in_a_circle_are_refused(workplace: Path) -> None:
    (workplace / "pictures/red/deeper").symlink_to(workplace / "pictures")
    with pytest.raises(DataError, match="red/deeper is a link to a folder"):
        discovery.discover(workplace / "pictures", workplace / "data/labels.csv")


def test_classes_that_differ_in_case_alone_are_an_error(workplace: Path) -> None:
    shutil.copytree(workplace / "pictures/red", workplace / "pictures/Red")
    for seed, file in enumerate((workplace / "pictures/Red").iterdir()):
        noise(file, seed)
    code, line = end("validate")
    assert code == 1
    assert "classes that differ in upper and lower case alone" in line and "Red/000.png" in line


def test_a_class_whose_name_is_not_utf8_is_named(workplace: Path) -> None:
    (workplace / "pictures/green").rename(workplace / "pictures" / os.fsdecode(b"gr\xfcn"))
    code, line = end("validate")
    assert code == 1
    assert "gr\\udcfcn" in line
    assert all("not UTF-8" in said for said in unreadable(workplace).values())


@pytest.mark.parametrize("name", ["labels.csv", "labels.csv.gz", "labels.csv.zip"])
def test_a_labels_file_that_begins_as_json_or_a_workbook_does_is_read(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    pd.DataFrame({"[id]": [1], "path": ["a.png"], "label": ["red"]}).to_csv(file, index=False)
    assert labels_file.own_columns(file)["[id]"].tolist() == ["1"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "can't be read"),
        (b"\n\n", "can't be read"),
        (b"path;label\nred/000.png;red\n", "has ';' between its columns; save it with commas"),
        (b"path\tlabel\nred/000.png\tred\n", "has '\\t' between its columns; save it with commas"),
        (b"\xef\xbb\xbfsep=,\npath,label\nred/000.png,red\n", "begins with `sep=`, of Excel's"),
        (b'[{"path": "red/000.png", "label": "red"}]', "is JSON; save it as a CSV"),
        (b"PK\3\4 of a workbook", "is a workbook; save it as a CSV"),
        ("path,label\nred/000.png,größe\n".encode("latin-1"), "UTF-8"),
        ("path,label\nred/000.png,red\n".encode("utf-16"), "UTF-8"),
        (b"path,label\nred/000.png,red,1,2\nred/001.png,red,1,2,3\n", "can't be read"),
        (b"Path,Label\nred/000.png,red\n", "no column 'path' but 'Path', 'Label'"),
        (b"path,label \nred/000.png,red\n", "no column 'label' but 'path', 'label '"),
        (b"path,label,Group\nred/000.png,red,a\n", "'Group', which is nearly 'group'"),
        (b"path,label,splits\nred/000.png,red,test\n", "'splits', which is nearly 'split'"),
        (b"path,label\nred/000.png,red\nred/000.png,red\n", "twice; keep one"),
        (b"path,label\nred/000.png,red\nred/000.png,blue\n", "twice with the labels 'red', 'blue'"),
        (b"path,label\nred/000.png,red\nred/gone.png,red\n", "'red/gone.png', which is not in"),
        (b"path,label\nred,red\nblue/000.png,blue\n", "'red', which is not in"),
        (b"path,label\n../outside.png,red\nred/000.png,red\n", "'../outside.png'; paths start at"),
        (b"path,label\nred/../../outside.png,red\n", "'red/../../outside.png'; paths start at"),
        (b"path,label\n%OUTSIDE%,red\n", "outside.png'; paths start at"),
        (b"path,label\n./red/000.png,red\nred/000.png,red\n", "'./red/000.png'; paths start at"),
        (b"path,label\nred//000.png,red\nred/000.png,red\n", "'red//000.png'; paths start at"),
        (b"path,label\nlinked/000.png,red\nred/000.png,blue\n", "linked is a link to a folder"),
        (b"path,label\nred/in/000.png,red\nred/000.png,blue\n", "red/in is a link to a folder"),
        (b"path,label,split\nred/000.png,red,tset\n", "the split 'tset'; it must be train"),
        (b"path,label\nred/000.png,red\nred/001.png,red\n", "one class only, 'red'"),
    ],
)
def test_a_labels_file_with_a_slip_is_one_clear_line(workplace: Path, content: bytes, words: str) -> None:
    noise(workplace / "outside.png", 1)
    (workplace / "pictures/linked").symlink_to(workplace / "pictures/red")
    (workplace / "pictures/red/in").symlink_to(workplace / "pictures/blue")
    labels = workplace / "data/labels.csv"
    labels.write_bytes(content.replace(b"%OUTSIDE%", os.fsencode(workplace / "outside.png")))
    with pytest.raises(DataError, match=re.escape(words)) as caught:
        discovery.discover(workplace / "pictures", labels)
    assert "\n" not in str(caught.value)


def test_the_line_of_a_labels_file_reaches_the_shell(workplace: Path) -> None:
    (workplace / "data/labels.csv").write_text("path,label\n../outside.png,red\n")
    done = run("validate", workplace)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("validate: data.labels: data/labels.csv lists '../outside.png'")


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfpath,label\r\nred/000.png,warm\r\nblue/000.png,cold\r\n",
        b'path,label\n"red/000.png",warm\n\nblue/000.png,"cold"',
        b"label,note,path\nwarm,mine,red/000.png\ncold,,blue/000.png\n",
        b"path,label,group\nred/000.png,warm,NA\nblue/000.png,cold,NA\n",
        b'path, label, split\nred/000.png, warm,\nblue/000.png, "cold", \n',
    ],
    ids=["windows", "quoted", "another order and a column of the user's own", "the text NA", "blanks"],
)
def test_a_labels_file_of_any_make_is_read(workplace: Path, content: bytes) -> None:
    (workplace / "data/labels.csv").write_bytes(content)
    entries, _ = discovery.discover(workplace / "pictures", workplace / "data/labels.csv")
    assert [(entry.path, entry.label) for entry in entries] == [
        ("blue/000.png", "cold"),
        ("red/000.png", "warm"),
    ]
    assert {entry.group for entry in entries} == ({"NA"} if b"NA" in content else {None})
