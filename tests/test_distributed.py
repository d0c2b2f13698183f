"""Several devices, and several machines, learn what one does at the same batch."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.apart import finish, start
from tests.conftest import Tiny

TOLERANCE = 2e-4  # of a loss near 1: sums of float32 in another order
SETTINGS: dict[str, Any] = {"epochs": 3, "batch_size": 8, "head_epochs": 2}


@pytest.fixture(scope="module")
def alone(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    target = tmp_path_factory.mktemp("alone") / "models"
    (printed,) = finish(start(tiny, target, **SETTINGS))
    assert "replicas" not in printed
    return history(target)


def history(models: Path) -> pd.DataFrame:
    return pd.read_csv(models / "history.csv").set_index(["phase", "epoch"])


def test_two_devices_learn_what_one_does(tiny: Tiny, tmp_path: Path, alone: pd.DataFrame) -> None:
    (printed,) = finish(start(tiny, tmp_path / "models", strategy="mirrored", devices=2, **SETTINGS))
    assert "2 replicas (MirroredStrategy)" in printed
    pd.testing.assert_frame_equal(history(tmp_path / "models"), alone, atol=TOLERANCE, rtol=0)


@pytest.mark.slow
def test_two_workers_learn_what_one_does_and_one_of_them_writes(
    tiny: Tiny, tmp_path: Path, alone: pd.DataFrame
) -> None:
    ports = free_ports(2)
    workers = [f"127.0.0.1:{port}" for port in ports]
    targets = [tmp_path / f"worker{place}" / "models" for place in range(2)]
    processes = []
    for place, target in enumerate(targets):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": place}}
        environment = {"TF_CONFIG": json.dumps(task)}
        processes.append(start(tiny, target, strategy="auto", environment=environment, **SETTINGS))
    for printed in finish(*processes):
        assert "2 replicas (CollectiveAllReduceStrategy)" in printed
    pd.testing.assert_frame_equal(history(targets[0]), alone, atol=TOLERANCE, rtol=0)
    pd.testing.assert_frame_equal(history(targets[0]), history(targets[1]), atol=0, rtol=0)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def test_a_batch_that_the_devices_can_not_share_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    process = start(tiny, tmp_path / "models", strategy="mirrored", devices=2, batch_size=7)
    printed, _ = process.communicate()
    assert process.returncode != 0
    assert "train.batch_size is 7; 2 devices share each batch, so make it a multiple of 2" in printed
