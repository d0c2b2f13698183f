"""Promotion as its users see it: real models in all seven formats, by commands alone, from first to last."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.core.base.files import read_json
from tests.project import Project

pytestmark = pytest.mark.slow

CODE = re.compile(r"(?s)```python\n(.*?)```")


class Scratch:
    """A repository of the digits, with bare ones beside it that stand for the remotes of git and DVC."""

    def __init__(self, top: Path) -> None:
        self.project = Project.copy(top / "project")
        self.origin = top / "origin"
        self.git("init", "--quiet", "--bare", "--initial-branch", "main", str(self.origin))
        self.git("remote", "add", "origin", str(self.origin))
        self.done("dvc", "remote", "add", "--quiet", "--default", "store", str(top / "store"))
        params = self.project.folder / "params.yaml"
        rule = "{metric: test.accuracy, against: champion, min: "
        text = params.read_text("utf-8")
        assert text.count(f"{rule}-0.02}}") == 1
        params.write_text(text.replace(f"{rule}-0.02}}", f"{rule}0.0}}"), "utf-8")
        self.project.set(robustness="0")

    def git(self, *words: str) -> None:
        self.project.git(*words)

    def done(self, *words: str) -> str:
        done = self.project.run(*words)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def model(self, **values: str) -> None:
        """Makes a model, and commits and pushes it."""
        self.project.set(**values)
        self.done("dvc", "repro")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", f"{values}")
        self.git("push", "--quiet", "origin", "HEAD:refs/heads/main")
        self.done("dvc", "push", "--quiet")


def promote(project: Project, *words: str) -> tuple[int, str]:
    """Returns the exit code, and the last line of what is said."""
    done = project.run("flows.promote", *words)
    print(done.stdout)
    return done.returncode, done.stdout.splitlines()[-1]


def test_the_story(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    here = ("--to", "production", "--push")
    simple = {
        "fine_tune": "false",
        "epochs": "6",
        "formats": "[saved_model, h5, tflite, tflite_fp16, onnx]",
    }
    full = {
        "fine_tune": "true",
        "epochs": "6",
        "formats": "[saved_model, h5, tflite, tflite_fp16, tflite_dynamic, tflite_int8, onnx]",
    }
    stays = "promote: classifier@v1.1.0 stays: "

    scratch.model(**simple)
    assert promote(scratch.project, *here) == (
        0,
        "promote: classifier@v1.0.0 is in production, by classifier#production#1",
    )
    scratch.model(**full)
    assert promote(scratch.project, *here) == (
        0,
        "promote: classifier@v1.1.0 is in production, by classifier#production#2",
    )
    scratch.model(epochs="5")
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
    scratch.model(**full, thumbnails="12")
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
