"""What training promises of the whole pipeline: sweeps by DVC, and a backbone that comes from a hub."""

import csv
import io
from pathlib import Path

import pytest

from tests.hub import Hub, packed, serving, stop
from tests.images import write_classes
from tests.project import Project

pytestmark = pytest.mark.slow

NAME = "mobilenet_v3_small_075_224"
PATH = "/google/imagenet/mobilenet_v3_small_075_224/feature_vector/5"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in ("DARKROOM_CACHE", "TFHUB_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    write_classes(tmp_path / "pictures", count=20)
    project = Project.small(tmp_path)
    project.set(epochs="1", robustness="0")
    return project


def test_a_sweep_runs_from_a_queue_and_shares_the_features(project: Project) -> None:
    assert project.run("dvc", "repro", "evaluate").returncode == 0
    project.git("add", "--all")
    project.git("commit", "--message", "Where the sweep starts")
    known = sorted((project.folder / ".cache/features").iterdir())
    queued = project.run(
        "dvc", "exp", "run", "--queue", "-S", "train.learning_rate=choice(0.001,0.02)", "evaluate"
    )
    assert queued.returncode == 0, queued.stdout
    done = project.run("dvc", "exp", "run", "--run-all")
    assert done.returncode == 0, done.stdout
    shown = project.run("dvc", "exp", "show", "--csv", apart=True).stdout
    rows = list(csv.DictReader(io.StringIO(shown)))
    tried = {row["train.learning_rate"]: row for row in rows if row["State"] == "Success"}
    assert set(tried) >= {"0.001", "0.02"}, shown
    assert all(float(tried[rate]["test.accuracy"]) >= 0 for rate in ("0.001", "0.02"))
    assert sorted((project.folder / ".cache/features").iterdir()) == known


def test_a_name_of_the_catalogue_is_fetched_once_and_trained_on(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub is one of our own, on this machine, and gives a tiny model under the name of a large one."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    project.set(backbone=NAME)
    with serving(Hub()) as hub:
        hub.archives[PATH] = packed(tmp_path / "backbone")
        monkeypatch.setenv("DARKROOM_HUB", hub.address)
        done = project.run("dvc", "repro", "evaluate")
        assert done.returncode == 0, done.stdout
        asked = list(hub.asked)
        stop(hub)
    assert asked == [f"{PATH}?tf-hub-format=compressed", f"/archive{PATH}"], "once for all stages"
    project.set(train__learning_rate="0.02")
    again = project.run("dvc", "repro", "evaluate")
    assert again.returncode == 0, again.stdout
    assert "Running stage 'train'" in again.stdout and "fetch:" not in again.stdout
