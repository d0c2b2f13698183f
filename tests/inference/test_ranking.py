"""Backbones are ranked on the user's own images."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.core.inference import ranking
from tests.backbone import save_tiny_backbone
from tests.images import write_classes
from tests.structure import ROOT


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "pictures", count=20)
    (tmp_path / "labels.csv").write_text("path,label\n")
    text = (ROOT / "params.yaml").read_text("utf-8")
    text = re.sub(r"\n  images: \S+ ", "\n  images: pictures ", text, count=1)
    text = re.sub(r"\n  labels: \S+ ", "\n  labels: labels.csv ", text, count=1)
    (tmp_path / "params.yaml").write_text(text)
    save_tiny_backbone(tmp_path / "backbone")
    return tmp_path


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tasks.backbones", *words]
    return subprocess.run(command, check=False, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})


def test_a_backbone_has_a_row_for_each_size(workplace: Path) -> None:
    (workplace / "pictures/red/003.png").write_bytes(b"no image")
    done = run("--json", "rank", "backbone", "--sizes", "32", "64")
    assert done.returncode == 0, done.stderr
    assert "pictures/red/003.png" in done.stderr, "what can't be read is left out and told"
    rows = json.loads(done.stdout)
    assert [row["image_size"] for row in rows] == [32, 64]
    for row in rows:
        low, high = row["interval_95"]
        assert low <= row["accuracy"] <= high and row["milliseconds"] > 0 and row["megabytes"] > 0
        assert row["passes"] > 0
    again = json.loads(run("--json", "rank", "backbone", "--sizes", "32", "64").stdout)
    assert again == rows, "the same features, and the same milliseconds: those of the first time"


def test_one_that_can_not_be_had_is_left_out(workplace: Path) -> None:
    (workplace / "broken").mkdir()
    (workplace / "broken/saved_model.pb").write_bytes(b"none")
    done = run("rank", "backbone", "broken", "--sizes", "32")
    assert done.returncode == 0, done.stderr
    assert "broken left out" in done.stderr
    assert done.stdout.splitlines()[0].startswith("name") and done.stdout.splitlines()[1].startswith(
        "backbone"
    )
    assert len(done.stdout.splitlines()) == 2
    assert run("rank", "broken").returncode == 1, "nothing is left to rank"
    for command in ("rank", "fetch"):
        slip = run(command, "backbone", "no_such_name")
        assert slip.returncode == 2 and "the backbone is 'no_such_name'; it must be" in slip.stderr
    (workplace / "labels.csv").write_text("path,label\nred/001.png,a\nblue/001.png,b\n")
    few = run("rank", "backbone", "--sizes", "32")
    assert few.returncode == 2 and "too few images" in few.stderr and "Traceback" not in few.stderr


def test_the_best_comes_first() -> None:
    rows = [
        ranking.Ranked(name, 64, share, (0.1, 0.9), 1.0, 5.0, 2.0) for name, share in (("a", 0.5), ("b", 0.7))
    ]
    assert [line.split()[0] for line in ranking.table(rows)] == ["name", "b", "a"]
