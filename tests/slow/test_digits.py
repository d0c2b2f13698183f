"""The first five minutes of a new user: the built-in images, cold, in two clones, to the byte."""

import json
from pathlib import Path

import pytest

from tests import reproduce

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clones(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two clones of the last commit, each run cold under settings of its own."""
    top = tmp_path_factory.mktemp("digits")
    folders = [top / "one", top / "another" / "place"]
    for folder, settings in zip(folders, reproduce.SETTINGS, strict=True):
        reproduce.run_cold(folder, settings)
    return folders


def test_digits_are_learnt(clones: list[Path]) -> None:
    metrics = json.loads((clones[0] / "reports/metrics.json").read_text())
    assert metrics["test"]["accuracy"] >= 0.98
    assert metrics["test"]["n"] == 359
    low, high = metrics["test"]["interval_95"]["accuracy"]
    assert low <= metrics["test"]["accuracy"] <= high


def test_every_artifact_agrees_with_the_model(clones: list[Path]) -> None:
    export = json.loads((clones[0] / "export/export.json").read_text())
    assert len(export["artifacts"]) == 7
    for fact in export["artifacts"].values():
        assert fact["agreement"] >= 0.99
        assert (clones[0] / "export" / fact["file"]).exists()


def test_two_cold_runs_give_the_same_bytes(clones: list[Path]) -> None:
    first, second = (reproduce.digests(folder / "dvc.lock") for folder in clones)
    assert first == second
    assert (clones[0] / "dvc.lock").read_bytes() == (clones[1] / "dvc.lock").read_bytes()
