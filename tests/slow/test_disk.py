"""Room on the disk: outputs that are links into DVC's cache, and earlier runs that are removed."""

import hashlib
from pathlib import Path

import pytest

from tasks.core.base.leftovers import CACHE
from tests.images import write_classes
from tests.project import Project

pytestmark = pytest.mark.slow


def objects(cache: Path) -> list[Path]:
    return [file for file in cache.rglob("*") if file.is_file()]


def damaged(cache: Path) -> list[Path]:
    """Objects that are not what their names say: somebody has written through a link."""

    def is_damaged(file: Path) -> bool:
        name = (file.parent.name + file.name).removesuffix(".dir")
        return hashlib.md5(file.read_bytes()).hexdigest() != name

    return list(filter(is_damaged, objects(cache)))


def test_a_cache_that_outputs_are_links_into_stays_sound_and_is_pruned(tmp_path: Path) -> None:
    write_classes(tmp_path / "pictures", count=30)
    project = Project.small(tmp_path)
    assert project.run("dvc", "config", "--local", "cache.type", "hardlink,copy").returncode == 0
    cache = project.folder / CACHE
    for runs in (1, 2):
        done = project.run("dvc", "repro")
        assert done.returncode == 0, done.stdout
        assert (project.folder / "data/dataset/dataset.json").stat().st_nlink == 2, runs
        (tmp_path / f"pictures/red/00{runs}.png").unlink()
        assert not damaged(cache)
    before = len(objects(cache))
    done = project.run("tasks.prune", "--runs", "1")
    assert done.returncode == 0 and done.stdout.startswith("prune: freed "), done.stdout
    assert len(objects(cache)) < before - 10, "of what the first run made"
    assert not damaged(cache)
    (changed, *_) = project.run("dvc", "status", "build", "train", "export").stdout.splitlines()
    assert changed == "Data and pipelines are up to date."
