"""The model that is in a stage, as monitoring finds it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from flows import monitor
from tasks.core.base.files import read_json, remove
from tasks.core.base.paths import EXPORT, MANIFEST, PREDICTIONS
from tasks.core.inference import drift
from tasks.core.inference.scoring import MONITORED
from tasks.core.release import git
from tests.release.promotions import by_hand, commit, promoted

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.mark.usefixtures("here")
def test_what_is_in_production_can_be_monitored(
    variants: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    commit(variants, "poor")
    shutil.copytree(variants / "pictures/red", "new/red")
    state = monitor.monitor("new", "production", return_state=True)
    assert (state.message or "").startswith("nothing is in production: `python -m flows.promote")

    subprocess.run(["git", "push", "-q", "origin", "HEAD:refs/heads/main"], check=True)
    elsewhere = tmp_path / "elsewhere"
    subprocess.run(["git", "clone", "-q", "-b", "main", str(tmp_path / "origin"), str(elsewhere)], check=True)
    with monkeypatch.context() as there:
        there.chdir(elsewhere)
        subprocess.run(["dvc", "pull", "-q"], check=True)
        assert promoted(push=True)[0] == 0
    for path in (EXPORT, MANIFEST, PREDICTIONS):  # as of a run that was rejected, or a machine without data
        remove(path)
    text = Path("params.yaml").read_text("utf-8").replace(str(variants / "pictures"), "others")
    Path("params.yaml").write_text(text)
    state = monitor.monitor("new", "production", return_state=True)
    assert state.name == "Drifted", "they are all of one class, and the tag was fetched"
    assert read_json(MONITORED / "drift.json")["model"] == "classifier@v1.0.0 (model.onnx)"
    mix = [check for check in read_json(MONITORED / "drift.json")["checks"] if check["name"] == drift.CLASSES]
    assert [check["old"] for check in mix] == [[1 / 3] * 3]

    git.delete_tags(["classifier#production#1"])
    by_hand("classifier#production#1")
    assert monitor.monitor("new", "production", return_state=True).name == "Drifted"
    assert "origin has another classifier#production#1: git tag --delete" in caplog.text

    remove(tmp_path / "origin")
    remove(tmp_path / "store")
    assert monitor.monitor("new", "production", return_state=True).name == "Drifted", "all of it is here"
    assert "origin can't be asked for its tags" in caplog.text
