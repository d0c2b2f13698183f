"""However many workers there are, wherever they are, and whatever befalls them: the same bytes come out."""

import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tasks import build
from tasks.check import Params
from tasks.core.base import params
from tasks.core.base.errors import WorkerError
from tasks.core.data import manifest, shards
from tasks.core.data.config import Processes
from tasks.core.data.parallel import MIN_SHARED_WORK, each
from tasks.core.data.parquet import write_parquet
from tasks.core.validation import scan
from tests import workers
from tests.images import ALONE, scanned, write_classes
from tests.live import free_ports
from tests.project import Project
from tests.structure import ROOT

TWO = Processes(2, "none")
SCRIPT = """\
from tasks import validate
from tasks.core.base import cli
from tasks.core.data import parallel
from tasks.core.validation import scan
from tests import workers

if __name__ == "__main__":
    parallel.MIN_SHARED_WORK = 0
    scan.describe = workers.die
    cli.stage(validate.main)
"""


@pytest.mark.slow
def test_stages_that_are_started_share_their_work_out(tmp_path: Path) -> None:
    """As DVC starts them: there a stage's module is `__main__`, whose names no other process finds."""
    write_classes(tmp_path / "pictures", count=MIN_SHARED_WORK // 3 + 1, size=(16, 16))
    project = Project.small(tmp_path)
    project.set(workers="2")
    for stage in ("validate", "build"):
        done = project.run(f"tasks.{stage}")
        assert done.returncode == 0, done.stdout
        assert f"{stage}: " in done.stdout
    assert len(list((project.folder / "data/dataset").glob("*.tfrecord"))) >= 3


@pytest.fixture(autouse=True)
def little_in_each_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few dozen images are work for many, in which each has much to do."""
    monkeypatch.setattr("tasks.core.data.parallel.MIN_SHARED_WORK", 0)
    monkeypatch.setattr(scan, "CHUNK", 5)
    monkeypatch.setattr(build, "PER_SHARD", 4)


class Place:
    """Images, what one process alone makes of them, and what others do."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        write_classes(folder / "pictures", count=20)
        (folder / "labels.csv").write_text("path,label\n")
        self.frame = self.scanned(ALONE)
        write_parquet(folder / "manifest.parquet", self.frame, manifest.SCHEMA)
        self.files = self.built(ALONE)

    def scanned(self, compute: Processes) -> pd.DataFrame:
        self._forget()
        return scanned(self.folder / "pictures", self.folder / "labels.csv", compute)

    def built(self, compute: Processes) -> dict[str, bytes]:
        self._forget()
        target = self.folder / "dataset"
        p = params.read(ROOT / "params.yaml", Params).build
        table = self.folder / "manifest.parquet"
        build.build(self.folder / "pictures", table, target, p, "efficientnet_lite0", 32, compute, {})
        return {path.name: path.read_bytes() for path in target.iterdir()}

    def _forget(self) -> None:
        """Has all to be done again."""
        self.monkeypatch.setenv("DARKROOM_CACHE", str(self.folder / f"cache {time.monotonic_ns()}"))

    @property
    def one_died(self) -> bool:
        return (self.folder / "died").exists()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


def test_two_processes_make_what_one_makes(place: Place) -> None:
    assert len(place.files) > 10
    pd.testing.assert_frame_equal(place.scanned(TWO), place.frame)
    assert place.built(TWO) == place.files


def test_a_process_killed_in_the_middle_of_a_scan_costs_a_retry(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "describe", workers.describe_dying_once)
    frame = place.scanned(TWO)
    assert place.one_died
    pd.testing.assert_frame_equal(frame, place.frame)


def test_a_process_killed_in_the_middle_of_a_file_costs_a_retry(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "write", workers.write_shard_dying_once)
    files = place.built(TWO)
    assert place.one_died
    assert files == place.files


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """Images and parameters, as a person has them."""
    text = (ROOT / "params.yaml").read_text("utf-8").replace("data/digits", "pictures")
    (tmp_path / "params.yaml").write_text(text, "utf-8")
    write_classes(tmp_path / "pictures", count=12)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/labels.csv").write_text("path,label\n")
    (tmp_path / "data/schema.yaml").touch()
    return tmp_path


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DARKROOM_CACHE": str(folder / "cache")}
    words = [sys.executable, *words]
    return subprocess.run(words, cwd=folder, env=environment, check=False, capture_output=True, text=True)


def set_compute(folder: Path, line: str, value: str) -> None:
    file = folder / "params.yaml"
    text = file.read_text("utf-8")
    assert f"  {line} " in text
    file.write_text(text.replace(f"  {line} ", f"  {value} "), "utf-8")


@pytest.mark.slow
def test_processes_that_always_die_are_one_line(workplace: Path) -> None:
    (workplace / "validate.py").write_text(SCRIPT)
    set_compute(workplace, "workers: 0", "workers: 2")
    done = run(["validate.py"], workplace)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("validate: processes were killed 3 times") and "compute.workers" in line


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_one_line_and_soon(workplace: Path) -> None:
    address = f"tcp://127.0.0.1:{free_ports()[0]}"
    set_compute(workplace, "scheduler: none", f"scheduler: {address}")
    start = time.monotonic()
    done = run(["-m", "tasks.validate"], workplace)
    assert time.monotonic() - start < 60
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("validate: compute.scheduler") and address in line and "'none'" in line


@contextmanager
def silent_server() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def web_server() -> Iterator[str]:
    """Answers everything with a page, as the proxies of offices do."""

    class Page(http.server.BaseHTTPRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" * 9)

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"tcp://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("server", [silent_server, web_server], ids=["silent", "web"])
def test_whatever_else_answers_is_no_cluster(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.core.data.parallel.ANSWER", 1)
    with server() as address, pytest.raises(WorkerError, match="no Dask scheduler answers"):
        list(each(workers.double, range(9), Processes(0, address)))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Dask cluster of two processes."""
    with workers.local_cluster(2) as cluster:
        yield cluster


def test_a_cluster_makes_what_one_process_makes(place: Place, cluster: Any) -> None:
    dask = Processes(0, cluster.scheduler_address)
    pd.testing.assert_frame_equal(place.scanned(dask), place.frame)
    assert place.built(dask) == place.files


@pytest.mark.slow  # `each` starts the work again alike for all work; the next test has a worker killed, too
def test_a_worker_of_a_cluster_killed_in_the_middle_of_a_scan_costs_a_retry(
    place: Place, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "describe", workers.describe_dying_once)
    frame = place.scanned(Processes(0, cluster.scheduler_address))
    assert place.one_died
    pd.testing.assert_frame_equal(frame, place.frame)


def test_a_worker_of_a_cluster_killed_in_the_middle_of_a_file_costs_a_retry(
    place: Place, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "write", workers.write_shard_dying_once)
    files = place.built(Processes(0, cluster.scheduler_address))
    assert place.one_died
    assert files == place.files
