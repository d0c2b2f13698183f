"""The built-in images as a new user meets them: a cold run, the same again, and the way into production.

The story comes last: it goes on where the cold run was.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.core.base.files import read_json
from tests import reproduce
from tests.project import Project

pytestmark = pytest.mark.slow

CODE = re.compile(r"(?s)```python\n(.*?)```")


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout, after a cold run with every parameter as shipped."""
    project = Project.copy(tmp_path_factory.mktemp("digits") / "project")
    reproduce.run_cold(project, reproduce.SETTINGS[0])
    return project.folder


def test_digits_are_learnt(cold: Path) -> None:
    metrics = json.loads((cold / "reports/metrics.json").read_text())
    assert metrics["test"]["accuracy"] >= 0.98
    assert metrics["test"]["n"] == 359
    low, high = metrics["test"]["interval_95"]["accuracy"]
    assert low <= metrics["test"]["accuracy"] <= high


def test_every_artifact_agrees_with_the_model(cold: Path) -> None:
    export = json.loads((cold / "export/export.json").read_text())
    assert len(export["artifacts"]) == 7
    for fact in export["artifacts"].values():
        assert fact["agreement"] >= 0.99
        assert (cold / "export" / fact["file"]).exists()


def test_another_cold_run_gives_the_same_bytes(cold: Path, tmp_path: Path) -> None:
    """In another folder, time zone and locale, and with settings of a user's, as by `make reproduce`."""
    again = Project.copy(tmp_path / "another" / "place")
    settings = reproduce.SETTINGS[1] | reproduce.settings_of_a_user(tmp_path / "home")
    found = reproduce.run_cold(again, settings)
    assert {"models", "export", "reports/predictions.parquet", "reports/index.html"} <= set(found)
    assert {"reports/metrics.json", "reports/gates.json", "data/dataset"} <= set(found)
    assert found == reproduce.digests(cold / "dvc.lock")
    assert (again.folder / "dvc.lock").read_bytes() == (cold / "dvc.lock").read_bytes()


class Scratch:
    """The copy, with bare repositories that stand for the remotes of git and DVC."""

    def __init__(self, folder: Path, top: Path) -> None:
        self.project = Project(folder)
        self.origin = top / "origin"
        self.git("init", "--quiet", "--bare", "--initial-branch", "main", str(self.origin))
        self.git("remote", "add", "origin", str(self.origin))
        self.done("dvc", "remote", "add", "--quiet", "--default", "store", str(top / "store"))
        rule = "{metric: test.accuracy, against: champion, min: "
        text = (self.project.folder / "params.yaml").read_text("utf-8")
        assert text.count(f"{rule}-0.02}}") == 1
        self.params = text.replace(f"{rule}-0.02}}", f"{rule}0.0}}")

    def git(self, *words: str) -> None:
        self.project.git(*words)

    def done(self, *words: str) -> str:
        done = self.project.run(*words)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def model(self, **values: str) -> str:
        """Makes a model with other values than those shipped, commits and pushes it; what its stages said."""
        (self.project.folder / "params.yaml").write_text(self.params, "utf-8")
        self.project.set(**values)
        said = self.done("dvc", "repro")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", f"{values}")
        self.git("push", "--quiet", "origin", "HEAD:refs/heads/main")
        self.done("dvc", "push", "--quiet")
        return said


def promote(project: Project, *words: str) -> tuple[int, str]:
    """Returns the exit code, and the last line of what is said."""
    done = project.run("flows.promote", *words)
    print(done.stdout)
    return done.returncode, done.stdout.splitlines()[-1]


def test_the_story_of_promotion(cold: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its users see it: by commands alone, from first to last."""
    monkeypatch.delenv("DARKROOM_CACHE")  # the copy has its own
    scratch = Scratch(cold, tmp_path)
    here = ("--to", "production", "--push")
    simple = {"features": "last", "fine_tune": "false", "formats": "[tflite, onnx]", "robustness": "0"}
    equal = {"epochs": "5", "formats": "[onnx]", "robustness": "0"}
    stays = "promote: classifier@v1.1.0 stays: "

    scratch.model(**simple)
    assert promote(scratch.project, *here) == (
        0,
        "promote: classifier@v1.0.0 is in production, by classifier#production#1",
    )
    said = scratch.model()
    assert "Running stage 'train'" not in said, "the cold run has trained it"
    assert promote(scratch.project, *here) == (
        0,
        "promote: classifier@v1.1.0 is in production, by classifier#production#2",
    )
    scratch.model(**equal)
    code, said = promote(scratch.project, *here)
    assert code == 1, "an equal one"
    assert said.startswith(stays + "inconclusive: test.accuracy against champion: 0.99"), said
    scratch.model(**simple)
    code, said = promote(scratch.project, *here)
    assert code == 1, "a worse one"
    assert said.startswith(stays + "fail: test.accuracy against champion: 0.99"), said

    back = "is back in production in place of classifier@v1.1.0, by classifier#production#3"
    code, said = promote(scratch.project, *here, "--rollback")
    assert (code, said) == (0, f"promote: classifier@v1.0.0 {back}")
    scratch.model(thumbnails="12")
    assert promote(scratch.project, *here)[0] == 0, "the better one again"

    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(scratch.origin), str(clone)], check=True)
    code, said = promote(Project(clone), "--verify", "classifier@v1.1.0")
    assert code == 0
    assert "is what it says: 14 digests, and the metrics of the predictions that are stored" in said

    consumer = tmp_path / "consumer"
    consumer.mkdir()
    words = ["dvc", "artifacts", "get", str(scratch.origin), "classifier", "--stage", "production"]
    subprocess.run([sys.executable, "-m", *words, "-o", "got", "-q"], cwd=consumer, check=True)
    # Somebody who has the artifact, its runtime and nothing of this project does as is said beside them.
    (code,) = CODE.findall((consumer / "got/golden/README.md").read_text("utf-8"))
    words = [sys.executable, "-I", "-c", code]
    done = subprocess.run(words, cwd=consumer / "got", check=True, capture_output=True, text=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    rows = read_json(consumer / "got/golden/golden.json")
    assert [(line[0], line[1]) for line in lines] == [(row["file"], row["class"]) for row in rows]
    assert max(float(line[2]) for line in lines) < 0.001
