"""Several devices, and several machines, learn what one does at the same batch."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tasks.core.training import classifier
from tests.apart import finish, start
from tests.live import free_ports
from tests.tiny import Tiny

TOLERANCE = 2e-4  # of a loss near 1: sums of float32 in another order
SETTINGS: dict[str, Any] = {"epochs": 3, "batch_size": 8, "refit": True, "class_weight": "auto"}
SETTINGS |= {"wrong_labels": "auto"}


@pytest.fixture(scope="module")
def alone(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    target = tmp_path_factory.mktemp("alone") / "models"
    (printed,) = finish(start(tiny, target, **SETTINGS))
    assert "replicas" not in printed
    return history(target)


def history(models: Path) -> pd.DataFrame:
    return pd.read_csv(models / "history.csv").set_index(["phase", "epoch"])


@pytest.mark.slow
def test_two_devices_learn_what_one_does(tiny: Tiny, tmp_path: Path, alone: pd.DataFrame) -> None:
    (printed,) = finish(start(tiny, tmp_path / "models", strategy="mirrored", devices=2, **SETTINGS))
    assert "2 replicas (MirroredStrategy)" in printed
    pd.testing.assert_frame_equal(history(tmp_path / "models"), alone, atol=TOLERANCE, rtol=0)


@pytest.mark.slow
def test_two_devices_that_normalize_go_on_after_an_interruption_to_the_same_bytes(
    tiny: Tiny, tmp_path: Path
) -> None:
    """Each has statistics of its own within an epoch, of which a backup holds the mean."""
    settings = SETTINGS | {"epochs": 8, "patience": 8, "learning_rate": 0.02}
    unbroken, resumed = (tmp_path / name / "models" for name in ("unbroken", "resumed"))
    two: dict[str, Any] = {"backbone": "lively", "strategy": "mirrored", "devices": 2}
    finish(start(tiny, unbroken, **two, **settings))
    kill_after_an_epoch(resumed, start(tiny, resumed, **two, **settings))
    (printed,) = finish(start(tiny, resumed, **two, **settings))
    assert "goes on after epoch" in printed
    for name in (classifier.WEIGHTS, "history.csv"):
        assert (resumed / name).read_bytes() == (unbroken / name).read_bytes()


def kill_after_an_epoch(target: Path, *processes: subprocess.Popen[str]) -> None:
    """Kills them once the first has written a backup."""
    backups = target.with_name("cache") / "training"
    while not any(backups.glob("[!.]*")) and processes[0].poll() is None:
        time.sleep(0.01)
    for process in processes:
        process.kill()
        process.communicate()
    assert any(backups.glob("[!.]*")) and not target.exists(), "it was interrupted after an epoch"


@pytest.mark.slow
@pytest.mark.parametrize("wrong_labels", ["auto", "keep"])
def test_two_workers_learn_what_one_does_and_one_of_them_writes(
    tiny: Tiny, tmp_path: Path, alone: pd.DataFrame, wrong_labels: str
) -> None:
    targets = [tmp_path / f"worker{place}" / "models" for place in range(2)]
    for printed in finish(*cluster(tiny, targets, wrong_labels=wrong_labels)):
        assert "2 replicas (CollectiveAllReduceStrategy)" in printed
        assert "mean of the tasks' numbers: [0.5]" in printed
    pd.testing.assert_frame_equal(history(targets[0]), alone, atol=TOLERANCE, rtol=0)
    pd.testing.assert_frame_equal(history(targets[0]), history(targets[1]), atol=0, rtol=0)


@pytest.mark.slow
def test_a_worker_that_knows_of_an_interrupted_training_does_not_wait_for_one_that_does_not(
    tiny: Tiny, tmp_path: Path, alone: pd.DataFrame
) -> None:
    """Each has a cache of its own here, and the first alone writes a backup: they begin again together."""
    targets = [tmp_path / f"worker{place}" / "models" for place in range(2)]
    kill_after_an_epoch(targets[0], *cluster(tiny, targets))
    printed = finish(*cluster(tiny, targets))
    assert not any("goes on after" in text for text in printed)
    pd.testing.assert_frame_equal(history(targets[0]), alone, atol=TOLERANCE, rtol=0)


def cluster(tiny: Tiny, targets: list[Path], **more: Any) -> list[subprocess.Popen[str]]:
    """Starts a worker for each target."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(len(targets))]
    tasks = [{"type": "worker", "index": place} for place in range(len(targets))]
    settings = [json.dumps({"cluster": {"worker": workers}, "task": task}) for task in tasks]
    return [
        start(tiny, target, strategy="auto", environment={"TF_CONFIG": text}, **SETTINGS | more)
        for target, text in zip(targets, settings, strict=True)
    ]


@pytest.mark.slow
def test_a_batch_that_the_devices_can_not_share_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    process = start(tiny, tmp_path / "models", strategy="mirrored", devices=2, batch_size=7)
    printed, _ = process.communicate()
    assert process.returncode != 0
    assert "train.batch_size is 7; 2 devices share each batch, so make it a multiple of 2" in printed
