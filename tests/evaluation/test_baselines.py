"""What the rules that every model is compared with look at, and say."""

import numpy as np
import pytest

from tasks.core.evaluation import baselines
from tasks.core.evaluation.baselines import LEVELS, SAMPLED


def place(red: int, green: int, blue: int) -> int:
    """Of a colour in a histogram, by the levels of its channels."""
    return (red * LEVELS + green) * LEVELS + blue


def test_a_histogram_has_the_roots_of_the_shares_of_colours() -> None:
    small = np.zeros((1, 4, 4, 3), np.uint8)
    small[0, 1, 1], small[0, 3, 0] = (255, 64, 0), (0, 63, 128)  # levels end at 64, 128 and 192
    (found,) = baselines.histograms([small])
    expected = {place(0, 0, 0): 14 / 16, place(3, 1, 0): 1 / 16, place(0, 0, 2): 1 / 16}
    assert found.shape == (LEVELS**3,)
    assert {int(key): float(found[key] ** 2) for key in np.flatnonzero(found)} == pytest.approx(expected)


def test_of_a_large_image_a_grid_of_pixels_is_looked_at() -> None:
    side = 2 * SAMPLED
    large = np.zeros((2, side, side, 3), np.uint8)
    large[1, 1::2] = 255  # rows between those of the grid
    assert np.array_equal(*baselines.histograms([large]))


def test_colours_tell_classes_of_colours_and_one_class_alone_is_said() -> None:
    red, blue = (np.full((5, 8, 8, 3), colour, np.uint8) for colour in ([250, 0, 0], [0, 0, 250]))
    features, labels = baselines.histograms([red, blue]), np.repeat([0, 1], 5)
    assert baselines.colours(features, labels, features[::-1]).tolist() == [1] * 5 + [0] * 5
    assert baselines.colours(features, np.zeros(10, int), features[:2]).tolist() == [0, 0]
