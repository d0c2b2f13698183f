"""What CI shows a reviewer is true and safe to show, and the workflows are sound."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tasks import ci_report
from tasks.core.base.errors import DarkroomError, DataError
from tasks.core.base.paths import METRICS
from tasks.core.release import dvc_api
from tests.project import FIRST_COMMIT, ME
from tests.structure import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize(
    "words",
    [
        ["zizmor", "--offline", "--no-progress", "--quiet"],
        ["check-jsonschema", "--builtin-schema", "vendor.github-workflows"],
    ],
)
def test_the_workflows_are_sound(words: list[str]) -> None:
    program = str(Path(sys.executable).parent / words[0])
    done = subprocess.run(
        [program, *words[1:], *map(str, WORKFLOWS)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_others_wrote_is_pinned_by_its_digest() -> None:
    used = [line for file in WORKFLOWS for line in re.findall(r"uses: (.*)", file.read_text("utf-8"))]
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+", line) for line in used), used


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit of results, and others in the working copy."""
    monkeypatch.chdir(tmp_path)
    stage = "stages:\n  work:\n    cmd: work\n    params: [train.epochs, train.batch_size]\n"
    stage += "    metrics: [reports/metrics.json: {cache: false}]\n"
    (tmp_path / "dvc.yaml").write_text(stage)
    for folder in ("reports/evaluation", "export"):
        (tmp_path / folder).mkdir(parents=True)
    results(0.5, 6)
    for words in (["git", "init", "-q"], FIRST_COMMIT, ["dvc", "init", "-q"], ["git", "add", "-A"]):
        subprocess.run(words, check=True)
    subprocess.run(["git", *ME, "commit", "-q", "-m", "Results"], check=True)
    results(0.75, 9)
    finish()
    return tmp_path


def finish() -> None:
    """Has DVC take what is here for what its stage has made."""
    subprocess.run([sys.executable, "-m", "dvc", "commit", "--force", "-q"], check=True)


def results(accuracy: float, epochs: int) -> None:
    split = {"accuracy": accuracy, "log_loss": 0.5, "interval_95": {"accuracy": [0.0, 1.0]}}
    gate = {"passed": True, "verdict": "pass", "why": f"test.accuracy is {accuracy} | @all <b>", "name": "x"}
    fact = {"file": "model.onnx", "bytes": 2_000_000, "passed": accuracy > 0.6, "why": "as it should"}
    files = {
        "params.yaml": f"train:\n  epochs: {epochs}\n  batch_size: 16\n",
        "reports/metrics.json": json.dumps({"test": split, "validation": split}),
        "reports/gates.json": json.dumps({"passed": True, "gates": [gate]}),
        "export/artifacts.json": json.dumps({"exported": True, "artifacts": {"onnx": fact}}),
        "reports/evaluation/confusion.csv": "label,predicted\na,a\na,b\nb,b\nb,b\n",
    }
    for name, text in files.items():
        Path(name).write_text(text)


@pytest.mark.usefixtures("repository")
def test_a_report_shows_what_has_changed() -> None:
    text = ci_report.report("HEAD")
    assert text.startswith("## Darkroom: ✓ passed\n")
    assert "| test.accuracy | 0.5 | 0.75 | +0.25 |" in text
    assert "interval" not in text
    assert "log" not in text, "what is as it was is not shown"
    assert "| train.epochs | 6 | 9 |" in text
    assert "batch" not in text
    assert "| a | 1 | 1 |\n| b | · | 2 |" in text
    assert "| ✓ | model.onnx | 2.0 | as it should |" in text
    assert "| ✓ | test.accuracy is 0.75 &#124; &#64;all &#60;b&#62; |" in text, "it calls nobody"


@pytest.mark.parametrize("depth", [[], ["--depth", "1"]])
def test_a_base_that_a_clone_of_one_branch_lacks_comes_by_what_is_said(
    repository: Path, depth: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (["branch", "base"], [*ME, "commit", "-qam", "Change"]):
        subprocess.run(["git", *words], check=True)
    clone = ["git", "clone", "-q", "--single-branch", *depth, f"file://{repository}", "clone"]
    subprocess.run(clone, check=True)
    monkeypatch.chdir("clone")
    with pytest.raises(DataError, match="origin/base can't be compared with") as told:
        dvc_api.difference("params", "origin/base")
    subprocess.run(re.findall("`(.*)` brings it", str(told.value))[0].split(), check=True)
    changed = {"params.yaml": {"train.epochs": {"old": 6, "new": 9, "diff": 3}}}
    assert dvc_api.difference("params", "origin/base") == (changed, True)
    with pytest.raises(
        DataError, match=f"`git fetch {'--unshallow ' * bool(depth)}--tags origin` brings it, if it is there"
    ):
        dvc_api.difference("params", "nonsense")


@pytest.mark.usefixtures("repository")
def test_what_is_as_it_was_is_said_in_words() -> None:
    results(0.5, 6)
    assert ci_report.report("HEAD").startswith("## Darkroom: ✗ did not finish: work\n")
    finish()
    text = ci_report.report("HEAD")
    assert text.startswith("## Darkroom: ✗ rejected\n\n- "), "an artifact is at fault"
    assert "(export.rules)\n\n### Gates" in text
    assert "No metric has changed." in text
    assert "No parameter has changed." in text


@pytest.mark.usefixtures("repository")
def test_a_base_that_has_no_model_is_no_hindrance() -> None:
    assert "| test.accuracy |  | 0.75 |  |" in ci_report.report("HEAD~1"), "nothing at all is there"
    subprocess.run(["git", "rm", "-q", "--cached", METRICS, "params.yaml"], check=True)
    subprocess.run(["git", *ME, "commit", "-q", "-m", "Nothing has run yet"], check=True)
    text = ci_report.report("HEAD")
    assert "HEAD has none that can be had.\n\n| metric | here |" in text
    assert "| test.accuracy | 0.75 |" in text
    assert "HEAD has none.\n" in text, "no parameters either"


def test_what_can_not_be_reported_is_told(repository: Path) -> None:
    with pytest.raises(DataError, match="nonsense can't be compared with"):
        ci_report.report("nonsense")
    shutil.rmtree(repository / "export")
    assert ci_report.report("HEAD").startswith("## Darkroom: ✗ did not finish: ")
    (repository / "reports/gates.json").unlink()
    with pytest.raises(DataError, match="run `dvc repro` first"):
        ci_report.report("HEAD")


def test_what_dvc_can_not_tell_is_one_line(repository: Path) -> None:
    (repository / "dvc.lock").write_text("<<<<<<< HEAD\n")
    with pytest.raises(DarkroomError, match=r"DVC can't tell what is done: .*dvc\.lock") as caught:
        ci_report.report("HEAD")
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


def test_of_many_classes_the_worst_confusions_are_shown(tmp_path: Path) -> None:
    names = [f"class {number:02d}" for number in range(20)]
    rows = [(name, name) for name in names] + [("class 03", "class 04")] * 5 + [("class 07", "class 01")] * 2
    pd.DataFrame(rows, columns=["label", "predicted"]).to_csv(tmp_path / "confusion.csv", index=False)
    text = ci_report.of_confusion(tmp_path / "confusion.csv")
    assert text.splitlines()[2:] == ["| class 03 | class 04 | 5 |", "| class 07 | class 01 | 2 |"]
    pd.DataFrame(rows[:20], columns=["label", "predicted"]).to_csv(tmp_path / "confusion.csv", index=False)
    assert ci_report.of_confusion(tmp_path / "confusion.csv") == "No image was mistaken."
