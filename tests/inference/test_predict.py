"""One command predicts whatever it is pointed at, with any artifact, and loses nothing to a bad image."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from codecs import BOM_UTF8
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks import predict
from tasks.core.artifacts.exporter import Exporter
from tasks.core.artifacts.formats import FORMATS, Format
from tasks.core.base.contract import Contract
from tasks.core.base.errors import DataError
from tasks.core.data.listing import list_images
from tasks.core.inference import saliency
from tasks.core.inference.predictor import load_predictor
from tasks.core.training import classifier
from tests.live import unprivileged
from tests.structure import ROOT
from tests.tiny import Tiny

LABELS = ["blue", "green", "red"]
HERE: tuple[Format, ...] = ("onnx", "tflite")  # quick to open; the others have the same way in


@pytest.fixture(scope="module")
def artifacts(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts")
    model, contract = classifier.load(tiny.models)
    writer = Exporter(model, contract, "elsewhere", np.zeros((1, 32, 32, 3), np.float32))
    for kind in HERE:
        writer.write(kind, folder / FORMATS[kind].file)
    return folder


def run(*words: object, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tasks.predict", *map(str, words)]
    done = subprocess.run(
        command, cwd=ROOT, check=False, capture_output=True, input=stdin, env=os.environ | env
    )
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_it_passes_over_what_it_can_not_read_and_says_so(artifacts: Path, tiny: Tiny, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_text("no image")
    done = run(artifacts / "model.onnx", tiny.images / "red", bad, "--json")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"predict: {bad} is not an image; leave it out or replace it"]
    answers = json.loads(done.stdout)
    assert [answer["class"] for answer in answers] == ["red"] * 20
    assert answers[0]["top"][0] == {name: answers[0][name] for name in ("class", "probability")}
    assert run(artifacts / "model.onnx", bad, "--json").returncode == 2, "where none could be read"


def test_it_prints_a_table(artifacts: Path, tiny: Tiny) -> None:
    done = run(artifacts / "model.tflite", tiny.images / "blue/000.png", "--top", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[1] == "blue"


def test_csv_has_a_row_for_each_image_and_columns_for_each_place(artifacts: Path, tiny: Tiny) -> None:
    done = run(artifacts / "model.onnx", tiny.images / "green", "--csv", "--top", "2")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert list(rows[0]) == ["path", "class", "probability", "class_2", "probability_2"]
    assert len(rows) == 20 and {row["class"] for row in rows} == {"green"}
    assert all(float(row["probability"]) >= float(row["probability_2"]) for row in rows)


def test_a_pattern_is_what_it_matches(tiny: Tiny, tmp_path: Path) -> None:
    found = predict.list_sources([f"{tiny.images}/*/00[12].png"])
    assert [Path(source.name).name for source in found] == ["001.png", "002.png"] * 3
    odd = tmp_path / "a[1].png"
    odd.touch()
    assert predict.list_sources([str(odd)]) == [predict.Source(str(odd))], "a file of that name goes first"
    nothing = f"{tmp_path}/*.jpg"
    assert predict.list_sources([nothing]) == [predict.Source(nothing)], "to be named, and passed over"
    (tmp_path / "empty").mkdir()
    for none in ("empty", "emp*"):
        with pytest.raises(DataError, match=f"{re.escape(none)} holds no images"):
            predict.list_sources([str(tmp_path / none)])


def test_what_is_passed_over_in_a_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A phone's images would else be missing from the predictions, and from what drift is measured on."""
    for name in ("1.png", "2.HEIC", "3.heic", "notes"):
        (tmp_path / name).touch()
    said = f"{tmp_path}: passed over 1 without a suffix, 2 .heic; no image is read that is called so\n"
    (found,) = predict.list_sources([str(tmp_path)])
    assert found.name == str(tmp_path / "1.png")
    assert capsys.readouterr().err == said
    assert list_images(tmp_path) == ["1.png"]
    assert capsys.readouterr().err == said
    (tmp_path / "1.png").unlink()
    with pytest.raises(DataError, match=r"holds no images, but 1 without a suffix, 2 \.heic; give"):
        list_images(tmp_path)


def test_a_pattern_takes_no_links_to_folders_and_nothing_that_is_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("photos/0.png", "elsewhere/1.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "photos/linked").symlink_to(tmp_path / "elsewhere")
    (found,) = predict.list_sources([f"{tmp_path}/photos/**"])
    assert found.name == f"{tmp_path}/photos/0.png"
    (tmp_path / "photos/dangling.png").symlink_to("nowhere")
    os.mkfifo(tmp_path / "photos/pipe.png")
    assert predict.list_sources([f"{tmp_path}/photos/*"]) == [found]
    assert capsys.readouterr().err.count("linked is a link to a folder, and passed over") == 1


def test_a_folder_that_a_pattern_matches_is_searched_once(tmp_path: Path) -> None:
    """As the shell's own expansion of it would be."""
    for name in ("a/b/2.png", "a/1.png", "0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for pattern in ("*", "**", "./**", "**/*"):
        found = [Path(source.name) for source in predict.list_sources([f"{tmp_path}/{pattern}"])]
        assert sorted(found) == [tmp_path / "0.png", tmp_path / "a/1.png", tmp_path / "a/b/2.png"], pattern
    assert len(predict.list_sources([f"{tmp_path}/[a]"])) == 2, "folders alone"


def test_stdin_brings_paths_or_one_image(artifacts: Path, tiny: Tiny) -> None:
    files = sorted((tiny.images / "red").glob("*.png"))[:3]
    listed = run(artifacts / "model.onnx", "-", "--csv", stdin="\n".join(map(str, files)).encode())
    assert [row["path"] for row in csv.DictReader(io.StringIO(listed.stdout))] == list(map(str, files))
    (row,) = json.loads(run(artifacts / "model.onnx", "-", "--json", stdin=files[0].read_bytes()).stdout)
    assert (row["path"], row["class"]) == ("stdin", "red")


def test_each_name_from_stdin_is_the_bytes_of_its_line(tiny: Tiny, tmp_path: Path) -> None:
    """A byte order mark, line ends of Windows, a name that is no UTF-8, and one with a line separator."""
    image = (tiny.images / "red/000.png").read_bytes()
    names = [os.fsencode(tmp_path) + name for name in (b"/a.png", b"/\xff.png", "/b\u2028c\x0c.png".encode())]
    for name in names:
        Path(os.fsdecode(name)).write_bytes(image)
    for end in (b"\n", b"\r\n"):
        incoming = BOM_UTF8 + end.join([*names, b""])
        found = predict.list_sources(["-"], io.BytesIO(incoming))
        assert [source.name for source in found] == [os.fsdecode(name) for name in names]
    contract = Contract(("a", "b"), 32, "pad")
    unread: list[str] = []
    assert len(list(predict.read_images(found, contract, unread))) == 3 and not unread


@pytest.mark.parametrize(
    ("incoming", "words"), [(b"", "stdin is empty"), (b"\xff\xfe\0", "neither an image nor")]
)
def test_stdin_without_either_is_a_slip(incoming: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        predict.list_sources(["-"], io.BytesIO(incoming))


def test_a_path_that_is_not_there_costs_only_itself(artifacts: Path, tiny: Tiny) -> None:
    files = [tiny.images / "red/000.png", tiny.images / "red/nowhere.png", tiny.images / "red/001.png"]
    done = run(artifacts / "model.onnx", *files, "--csv")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 3
    assert done.stderr.splitlines() == [f"predict: {files[1]} is not there; check the path"]


def test_a_path_that_nobody_may_look_into_costs_only_itself(
    artifacts: Path, tiny: Tiny, tmp_path: Path
) -> None:
    (closed := tmp_path / "closed").mkdir()
    shutil.copy(tiny.images / "red/000.png", closed)
    closed.chmod(0)
    names = [str(closed / "000.png"), str(tiny.images / "red/001.png")]
    words = [sys.executable, "-m", "tasks.predict", str(artifacts / FORMATS["tflite"].file), *names]
    done = subprocess.run([*unprivileged(), *words], cwd=ROOT, check=False, capture_output=True, text=True)
    closed.chmod(0o700)
    assert done.returncode == 1, done.stderr
    assert f"predict: {names[0]} can't be read (Permission denied)" in done.stderr
    assert done.stdout.startswith(names[1])


def test_a_name_that_is_no_text_is_no_trouble(artifacts: Path, tiny: Tiny, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/caf\xe9.png"
    shutil.copy(os.fsencode(tiny.images / "red/000.png"), odd)
    for form in ("--json", "--csv", "--top=1"):
        done = run(artifacts / "model.onnx", tmp_path, form)
        assert (done.returncode, done.stderr) == (0, ""), form
        assert "red" in done.stdout


def test_json_and_csv_are_utf_8_whatever_the_stream_is(artifacts: Path, tiny: Tiny, tmp_path: Path) -> None:
    image = str(tmp_path / "é.png")
    shutil.copy(tiny.images / "red/000.png", image)
    as_json, as_csv, table = (
        run(artifacts / "model.onnx", image, *form, PYTHONIOENCODING="ascii").stdout
        for form in (["--json"], ["--csv"], [])
    )
    (answer,), (row,) = json.loads(as_json), csv.DictReader(io.StringIO(as_csv))
    assert answer["path"] == row["path"] == image
    assert "\\xe9.png" in table, "which is for the eyes"


def test_explanations_of_namesakes_are_two(artifacts: Path, tiny: Tiny, tmp_path: Path) -> None:
    for name in ("a/ok.png", "a_ok.png", "b/" + "long" * 50 + ".png", "é" + "😀" * 60 + ".png"):
        (tmp_path / "all" / name).parent.mkdir(exist_ok=True, parents=True)
        shutil.copy(tiny.images / "red/000.png", tmp_path / "all" / name)
    run(artifacts / "model.onnx", tmp_path / "all", "--explain", tmp_path / "why")
    assert len(list((tmp_path / "why").glob("*.png"))) == 4


def test_an_explanation_is_drawn_beside_each_image(artifacts: Path, tiny: Tiny, tmp_path: Path) -> None:
    done = run(artifacts / "model.onnx", tiny.images / "red/000.png", "--explain", tmp_path / "why", "--json")
    (row,) = json.loads(done.stdout)
    drawn = Image.open(row["explanation"])
    assert drawn.size == (2 * saliency.SHOWN, saliency.SHOWN + saliency.CAPTION)
    left = np.asarray(drawn)[: saliency.SHOWN, : saliency.SHOWN].mean(axis=(0, 1))
    assert left.argmax() == 0, "the image itself, which is red"


def test_explanations_are_not_drawn_among_images(artifacts: Path, tiny: Tiny, tmp_path: Path) -> None:
    shutil.copytree(tiny.images, tmp_path / "new")
    image = tiny.images / "red/000.png"
    for asked, folder in ((tmp_path / "new", tmp_path / "new/red/why"), (image, Path("data/digits/why"))):
        done = run(artifacts / "model.onnx", asked, "--explain", folder)
        assert done.returncode == 2 and "lies among the images of" in done.stderr
        assert not folder.exists()


def test_occlusion_finds_the_part_that_speaks_for_a_class() -> None:
    """A classifier that goes by the red of the upper right corner, and one that goes by its lack."""
    image = np.zeros((64, 64, 3), np.float32)
    image[:16, 48:, 0] = 1

    def corner(images: Any) -> Any:
        red = images[:, :16, 48:, 0].mean(axis=(1, 2))
        return np.stack([red, 1 - red], axis=1)

    drops = saliency.occlusion(image, corner, 0)
    assert drops.argmax() in (6, 7, 14, 15) and drops.max() > 0.5
    assert np.abs(drops[4:, :4]).max() < 0.02
    assert saliency.occlusion(image, corner, 1).min() < -0.5, "what speaks against it is below 0"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("nowhere.onnx", "is not there"),
        ("tests", "is a folder and no SavedModel; give one of the artifacts in it"),
        ("README.md", "is of no format that is known"),
    ],
)
def test_what_is_no_artifact_is_a_slip(tiny: Tiny, model: str, words: str) -> None:
    done = run(model, tiny.images / "red/000.png")
    assert done.returncode == 2
    assert words in done.stderr and len(done.stderr.splitlines()) == 1


def test_an_empty_name_is_not_the_current_folder(artifacts: Path, tiny: Tiny) -> None:
    """As an unset variable of the shell gives it."""
    for words in (
        ["", tiny.images],
        [artifacts / "model.onnx", ""],
        [artifacts / "model.onnx", "a", "--explain", ""],
    ):
        done = run(*words)
        assert done.returncode == 2 and "it is empty; give a name" in done.stderr


def test_a_folder_that_is_a_link_is_passed_over_and_told(artifacts: Path, tiny: Tiny, tmp_path: Path) -> None:
    shutil.copy(tiny.images / "red/000.png", tmp_path)
    (tmp_path / "more").symlink_to(tiny.images)
    done = run(artifacts / "model.onnx", tmp_path, "--csv")
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 2
    assert (
        done.stderr
        == f"predict: {tmp_path}/more is a link to a folder, and passed over; name it, if it is meant\n"
    )


@pytest.mark.parametrize(
    ("closed", "code", "words"), [("<&-", 0, ""), ("2>&-", 0, ""), (">&-", 2, "predict: stdout is closed")]
)
def test_a_closed_stream_is_no_fault_of_ours(
    artifacts: Path, tiny: Tiny, closed: str, code: int, words: str
) -> None:
    command = f'"$0" -m tasks.predict "$1" "$2" {closed}'
    given = [sys.executable, str(artifacts / "model.onnx"), str(tiny.images / "red/000.png")]
    done = subprocess.run(
        ["sh", "-c", command, *given], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == code and words in done.stderr
    assert bool(done.stdout) == (code == 0)


@pytest.mark.parametrize("words", ["a.onnx x.png", "a.onnx", "a b --top 0", "a b --json --csv"])
def test_a_slip_is_exit_2(words: str) -> None:
    done = run(*words.split())
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_images_come_out_in_order_whatever_the_batch(artifacts: Path, tiny: Tiny, batch: int) -> None:
    unread: list[str] = []
    predictor = load_predictor(artifacts / "model.tflite")
    answers = list(predict.predict(predictor, predict.list_sources([str(tiny.images)]), batch, unread))
    assert [Path(answer.path).parent.name for answer in answers] == [x for x in LABELS for _ in range(20)]
    assert [answer.best(1)[0]["class"] for answer in answers] == [x for x in LABELS for _ in range(20)]
    assert unread == []


def test_a_renamed_artifact_is_still_told(artifacts: Path, tiny: Tiny, tmp_path: Path) -> None:
    shutil.copy(artifacts / "model.tflite", tmp_path / "thing.bin")
    assert run(tmp_path / "thing.bin", tiny.images / "blue/001.png").stdout.split()[1] == "blue"
