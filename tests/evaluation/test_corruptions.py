"""Corruptions harm an image more with each severity, alike each time, and nothing else of it."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from tasks.core.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt

IMAGES = np.stack(
    [
        np.asarray(Image.fromarray(load_sample_image(name)).resize((96, 96)))
        for name in ("china.jpg", "flower.jpg")
    ]
)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_severity_harms_more_and_keeps_the_shape(name: str) -> None:
    harm = []
    for severity in SEVERITIES:
        found = corrupt(IMAGES, name, severity, 1)
        assert found.shape == IMAGES.shape
        assert found.dtype == np.uint8
        harm.append(np.abs(found.astype(int) - IMAGES).mean())
    assert 0 < harm[0] < harm[1] < harm[2] < 80


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_seed_decides_and_the_place_of_others_does_not(name: str) -> None:
    once, again = (corrupt(IMAGES, name, 2, 1) for _ in range(2))
    assert np.array_equal(once, again)
    assert np.array_equal(corrupt(IMAGES[:1], name, 2, 1)[0], once[0])
    if name in ("brightness", "noise", "rotation"):
        assert any(not np.array_equal(corrupt(IMAGES, name, 2, seed), once) for seed in range(2, 8))


def test_brightness_goes_both_ways_and_contrast_keeps_the_mean() -> None:
    grey = np.full((20, 8, 8, 3), 128, np.uint8)
    assert set(corrupt(grey, "brightness", 2, 1).reshape(20, -1)[:, 0]) == {77, 179}
    assert abs(corrupt(IMAGES, "contrast", 3, 1).mean() - IMAGES.mean()) < 1


def test_a_turned_image_has_no_black_corners() -> None:
    white = np.full((1, 64, 64, 3), 255, np.uint8)
    assert corrupt(white, "rotation", 3, 1).min() == 255


def test_an_image_is_turned_by_the_degrees_that_are_told_to_either_side() -> None:
    halves = np.zeros((12, 96, 96, 3), np.uint8)
    halves[:, :, 48:] = 255
    for severity, degrees in zip(SEVERITIES, (5, 10, 15), strict=True):
        edges = (corrupt(halves, "rotation", severity, 1)[..., 0] < 128).sum(axis=2)
        found = np.degrees(np.arctan((edges[:, 84] - edges[:, 12]) / 72))
        assert np.allclose(np.abs(found), degrees, atol=1)
        assert len(set(np.sign(found))) == 2
