"""Every mistake a user can make is one clear line, the right exit code, and loses nothing."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tasks.core.base.mending import RECORD
from tests.project import FIRST_COMMIT
from tests.stages import end
from tests.structure import ROOT

OLD = "what an earlier run left"


def fill(folder: Path, counts: dict[str, int]) -> None:
    """Writes grey images of 16 pixels, each of its own shade."""
    for label, count in counts.items():
        (folder / label).mkdir(parents=True)
        for number in range(count):
            Image.new("L", (16, 16), 5 + 7 * number + ord(label[0]) % 7).save(
                folder / label / f"{number}.png"
            )


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with params.yaml, two good classes of images, and an earlier run's summary."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "params.yaml").read_text("utf-8").replace("data/digits", "pictures")
    (tmp_path / "params.yaml").write_text(text, "utf-8")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/labels.csv").write_text("path,label\n")
    (tmp_path / "data/schema.yaml").touch()
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/validation.json").write_text(OLD)
    fill(tmp_path / "pictures", {"cat": 12, "dog": 12})
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    return tmp_path


def run(stage: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", f"tasks.{stage}"]
    return subprocess.run(words, cwd=folder, env=environment, check=False, capture_output=True, text=True)


def only_line(done: subprocess.CompletedProcess[str]) -> str:
    (line,) = done.stderr.strip().splitlines()
    return line


def change(folder: Path, pattern: str, value: str) -> None:
    file = folder / "params.yaml"
    text, count = re.subn(pattern, value, file.read_text("utf-8"), count=1)
    assert count == 1
    file.write_text(text, "utf-8")


def remove_images(folder: Path) -> None:
    (folder / "pictures").rename(folder / "elsewhere")


def empty_images(folder: Path) -> None:
    remove_images(folder)
    (folder / "pictures").mkdir()


def in_dvc_alone(folder: Path) -> None:
    remove_images(folder)
    (folder / "pictures.dvc").touch()


def labels_in_dvc_alone(folder: Path) -> None:
    (folder / "data/labels.csv").rename(folder / "data/elsewhere.csv")
    (folder / "data/labels.csv.dvc").write_text("outs:\n- path: labels.csv\n")


def in_a_submodule(folder: Path) -> None:
    empty_images(folder)
    (folder / ".gitmodules").write_text('[submodule "a"]\n\tpath = pictures\n\turl = ../a\n')


def move_images(folder: Path, place: str) -> None:
    (folder / "pictures").rename(folder / place)
    change(folder, "images: pictures", f"images: {place}")


def below_another_repository(folder: Path) -> None:
    (folder / "more/.dvc").mkdir(parents=True)
    move_images(folder, "more/pictures")


def one_class(folder: Path) -> None:
    (folder / "pictures/dog").rename(folder / "dogs")


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (remove_images, ("data.images", "pictures", "is not a folder")),
        (empty_images, ("data.images", "pictures", "holds no image")),
        (in_dvc_alone, ("data.images", "pictures", "is not a folder; `dvc pull pictures.dvc`")),
        (in_a_submodule, ("data.images", "pictures", "is empty; `git submodule update --init pictures`")),
        (
            labels_in_dvc_alone,
            ("data.labels", "data/labels.csv is not a file; `dvc pull data/labels.csv.dvc`"),
        ),
        (one_class, ("data.images", "'cat'", "at least two")),
        (lambda f: change(f, "  epochs: auto ", "  epochs: ten "), ("train.epochs", "'ten'", "whole number")),
        (lambda f: change(f, "  patience: 3", "  patiense: 3"), ("train.patiense", "not a parameter")),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_mistake_is_exit_2(
    workplace: Path, mistake: Callable[[Path], None], words: tuple[str, ...]
) -> None:
    mistake(workplace)
    code, line = end("validate")
    assert code == 2
    assert all(word in line for word in words), line
    assert (workplace / "reports/validation.json").read_text() == OLD


@pytest.mark.parametrize(("stage", "more"), [("validate", "at least two"), ("check", "not a parameter")])
def test_a_mistake_reaches_the_shell_as_one_line(workplace: Path, stage: str, more: str) -> None:
    one_class(workplace)
    if stage == "check":
        change(workplace, "  patience: 3", "  patiense: 3")
    done = run(stage, workplace)
    assert done.returncode == 2
    assert more in only_line(done) and only_line(done).startswith(f"{stage}: ")
    assert (workplace / "reports/validation.json").read_text() == OLD


def test_a_mistake_is_told_before_great_expectations_is_imported() -> None:
    """Which takes seconds."""
    code = "import sys, tasks.validate; print('great_expectations' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (lambda f: change(f, "images: pictures ", "images: "), ("data.images", "no value")),
        (lambda f: change(f, "labels: data/labels.csv", 'labels: ""'), ("data.labels", "''")),
        (lambda f: change(f, "\ndata:", "\ndate:"), ("date is not a parameter", "data")),
        (lambda f: (f / "params.yaml").write_text(""), ("params.yaml", "data is missing")),
        (lambda f: change(f, "scheduler: none", "scheduler: host"), ("compute.scheduler", "'host'")),
        (
            lambda f: change(f, "backbone: efficientnet_lite0", "backbone: resnext"),
            ("'resnext'", "SavedModel"),
        ),
        (lambda f: change(f, "images: pictures", "images: ~/pictures"), ("~/pictures", "write ~ out")),
        (lambda f: change(f, "images: pictures", "images: ."), ("data.images: . is where data/digits lies",)),
        (
            lambda f: change(f, "images: pictures", "images: data"),
            ("data.images: data is where", "of their own"),
        ),
        (
            lambda f: move_images(f, "reports/mine"),
            ("data.images: reports/mine lies in reports", "elsewhere"),
        ),
        (lambda f: (f / os.fsdecode(b"pictures/caf\xe9")).touch(), ("pictures/caf", "isn't UTF-8", "rename")),
        (lambda f: (f / "pictures/x").symlink_to("nowhere"), ("pictures/x", "link that leads nowhere")),
        (lambda f: (f / "pictures/x").symlink_to("x"), ("pictures/x", "link that leads nowhere")),
        (lambda f: os.mkfifo(f / "pictures/cat/x"), ("pictures/cat/x", "neither a file nor a folder")),
        (lambda f: (f / "pictures/.dvc").mkdir(), ("pictures/.dvc makes another DVC repository",)),
        (lambda f: (f / "pictures/cat/.dvc").mkdir(), ("pictures/cat/.dvc makes another DVC repository",)),
        (below_another_repository, ("more/.dvc makes another DVC repository", "move .dvc away")),
        (lambda f: (f / "pictures/cat/.dvcignore").touch(), ("pictures/cat/.dvcignore is DVC's list",)),
        (lambda f: subprocess.run(["git", "init", "--quiet", f], check=True), ("no commit", "git commit")),
        (
            lambda f: subprocess.run(["git", "init", "-q", "--object-format=sha256", f], check=True),
            ("SHA-256", "git init --object-format=sha1"),
        ),
        (lambda f: (f / ".dvc/config").write_text(""), ("is in no git repository", "git init && git add")),
    ],
    ids=[
        "no value",
        "empty",
        "section",
        "empty file",
        "scheduler",
        "backbone",
        "home",
        "root",
        "data",
        "reports",
        "name that is no text",
        "link to nothing",
        "link to itself",
        "pipe",
        "repository of its own",
        "repository in a class",
        "repository around",
        ".dvcignore",
        "commit",
        "repository of SHA-256",
        "repository",
    ],
)
def test_a_slip_is_told_before_anything_runs(
    workplace: Path, mistake: Callable[[Path], None], words: tuple[str, ...]
) -> None:
    assert end("check") == (0, "")
    mistake(workplace)
    code, line = end("check")
    assert code == 2
    assert all(word in line for word in words), line


def test_what_lies_outside_of_the_project_or_hidden_in_it_is_sound(workplace: Path) -> None:
    """The clone of a registry of data, which DVC hashes as any folder, and the lock of Emacs."""
    (workplace / "pictures/.#labels.csv").symlink_to("user@host.1234")
    assert end("check") == (0, "")
    registry = workplace.parent / f"{workplace.name}-registry"
    (registry / ".dvc").mkdir(parents=True)
    shutil.copytree(workplace / "pictures", registry / "pictures", symlinks=True)
    change(workplace, "images: pictures", f"images: ../{registry.name}/pictures")
    assert end("check") == (0, "")


def test_a_folder_whose_name_is_a_pattern_is_told(
    workplace: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorFlow would not find a model in it, and the SavedModel was left out."""
    monkeypatch.chdir(shutil.copytree(workplace, tmp_path_factory.mktemp("top") / "work [old]"))
    code, line = end("check")
    assert code == 2 and "has [ in its path" in line and "call it otherwise" in line


def test_a_repository_of_another_user_is_told_with_the_command_that_allows_it(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (["git", "init", "--quiet"], FIRST_COMMIT):
        subprocess.run(words, cwd=workplace, check=True)
    assert end("check") == (0, "")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    code, line = end("check")
    assert code == 2
    (command,) = re.findall("git config --global --add safe.directory .+", line)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(workplace / "gitconfig"))
    subprocess.run(command, shell=True, cwd=workplace, check=True)
    assert end("check") == (0, ""), "the command helps"


def test_a_cache_that_can_not_be_is_told_before_dvcs_unexpected_error(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "a file").touch()
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(workplace / "a file/cache/dvc"))
    for variable in ("DVC_SITE_CACHE_DIR", "DARKROOM_CACHE"):
        code, line = end("check")
        assert code == 2
        assert f"a file/cache/dvc (Not a directory); set {variable} to a folder" in line
        monkeypatch.setenv("DARKROOM_CACHE", str(workplace / "a file/cache"))


def test_what_a_full_disk_left_of_dvcs_record_is_removed(workplace: Path) -> None:
    record = workplace / RECORD
    record.parent.mkdir()
    record.write_text("{}")
    assert end("check") == (0, "") and record.is_file()
    record.write_text("")
    assert end("check")[0] == 0
    assert not record.exists()


def test_make_run_begins_with_the_check() -> None:
    done = subprocess.run(["make", "--dry-run", "run"], cwd=ROOT, check=True, capture_output=True, text=True)
    commands = [line for line in done.stdout.splitlines() if ".venv/bin/" in line]
    assert commands[-3].endswith("python -m tasks.check")
    assert commands[-2].endswith("dvc repro")


def zero_bytes(folder: Path) -> str:
    (folder / "pictures/cat/0.png").write_bytes(b"")
    return "cat/0.png"


def truncated(folder: Path) -> str:
    file = folder / "pictures/cat/0.png"
    Image.effect_noise((64, 64), 90).save(file)
    file.write_bytes(file.read_bytes()[:900])
    return "cat/0.png"


def text_named_jpg(folder: Path) -> str:
    (folder / "pictures/dog/note.jpg").write_text("not an image at all")
    return "dog/note.jpg"


def too_few(folder: Path) -> str:
    for number in range(9):
        (folder / f"pictures/dog/{number}.png").unlink()
    return "classes of too few images: dog (3); asked for: at least 10"


@pytest.mark.parametrize("damage", [zero_bytes, truncated, text_named_jpg, too_few])
def test_a_verdict_of_validation_is_exit_1_and_names_the_files(
    workplace: Path, damage: Callable[[Path], str]
) -> None:
    named = damage(workplace)
    code, line = end("validate")
    assert code == 1
    assert named in line
    assert "validate." in line, "the line names the parameter"


@pytest.mark.slow
def test_a_verdict_reaches_the_shell_as_one_line(workplace: Path) -> None:
    named = zero_bytes(workplace)
    done = run("validate", workplace)
    assert done.returncode == 1
    assert named in only_line(done)


def test_tolerated_unreadable_images_are_listed_and_left_out(workplace: Path) -> None:
    zero_bytes(workplace)
    change(workplace, "max_unreadable: 0", "max_unreadable: 1")
    assert end("validate") == (0, "")
    assert '"cat/0.png": "is empty (0 bytes)"' in (workplace / "reports/validation.json").read_text()


def test_an_unknown_backbone_is_exit_2(workplace: Path) -> None:
    assert end("validate") == (0, "")
    change(workplace, "backbone: efficientnet_lite0", "backbone: resnext")
    code, line = end("build")
    assert code == 2
    assert "model.backbone is 'resnext'; it must be efficientnet_lite0" in line
    assert not (workplace / "data/dataset").exists()
