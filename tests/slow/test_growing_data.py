"""A data set that grows a little is built again a little, also by DVC, which takes the old one away first."""

from pathlib import Path

import pytest

from tests.data.test_build import content
from tests.images import write_classes
from tests.project import Project

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A hundred and eighty images in files of about four, three more to come; build says what it writes."""
    write_classes(tmp_path / "pictures", count=61)
    for label in ("blue", "green", "red"):
        (tmp_path / f"pictures/{label}/050.png").rename(tmp_path / f"{label}.png")
    project = Project.small(tmp_path)
    opening = '    with shard.file.open("wb") as file:\n'
    edit(project.folder / "tasks/build.py", "PER_SHARD = 500", "PER_SHARD = 4")
    edit(
        project.folder / "tasks/core/data/shards.py",
        opening,
        '    print("wrote", shard.file.name, flush=True)\n' + opening,
    )
    return project


def edit(file: Path, before: str, after: str) -> None:
    text = file.read_text("utf-8")
    assert before in text
    file.write_text(text.replace(before, after), "utf-8")


def built(project: Project, *words: str) -> set[str]:
    """The names of the files that a run of DVC wrote."""
    done = project.run("dvc", "repro", "build", *words)
    assert done.returncode == 0, done.stdout
    return {line.split()[1] for line in done.stdout.splitlines() if line.startswith("wrote ")}


def test_only_the_files_that_new_images_fall_into_are_written(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DARKROOM_CACHE", raising=False)
    dataset = project.folder / "data/dataset"
    assert built(project) == set(content(dataset)) - {"dataset.json", "splits.parquet"}
    for label in ("blue", "green", "red"):
        added = project.folder.parent / f"{label}.png"
        added.rename(added.parent / f"pictures/{label}/050.png")
    assert 1 <= len(built(project)) <= 3
    grown = content(dataset)
    assert len(built(project, "--force")) == 0
    monkeypatch.setenv("DARKROOM_CACHE", str(project.folder.parent / "another cache"))
    assert built(project, "--force") == set(grown) - {"dataset.json", "splits.parquet"}
    assert content(dataset) == grown, "as if built at once"
