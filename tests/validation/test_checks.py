"""Every fault of a data set is found, and nothing else is."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_image

from tasks import validate
from tasks.check import Params
from tasks.core.base import params
from tasks.core.base.errors import Rejected
from tasks.core.base.files import read_json
from tasks.core.base.paths import DATA_DOCS, MANIFEST, VALIDATION
from tasks.core.data import manifest, splits
from tasks.core.data.parquet import read_parquet
from tasks.core.validation import schema
from tasks.core.validation.checks import NOTHING
from tasks.core.validation.image_quality import measures
from tasks.core.validation.schema import Schema
from tests.images import ALONE
from tests.structure import ROOT

PARAMS = params.read(ROOT / "params.yaml", Params)
Paths = set[str]
SOUND = 14  # images of each sound class


def crops() -> Iterator[Image.Image]:
    """Endless crops of two photographs, about 200 pixels a side, without a fault and unlike each other."""
    rng = np.random.default_rng(5)
    photographs = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    hashes: list[int] = []
    while True:
        photograph = photographs[rng.integers(2)]
        width, height = rng.integers(180, 221, 2)
        left, top = rng.integers(0, photograph.width - width), rng.integers(0, photograph.height - height)
        crop = photograph.crop((left, top, left + width, top + height))
        seen: Any = measures(crop)
        code = int(seen["phash"], 16)
        unlike = all((code ^ other).bit_count() > 8 for other in hashes)
        if unlike and seen["blur_score"] > 0.4 and seen["entropy"] > 6 and seen["brightness_p99"] > 0.6:
            hashes.append(code)
            yield crop


@pytest.fixture
def source() -> Iterator[Image.Image]:
    return crops()


@pytest.fixture
def workplace(tmp_path: Path, source: Iterator[Image.Image], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with two classes of photographs without a fault."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/labels.csv").write_text("path,label\n")
    for label in ("cat", "dog"):
        add(tmp_path, source, label, SOUND)
    return tmp_path


def add(folder: Path, source: Iterator[Image.Image], label: str, count: int) -> None:
    (folder / "pictures" / label).mkdir(parents=True)
    for number in range(count):
        next(source).save(folder / f"pictures/{label}/{number:02d}.jpg", quality=92)


def run(expected: Schema = NOTHING, max_unreadable: int = 0, **severities: Any) -> str:
    """Validates what lies in the current folder; returns what the error says, nothing if all is well.

    The manifest that lies there is taken for the one that was accepted last.
    """
    p = PARAMS.validate
    p = replace(p, severity=replace(p.severity, **severities), max_unreadable=max_unreadable)
    try:
        accepted = MANIFEST if MANIFEST.exists() else None
        validate.validate(Path("pictures"), Path("data/labels.csv"), expected, accepted, p, ALONE)
    except Rejected as error:
        return str(error)
    return ""


def found() -> dict[str, Any]:
    findings: dict[str, Any] = read_json(VALIDATION)["findings"]
    return findings


@pytest.mark.usefixtures("workplace")
def test_nothing_is_found_where_there_is_nothing() -> None:
    assert run() == ""
    assert found() == {}


def test_an_image_that_is_left_out_is_named_and_one_too_many_stops_the_run(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it says then leads to all findings, and tells that the page is of an earlier run."""
    (workplace / "pictures/cat/broken.jpg").write_bytes(b"no image")
    assert "reports/validation/index.html shows all" in run()
    assert "earlier run" not in run()
    (workplace / "reports/index.html").write_text("Passed")
    assert "reports/index.html is still that of an earlier run" in run()
    capsys.readouterr()
    assert run(max_unreadable=1) == ""
    assert "validate: unreadable and left out: cat/broken.jpg" in capsys.readouterr().out.splitlines()


@pytest.fixture
def planted(workplace: Path, source: Iterator[Image.Image]) -> dict[str, Paths]:
    """Plants one example of each finding about single images; says where."""
    images = workplace / "pictures"
    shutil.copy(images / "cat/01.jpg", images / "cat/copy.jpg")
    shutil.copy(images / "cat/02.jpg", images / "dog/mislabelled.jpg")
    Image.open(images / "cat/00.jpg").resize((190, 190)).save(images / "cat/again.png")
    next(source).point(lambda value: value // 5).save(images / "cat/night.png")
    next(source).point(lambda value: 244 + value // 24).save(images / "dog/snow.png")
    ramp = np.add.outer(np.linspace(0, 115, 200), np.linspace(0, 100, 200))[..., None] + [0, 20, 40]
    Image.fromarray(ramp.astype(np.uint8)).save(images / "dog/fog.png")
    flag = Image.new("RGB", (200, 200), (200, 40, 40))
    flag.paste((40, 160, 60), (0, 0, 200, 90))
    flag.save(images / "dog/flag.png")
    flag.save(images / "dog/flag.bmp")
    wide = Image.fromarray(load_sample_image("china.jpg")).crop((100, 150, 500, 250))
    wide.save(images / "cat/wide.png")
    Image.fromarray(load_sample_image("flower.jpg")).resize((60, 58)).save(images / "dog/tiny.png")
    (images / "dog/cut.jpg").write_bytes((images / "dog/01.jpg").read_bytes()[:2000])
    return {
        "unreadable": {"dog/cut.jpg"},
        "duplicate": {"cat/01.jpg", "cat/copy.jpg", "cat/02.jpg", "dog/mislabelled.jpg"},
        "label_conflict": {"cat/02.jpg", "dog/mislabelled.jpg"},
        "near_duplicate": {"cat/00.jpg", "cat/again.png", "dog/flag.png", "dog/flag.bmp"},
        "dark": {"cat/night.png"},
        "light": {"dog/snow.png"},
        "blurry": {"dog/fog.png"},
        "low_information": {"dog/flag.png", "dog/flag.bmp"},
        "odd_aspect_ratio": {"cat/wide.png"},
        "odd_size": {"dog/tiny.png"},
    }


def test_each_planted_fault_is_found_and_nothing_else(
    planted: dict[str, Paths], capsys: pytest.CaptureFixture[str]
) -> None:
    line = run()
    findings = found()
    assert {kind: set(finding["paths"]) for kind, finding in findings.items()} == planted
    near = [["cat/00.jpg", "cat/again.png"], ["dog/flag.bmp", "dog/flag.png"]]
    assert findings["near_duplicate"]["sets"] == near
    copies = [["cat/01.jpg", "cat/copy.jpg"], ["cat/02.jpg", "dog/mislabelled.jpg"]]
    assert findings["duplicate"]["sets"] == copies
    assert "dog/cut.jpg" in line and "mislabelled" in line and "\n" not in line, "errors stop the run"
    assert "night" not in line and "night.png" in capsys.readouterr().out, "warnings are shown, and don't"
    docs = "".join(page.read_text("utf-8") for page in DATA_DOCS.rglob("*.html"))
    assert all(path in docs for paths in planted.values() for path in paths)


@pytest.mark.usefixtures("planted")
def test_no_planted_pair_straddles_a_split() -> None:
    run()
    manifest = read_parquet(MANIFEST).query("error.isna()")
    for seed in range(20):
        split = splits.split(manifest, splits.Shares(0.2, 0.3, seed)).set_axis(manifest["path"])
        for kind in ("duplicate", "near_duplicate"):
            for members in found()[kind]["sets"]:
                assert split[members].nunique() == 1
        assert split.nunique() == 3


def test_classes_that_are_too_few_unbalanced_or_spelt_alike_are_found(
    workplace: Path, source: Iterator[Image.Image]
) -> None:
    add(workplace, source, "Dog", 2)
    add(workplace, source, "bird", 30)
    line = run()
    assert "too few images: Dog (2)" in line and "upper and lower case" in line
    assert set(found()) == {"too_few", "imbalance", "spelling"}


def test_a_hundred_classes_cost_no_more_checks_than_two(
    workplace: Path, source: Iterator[Image.Image]
) -> None:
    run()
    few = read_json(VALIDATION)["expectations"]
    image = next(source)
    for number in range(98):
        (workplace / f"pictures/{number}").mkdir()
        image.save(workplace / f"pictures/{number}/a.jpg")
    assert "0 (1), 1 (1), 10 (1), 11 (1), 12 (1) and 93 more" in run()
    assert len(read_json(VALIDATION)["expectations"]) == len(few)


def test_the_same_drawing_in_grey_and_in_colour_is_tied(workplace: Path) -> None:
    drawing = Image.new("L", (200, 200), 255)
    ImageDraw.Draw(drawing).line([(10, 20), (150, 60), (90, 190)], width=4)
    drawing.save(workplace / "pictures/cat/grey.png")
    drawing.convert("RGB").save(workplace / "pictures/cat/colour.png")
    run()
    assert found()["near_duplicate"]["sets"] == [["cat/colour.png", "cat/grey.png"]]


def test_a_class_that_its_format_gives_away_is_found(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (workplace / "pictures/dog").iterdir():
        Image.open(file).save(file.with_suffix(".png"))
        file.unlink()
    assert run() == ""
    assert "classes told apart by format alone" in capsys.readouterr().out
    assert set(found()) == {"shortcut"}


def groups() -> dict[str, str]:
    """What the manifest says, of images that are in a group."""
    return dict(read_parquet(MANIFEST).set_index("path")["group"].dropna())


def label(folder: Path, **columns: dict[str, str]) -> None:
    """Writes the labels file with further columns, by path."""
    paths = sorted(path.relative_to(folder / "pictures").as_posix() for path in folder.rglob("pictures/*/*"))
    frame = pd.DataFrame({"path": paths, "label": [path.split("/")[0] for path in paths]})
    for name, values in columns.items():
        frame[name] = frame["path"].map(values)
    frame.to_csv(folder / "data/labels.csv", index=False)


def test_near_duplicates_that_the_labels_file_puts_in_two_splits_are_an_error(workplace: Path) -> None:
    with Image.open(workplace / "pictures/cat/03.jpg") as image:
        image.save(workplace / "pictures/cat/recompressed.jpg", quality=40)
    label(workplace, split={"cat/03.jpg": "train", "cat/recompressed.jpg": "test"})
    assert "cat/recompressed.jpg" in run()
    assert set(found()) == {"split_conflict", "near_duplicate"}


def test_groups_that_share_near_duplicates_are_joined_and_told_of(workplace: Path) -> None:
    with Image.open(workplace / "pictures/cat/03.jpg") as image:
        image.save(workplace / "pictures/cat/recompressed.jpg", quality=40)
    trips = {"cat/03.jpg": "a", "cat/04.jpg": "a", "cat/recompressed.jpg": "b", "dog/04.jpg": "b"}
    label(workplace, group=trips)
    assert run() == ""
    assert found()["group_conflict"]["severity"] == "warning"
    assert groups() == dict.fromkeys(trips, "a")
    (workplace / "pictures/cat/recompressed.jpg").unlink()
    del trips["cat/recompressed.jpg"]
    label(workplace, group=trips)
    assert run(group_conflict="error") == ""
    assert groups() == dict.fromkeys(trips, "a"), "dog/04.jpg keeps its split when what tied it is gone"


def test_two_groups_of_near_duplicates_stop_the_run_where_that_is_asked_for(workplace: Path) -> None:
    with Image.open(workplace / "pictures/cat/03.jpg") as image:
        image.save(workplace / "pictures/cat/recompressed.jpg", quality=40)
    label(workplace, group={"cat/03.jpg": "a", "cat/recompressed.jpg": "b"})
    assert "cat/recompressed.jpg" in run(group_conflict="error")


def test_a_group_that_the_user_takes_back_is_forgotten(workplace: Path) -> None:
    label(workplace, group=dict.fromkeys(("cat/00.jpg", "dog/00.jpg"), "trip"))
    run()
    assert list(read_parquet(MANIFEST)["group"].dropna()) == ["trip", "trip"]
    label(workplace)
    run()
    assert read_parquet(MANIFEST)["group"].isna().all()


def test_a_group_that_a_near_duplicate_lent_stays_when_that_one_goes(workplace: Path) -> None:
    with Image.open(workplace / "pictures/cat/03.jpg") as image:
        image.save(workplace / "pictures/cat/recompressed.jpg", quality=40)
    trip = "ab" * 32  # such as people make of a patient's number
    label(workplace, group={"cat/03.jpg": trip})
    run()
    (workplace / "pictures/cat/03.jpg").unlink()
    label(workplace)
    run()
    groups = read_parquet(MANIFEST).set_index("path")["group"]
    assert groups["cat/recompressed.jpg"] == trip


def test_an_image_that_ties_groups_together_is_reported(workplace: Path) -> None:
    run()
    before = read_parquet(MANIFEST).set_index("path")["sha256"]
    a, b = (
        Image.open(workplace / f"pictures/{name}.jpg").resize((200, 200)) for name in ("cat/05", "dog/05")
    )
    for step in range(401):  # from one to the other, each nearly the same as the one before
        Image.blend(a, b, step / 400).save(workplace / f"pictures/cat/step{step}.png", compress_level=0)
    assert run(imbalance="ignore") == ""
    ties = read_json(VALIDATION)["ties"]
    assert [set(tie["tied"]) for tie in ties] == [{before["cat/05.jpg"], before["dog/05.jpg"]}]
    assert "groups_merged" in found()


def test_what_most_images_are_is_no_finding(workplace: Path) -> None:
    for file in (workplace / "pictures").glob("*/*.jpg"):
        Image.open(file).point(lambda value: value // 5).save(file, quality=92)
    assert run() == ""
    assert "dark" not in found()
    assert read_json(VALIDATION)["prevalent"] == {"dark": 1.0}
    assert "dark images" in run(dark="error"), "what is to stop the run does, however many there are"
    assert run(dark="ignore") == ""
    assert read_json(VALIDATION)["prevalent"] == {}


def test_images_none_of_which_can_be_read_are_named(workplace: Path) -> None:
    run()
    for file in (workplace / "pictures").glob("*/*.jpg"):
        file.write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "cat/00.jpg" in run(), "with a manifest accepted before"
    assert len(read_json(VALIDATION)["unreadable"]) == 2 * SOUND
    MANIFEST.unlink()
    assert "cat/00.jpg" in run()


def test_files_that_do_not_look_like_images_are_told_of(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.heic", "b.HEIC", "notes.txt", "README"):
        (workplace / "pictures/cat" / name).write_text("?")
    assert run() == ""
    assert "1 without a suffix, 2 .heic, 1 .txt" in capsys.readouterr().out
    assert read_json(VALIDATION)["passed_over"] == {"": 1, ".heic": 2, ".txt": 1}


@pytest.mark.usefixtures("planted")
def test_what_is_ignored_is_not_looked_for() -> None:
    run(dark="ignore")
    assert "dark" not in found()
    assert "light" in found()


@pytest.mark.usefixtures("planted")
def test_a_second_run_says_the_same() -> None:
    run()
    first = VALIDATION.read_bytes(), MANIFEST.read_bytes()
    run()
    assert first == (VALIDATION.read_bytes(), MANIFEST.read_bytes())


def suggestion() -> Schema:
    """What is suggested from the manifest that lies here, as a person finds it in the file."""
    file = Path("data/schema.yaml")
    file.write_text(schema.text(schema.suggest(manifest.readable(read_parquet(MANIFEST)))), "utf-8")
    return schema.load(file)


def test_any_class_can_be_read_back_from_a_schema(tmp_path: Path) -> None:
    names = (
        "? unsure",
        "? x",
        "- a",
        "no",
        "1",
        "1.0",
        "~",
        "a: b",
        "#",
        "'",
        '"',
        "{a}",
        "[a",
        "&a",
        "*",
        "!a",
        "|",
        "é",
    )
    (tmp_path / "schema.yaml").write_text(schema.text(Schema(classes=names)), "utf-8")
    assert schema.load(tmp_path / "schema.yaml").classes == names


@pytest.mark.usefixtures("workplace")
def test_images_pass_the_schema_that_was_suggested_from_them() -> None:
    run()
    assert suggestion().classes == ("cat", "dog")
    assert run(suggestion()) == ""
    assert found() == {}


@pytest.mark.usefixtures("workplace")
def test_a_manifest_of_before_a_measure_was_known_does_not_stop_the_next_run() -> None:
    run()
    expected = replace(suggestion(), drift=0.5)
    read_parquet(MANIFEST).drop(columns="sharpness").to_parquet(MANIFEST)
    assert run(expected) == ""


def test_what_the_schema_does_not_know_is_found(workplace: Path, source: Iterator[Image.Image]) -> None:
    run()
    expected = suggestion()
    add(workplace, source, "bird", SOUND)
    images = workplace / "pictures"
    (images / "dog").rename(workplace / "dogs")
    next(source).save(images / "cat/other.png")
    next(source).resize((700, 500)).save(images / "cat/large.jpg")
    for file in (images / "cat").glob("0*.jpg"):
        Image.open(file).point(lambda value: value // 2).save(file, quality=92)
    line = run(expected, odd_size="ignore")
    birds = {f"bird/{number:02d}.jpg" for number in range(SOUND)}
    findings = {kind: set(finding["paths"]) for kind, finding in found().items()}
    assert findings == {
        "new_class": birds,
        "missing_class": set(),
        "unexpected_format": {"cat/other.png"},
        "size_range": {"cat/large.jpg"},
        "drift": set(),
    }
    assert "bird/00.jpg" in line and "classes without an image: dog" in line and "data.schema" in line
    assert "drift" not in line, "a warning"
