"""Linear probes take images that serve, and choose the size that pays."""

from pathlib import Path

import numpy as np
import pytest

from tasks.core.backbones import probe
from tasks.core.backbones.probe import MOST, PER_CLASS, Probe, choose_size, probe_sizes, sample
from tests.backbone import save_tiny_backbone


def test_as_many_of_each_class_are_looked_at() -> None:
    labels = np.repeat([0, 1, 2], [5000, 4000, 300])
    assert np.bincount(labels[sample(labels)]).tolist() == [MOST // 3, MOST // 3, 300]


def test_of_many_classes_some_are_looked_at_and_of_a_single_image_none() -> None:
    labels = np.concatenate([np.arange(1000).repeat(3), np.arange(1000, 1500)])
    seen = labels[sample(labels)]
    counts = np.bincount(seen)
    assert set(counts) == {0, 3} and seen.max() < 1000
    assert len(np.unique(seen)) == len(labels) * probe.SHARE // PER_CLASS
    assert not len(sample(np.arange(100))), "one image of each class"
    assert not len(sample(np.zeros(100, int))), "one class"
    assert not len(sample(np.arange(30) % 2)), "too few"


def seen(size: int, loss: float, noise: float = 0.1) -> Probe:
    losses = loss + np.random.default_rng(size).normal(0, noise, 400)
    return Probe(size, losses > 0, losses - losses.mean() + loss, 1.0)


def chosen(*probes: Probe) -> tuple[int, int]:
    """The size, and how many were looked at."""
    best, looked_at = choose_size(iter(probes))
    return best.size, len(looked_at)


def test_a_larger_size_must_pay() -> None:
    assert chosen(seen(64, 1.0), seen(128, 0.9), seen(224, 0.8)) == (224, 3)
    assert chosen(seen(64, 1.0), seen(128, 0.97), seen(224, 0.96)) == (64, 3), "by too little"
    assert chosen(seen(64, 1.0), seen(128, 0.97), seen(224, 0.85)) == (224, 3), "a small step first"
    assert chosen(seen(64, 1.0), seen(128, 1.01), seen(224, 0.1)) == (64, 2), "and ends where it gets worse"
    assert chosen(seen(64, 1.0, noise=9), seen(128, 0.9, noise=9)) == (64, 2), "or that may be chance"
    assert chosen(seen(64, 0.01, noise=0), seen(128, 0.005, noise=0)) == (64, 2), "nothing is left to gain"


def test_the_size_at_which_a_backbone_tells_classes_apart_is_found(tmp_path: Path) -> None:
    """Fine stripes, upright or lying, are an even grey where they are made small."""
    save_tiny_backbone(tmp_path / "backbone")
    labels = np.arange(120) % 2
    rng = np.random.default_rng(0)

    def images(size: int) -> np.ndarray:
        stripes = np.zeros((120, size, size, 3))
        stripes[labels == 1] += 20 * (size == 64)
        return (100 + stripes + rng.normal(0, 10, (120, 1, 1, 3))).clip(0, 255).astype(np.uint8)

    found = list(probe_sizes(str(tmp_path / "backbone"), [32, 64], images, labels))
    assert [each.size for each in found] == [32, 64]
    assert found[0].accuracy < 0.7 < found[1].accuracy
    assert len(found[0].losses) == len(found[0].hits) == 120 and found[0].milliseconds > 0
    assert choose_size(iter(found))[0].size == 64


def test_features_are_kept_by_images_and_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))
    save_tiny_backbone(tmp_path / "one")
    save_tiny_backbone(tmp_path / "other", lively=True)
    labels = np.arange(40) % 2

    def look(name: str, brightness: int) -> int:
        """How many files of features there are then."""
        pixels = np.full((40, 32, 32, 3), brightness, np.uint8)
        list(probe_sizes(str(tmp_path / name), [32], lambda _: pixels, labels))
        return len(list((tmp_path / "cache/features").iterdir()))

    assert [look("one", 1), look("one", 1), look("one", 2), look("other", 2), look("one", 2)] == [
        1,
        1,
        2,
        3,
        3,
    ]
