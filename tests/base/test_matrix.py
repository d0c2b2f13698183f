"""Large matrices are mapped from disk: the same results, and no more memory for more rows."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tasks.core.backbones import logistic
from tasks.core.backbones.scaling import Scaling
from tasks.core.base import matrix
from tasks.core.base.matrix import blocks, new_matrix, take_rows
from tasks.core.training.feature_cache import Features

RNG = np.random.default_rng(1)
PEAK = """
import re, sys
from pathlib import Path
import numpy as np
from tasks.core.backbones.scaling import Scaling
from tasks.core.base.matrix import blocks, new_matrix

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1000

start, values = peak(), new_matrix(int(sys.argv[1]), 2000)
for (part,) in blocks(values):
    part[:] = 1
Scaling.of(values)
print(peak() - start)
"""


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Has even small matrices mapped, in blocks of a few rows."""
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(matrix, "BLOCK", 1000)


def moved(values: np.ndarray) -> np.ndarray:
    """The same values where `new_matrix` has them."""
    found = new_matrix(*values.shape)
    found[:] = values
    return found


@pytest.mark.usefixtures("mapped")
def test_a_head_on_mapped_features_is_that_on_features_in_memory() -> None:
    labels = np.arange(300) % 3
    values = RNG.normal(0, 1, (300, 12)).astype(np.float32)
    values[:, :3] += 2 * np.eye(3, dtype=np.float32)[labels]
    wrong = RNG.random(300) < 0.1
    layers = []
    for own in (values, moved(values)):
        kept = Features(own, labels).part(~wrong)
        assert kept.are_numbers
        seen = kept.values[:, :8]  # as those of the last layer are the first of all
        scaling = Scaling.of(seen)
        pair, others = (seen, kept.labels), (own[:60, :8], labels[:60])
        layers.append(logistic.choose_penalty(pair, others, np.ones(3), scaling=scaling).solve())
    assert len(list(blocks(moved(values)))) > 10
    for one, other in zip(*layers, strict=True):
        assert one == pytest.approx(other, abs=1e-3)


@pytest.mark.usefixtures("mapped")
def test_rows_are_taken_in_their_order() -> None:
    values, some = RNG.random((500, 7)).astype(np.float32), RNG.random(500) < 0.3
    assert np.array_equal(take_rows(moved(values), some), values[some])
    assert np.array_equal(take_rows(moved(values), np.flatnonzero(some)), values[some])
    assert sum(len(part) for part, _ in blocks(moved(values), some)) == 500


@pytest.mark.usefixtures("mapped")
def test_a_matrix_without_rows_has_an_empty_block() -> None:
    assert [part.shape for (part,) in blocks(np.empty((0, 5), np.float32))] == [(0, 5)]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the disk is asked for room otherwise")
@pytest.mark.usefixtures("mapped")
def test_no_room_on_the_disk_is_an_error_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        new_matrix(100, 100)


@pytest.mark.skipif(sys.platform != "linux", reason="its kernel keeps count")
def test_a_mapped_matrix_takes_no_more_memory_for_more_rows(tmp_path: Path) -> None:
    settings = os.environ | {"DARKROOM_CACHE": str(tmp_path)}

    def grown(rows: int) -> float:
        words = [sys.executable, "-c", PEAK, str(rows)]
        done = subprocess.run(words, check=True, capture_output=True, text=True, env=settings)
        return float(done.stdout)

    small, large = grown(30_000), grown(150_000)  # 240 and 1,200 MB
    assert large < 1.2 * small < 400, "a few blocks of 64 MB"
    assert not list(tmp_path.iterdir()), "a file without a name, gone with its process"
