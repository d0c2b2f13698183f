"""A Dask cluster that can't do the work says so in one line, and keeps no one waiting."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.core.base.errors import WorkerError
from tasks.core.data.config import Processes
from tasks.core.data.parallel import each
from tests import workers

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A Dask scheduler without workers."""
    with workers.local_cluster(0) as cluster:
        yield cluster


def doubled(cluster: Any) -> Iterator[int]:
    return each(workers.double, range(2000), Processes(0, cluster.scheduler_address))


def test_no_workers(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.core.data.parallel.ANSWER", 1)
    with pytest.raises(WorkerError, match=r"no workers; start them .* dask worker tcp://"):
        list(doubled(cluster))


def test_a_worker_from_another_folder(cluster: Any, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "dask", "worker", cluster.scheduler_address, "--no-dashboard"]
    worker = subprocess.Popen([*words, "--no-nanny"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        with pytest.raises(WorkerError, match="a worker that does not find our code"):
            list(doubled(cluster))
    finally:
        worker.terminate()
        worker.wait()


def test_workers_that_always_die(cluster: Any) -> None:
    cluster.scale(2)
    with pytest.raises(WorkerError, match="died again and again"):
        list(each(workers.die, range(4), Processes(0, cluster.scheduler_address)))


def test_a_single_worker_does_the_work_itself(cluster: Any) -> None:
    cluster.scale(1)
    ids = set(each(workers.process, range(20), Processes(0, cluster.scheduler_address)))
    assert len(ids) == 1 and os.getpid() not in ids


def test_a_scheduler_that_is_lost(cluster: Any) -> None:
    cluster.scale(1)
    results = doubled(cluster)
    assert next(results) == 0
    cluster.sync(cluster.scheduler.close)
    with pytest.raises(WorkerError, match="was lost"):
        list(results)
