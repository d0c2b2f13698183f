"""The whole pipeline on images of every kind: both doors, the gates, and nothing lost by a mistake.

The tests run in order and each goes on from where the one before left the project.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.core.data.splits import SPLITS
from tasks.core.training.dataset import Dataset
from tests.project import Project

pytestmark = pytest.mark.slow

STAGES = 10
KEPT = (
    "models",
    "data/manifest.parquet",
    "data/dataset/dataset.json",
    "reports/metrics.json",
    "reports/gates.json",
)

COLOURS = {"blue": (30, 60, 200), "green ink": (40, 180, 60), "rosé": (220, 40, 70)}


def write_images(folder: Path) -> None:
    """Twenty-two images of each class, in every format and mode that cameras and tools make."""
    rng = np.random.default_rng(7)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(22):
            width, height = (int(side) for side in rng.integers(40, 120, 2))
            noise = rng.integers(-25, 25, (height, width, 3))
            pixels = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
            save(Image.fromarray(pixels), folder / name / f"{number:02d}", number % 11)


def save(image: Image.Image, stem: Path, kind: int) -> None:
    suffix, mode = [
        (".jpg", "RGB"),
        (".png", "P"),
        (".png", "RGBA"),
        (".jpg", "CMYK"),
        (".gif", "RGB"),
        (".bmp", "RGB"),
        (".webp", "RGB"),
        (".tiff", "RGB"),
        (".JPEG", "RGB"),
        (".png", "RGB"),
        (".jpg", "turned"),
    ][kind]
    file = stem.with_suffix(suffix)
    if mode == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(file, exif=exif)
    elif suffix == ".gif":
        image.save(file, save_all=True, append_images=[Image.new("RGB", image.size)])
    else:
        image.convert(mode).save(file)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    top = tmp_path_factory.mktemp("whole")
    write_images(top / "pictures")
    grey = np.full((50, 50), 40000, np.uint16)
    Image.fromarray(grey).save(top / "pictures" / "rosé" / "sixteen bit.png")
    return Project.small(top)


def test_images_of_every_kind_become_artifacts_of_every_kind(project: Project) -> None:
    done = project.run("dvc", "repro")
    assert done.returncode == 0, done.stdout
    facts = json.loads((project.folder / "export/export.json").read_text())["artifacts"]
    assert len(facts) == 7
    assert all(fact["agreement"] >= 0.99 and fact["latency_ms"] > 0 for fact in facts.values())
    assert project.exists("reports/index.html")


def test_a_second_run_does_nothing(project: Project) -> None:
    assert "up to date" in project.run("dvc", "repro").stdout


def test_the_other_door_finds_all_done(project: Project) -> None:
    done = project.run("flows.pipeline")
    assert done.returncode == 0, done.stdout
    assert "Running stage" not in done.stdout
    assert done.stdout.count("Finished in state Cached(") == STAGES
    assert project.run("dvc", "status", "--quiet").returncode == 0


def test_every_artifact_predicts_the_same(project: Project) -> None:
    images = str(project.folder.parent / "pictures" / "green ink")
    answers = []
    for name in ("saved_model", "model.h5", "model.tflite", "model_int8.tflite", "model.onnx"):
        done = project.run("tasks.predict", f"export/{name}", images, "--json", apart=True)
        assert (done.returncode, done.stderr) == (0, "")
        answers.append([(row["path"], row["class"]) for row in json.loads(done.stdout)])
    assert len(answers[0]) == 22
    assert all(answer == answers[0] for answer in answers)


def test_without_a_lock_nothing_is_trained_again(project: Project) -> None:
    (project.folder / "dvc.lock").unlink()
    done = project.run("flows.pipeline")
    assert done.returncode == 0, done.stdout
    assert "Running stage 'train'" not in done.stdout
    assert project.run("dvc", "status", "--quiet").returncode == 0


def splits(project: Project) -> dict[str, str]:
    """The split of each image, as its record says."""
    data = Dataset.load(project.folder / "data/dataset")
    return {
        example["path"].decode(): name
        for name in SPLITS
        for example in data.read(name, 16).unbatch().as_numpy_iterator()
    }


def test_a_folder_that_grows_moves_no_image(project: Project) -> None:
    before = splits(project)
    images = project.folder.parent / "pictures"
    lossless = sorted((images / "blue").glob("*.png"))
    for file in lossless:  # the same pixels in another file: a group's name must outlive such company
        with Image.open(file) as image:
            image.convert("RGB").save(file.with_name(f"{file.stem} again.tiff"))
    done = project.run("dvc", "repro", "build")
    assert done.returncode == 0, done.stdout
    after = splits(project)
    new = set(after) - set(before)
    assert len(new) == len(lossless) > 5
    assert {path: after[path] for path in before} == before
    assert all(after[path] == before[path.replace(" again.tiff", ".png")] for path in new)
    for path in new:
        (images / path).unlink()
    assert project.run("dvc", "repro", "build").returncode == 0
    assert splits(project) == before


def test_a_rejected_model_is_shown_and_not_exported(project: Project) -> None:
    rules = project.folder / "params.yaml"
    before = rules.read_text()
    rules.write_text(before.replace("test.accuracy, against: majority, min: 0.0", "test.log_loss, max: 0.0"))
    done = project.run("dvc", "repro")
    assert done.returncode != 0
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("verdict: ")]
    assert "test.log_loss" in line and "at most 0" in line
    lock = (project.folder / "dvc.lock").read_text()
    assert "  report:" in lock and "  gate:" in lock
    exported = {path.name for path in (project.folder / "export").iterdir()}
    assert exported == {"artifacts.json", "export.json"}
    assert "Rejected" in (project.folder / "reports/index.html").read_text()
    other_door = project.run("flows.pipeline")
    assert other_door.returncode == 1
    assert line in other_door.stdout.splitlines()
    rules.write_text(before)
    assert project.run("dvc", "repro").returncode == 0
    assert project.exists("export/model.onnx")


@pytest.mark.parametrize(
    ("slip", "words"),
    [
        ({"epochs": "ten"}, ("train.epochs", "'ten'", "whole number")),
        ({"backbone": "resnext"}, ("model.backbone", "'resnext'", "efficientnet_lite0")),
        ({"data__images": "nowhere"}, ("data.images", "nowhere", "folder")),
        ({"bootstrap": "10"}, ("evaluate.bootstrap", "10", "100")),
    ],
    ids=lambda value: next(iter(value)),
)
def test_a_slip_is_one_clear_line_and_costs_nothing(
    project: Project, slip: dict[str, str], words: tuple[str, ...]
) -> None:
    params = project.folder / "params.yaml"
    before = params.read_text()
    kept = (project.folder / "models/classifier.weights.h5").read_bytes()
    project.set(**slip)
    done = project.run("dvc", "repro")
    params.write_text(before)
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    assert any(all(word in line for word in words) for line in done.stdout.splitlines()), done.stdout
    for name in (*KEPT, "export/model.onnx"):
        assert project.exists(name), name
    assert (project.folder / "models/classifier.weights.h5").read_bytes() == kept
    assert project.run("dvc", "status", "--quiet").returncode == 0
