"""A training that is interrupted goes on from its last finished epoch, and ends with the same bytes."""

import os
import re
import signal
import subprocess
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from tasks.core.base.paths import MODEL_FACTS, cache_folder
from tasks.core.training import checkpoint, classifier
from tasks.core.training.checkpoint import ABANDONED, Backup, TrainingState
from tests.apart import finish, start
from tests.structure import ROOT
from tests.tiny import Tiny

SETTINGS: dict[str, Any] = {"epochs": 5, "patience": 5, "learning_rate": 0.02, "refit": True}
EPOCH = re.compile("epoch - ")
FILES = (classifier.WEIGHTS, MODEL_FACTS, "history.csv")


def written(models: Path) -> list[bytes]:
    files = sorted(models.with_name(f"{models.name}-live").rglob("*.*"))
    live = [file for file in files if file.suffix in (".tsv", ".png")]
    return [(models / name).read_bytes() for name in FILES] + [file.read_bytes() for file in live]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("backbone", "after"),
    [
        ("lively", 3),
        pytest.param("lively", 1, marks=pytest.mark.slow),
        pytest.param("lively", 5, marks=pytest.mark.slow),
        pytest.param("backbone", 3, marks=pytest.mark.slow),
    ],
)
def test_it_goes_on_after_the_last_finished_epoch(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: str, after: int
) -> None:
    """Also with a backbone that normalizes and has dropout of its own; nor do the plots tell of it."""
    tiny.train(tmp_path / "unbroken", backbone, **SETTINGS)
    save, fitted = Backup.save, []

    def save_and_stop(backup: Backup, state: TrainingState) -> None:
        save(backup, state)
        fitted.append(len(state.rows))
        if len(fitted) == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(Backup, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        tiny.train(tmp_path / "resumed", backbone, **SETTINGS)
    assert not (tmp_path / "resumed").exists()
    tiny.train(tmp_path / "resumed", backbone, **SETTINGS)
    assert len(fitted) == SETTINGS["epochs"], "no epoch was trained twice"
    assert written(tmp_path / "resumed") == written(tmp_path / "unbroken")


def test_another_training_does_not_go_on_from_it(tiny: Tiny, tmp_path: Path, cache: Path) -> None:
    """The failing twin: other parameters are another training."""
    tiny.train(tmp_path / "first", **SETTINGS)
    assert list((cache / "training").iterdir()) == [], "what is finished needs no backup"
    place = checkpoint.place(["these facts"])
    assert place == checkpoint.place(["these facts"]) != checkpoint.place(["other facts"])
    assert place.is_relative_to(cache_folder())


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 and no more"])
def test_a_damaged_backup_begins_again(tmp_path: Path, damage: bytes) -> None:
    backup = Backup(tmp_path / "backup")
    assert backup.load() is None
    ones = [np.ones(3), np.zeros((2, 2), np.int64)]
    backup.save(TrainingState(ones, ones[:1], ones, [{"phase": "fine_tune", "epoch": 1}]))
    state = backup.load()
    assert state and state.rows == [{"phase": "fine_tune", "epoch": 1}]
    assert [list(map(str, group)) for group in (state.weights, state.optimizer)] == [
        list(map(str, ones)),
        list(map(str, ones[:1])),
    ]
    backup.file.write_bytes(damage)
    assert backup.load() is None


def test_a_bug_in_loading_is_no_retraining(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = Backup(tmp_path / "backup")
    backup.save(TrainingState([np.ones(3)], [], [], []))

    def broken(*_: Any, **__: Any) -> Any:
        raise TypeError("a bug")

    monkeypatch.setattr(np, "load", broken)
    with pytest.raises(TypeError, match="a bug"):
        backup.load()


def test_an_edit_of_any_code_that_trains_is_another_training(tmp_path: Path) -> None:
    """As in dvc.yaml; the rooms are folders, so that no list of files has holes."""
    deps = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text("utf-8"))["stages"]["train"]["deps"]
    code = {ROOT / dep for dep in deps if dep.startswith("tasks/")}
    assert set(checkpoint.CODE) == code
    room = tmp_path / "room"
    room.mkdir()
    places = []
    for text in ("one = 1", "one = 2"):
        (room / "module.py").write_text(text)
        places.append(checkpoint.place([], (room,)))
    assert places[0] != places[1]


def test_a_backup_that_nobody_went_on_with_does_not_stay_for_ever(tmp_path: Path) -> None:
    recent, old = tmp_path / "recent", tmp_path / "old"
    for file, age in ((recent, ABANDONED - 60), (old, ABANDONED + 60)):
        file.touch()
        os.utime(file, (time.time() - age,) * 2)
    Backup(tmp_path / "finished").forget()
    assert list(tmp_path.iterdir()) == [recent]


@pytest.mark.slow
def test_killed_at_ten_random_moments_it_ends_with_the_same_bytes(tiny: Tiny, tmp_path: Path) -> None:
    settings = SETTINGS | {"epochs": 30, "patience": 30}
    unbroken = tmp_path / "unbroken" / "models"
    finish(start(tiny, unbroken, backbone="lively", **settings))
    target, random, kills = tmp_path / "killed" / "models", np.random.default_rng(11), 0
    while kills < 10:
        process = start(tiny, target, backbone="lively", **settings)
        assert process.stdout
        # After some lines, or some epochs, that it prints; then at some moment of the next.
        lines = iter(process.stdout) if random.integers(4) == 0 else filter(EPOCH.search, process.stdout)
        for _ in islice(lines, int(random.integers(1, 5))):
            pass
        try:
            process.wait(random.uniform(0, 0.5))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        process.stdout.close()
        if process.returncode == 0:
            break
    assert kills >= 5, "it was killed often enough to tell"
    (printed,) = finish(start(tiny, target, backbone="lively", **settings))
    assert kills < 10 or "goes on after epoch" in printed
    assert written(target) == written(unbroken)
