"""Near hashes are found, all of them and no others, and neither time nor memory runs away."""

from collections.abc import Callable, Sized
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from tasks.core.data.manifest import MEASURES
from tasks.core.validation import near_duplicates
from tasks.core.validation.image_quality import measures
from tasks.core.validation.near_duplicates import Colours, Hashes, Places

# Some anywhere, some in one corner: random ones alone are never near each other.
anywhere, corner = st.integers(0, 2**64 - 1), st.integers(0, 2**10 - 1)
hash_sets = st.sets(st.one_of(anywhere, corner, corner.map(lambda low: low << 54)), max_size=40)


def grey(hashes: Sized) -> Colours:
    return np.full((len(hashes), 32), 128, np.uint8)


def by_brute_force(hashes: list[int], distance: int) -> set[frozenset[int]]:
    sets = {code: {code} for code in hashes}
    for one, other in combinations(hashes, 2):
        if (one ^ other).bit_count() <= distance and sets[one] is not sets[other]:
            sets[one] |= sets[other]
            for code in sets[other]:
                sets[code] = sets[one]
    return set(map(frozenset, sets.values()))


def by_number(hashes: list[int], numbers: npt.NDArray[np.intp]) -> set[frozenset[int]]:
    return {frozenset(members) for _, members in pd.Series(hashes, dtype=object).groupby(numbers)}


@settings(deadline=None, max_examples=300)
@given(hash_sets, st.integers(0, 16))
def test_the_sets_are_those_of_brute_force(codes: set[int], distance: int) -> None:
    hashes = sorted(codes)
    numbers = near_duplicates.near_sets(np.array(hashes, np.uint64), grey(hashes), distance)
    assert by_number(hashes, numbers) == by_brute_force(hashes, distance)


@pytest.mark.parametrize("block", [1, 50])
def test_they_are_so_in_small_blocks_too(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "BLOCK", block)
    hashes = np.random.default_rng(1).choice(2**11, 100, replace=False).tolist()
    for distance in (1, 2, 3):
        numbers = near_duplicates.near_sets(np.array(hashes, np.uint64), grey(hashes), distance)
        assert by_number(hashes, numbers) == by_brute_force(hashes, distance)


@dataclass
class Effort:
    """What finding the sets took: pairs compared, a block at a time, and searches for them."""

    blocks: list[int] = field(default_factory=list)
    searches: int = 0

    @property
    def total(self) -> int:
        """In comparisons."""
        return sum(self.blocks) + near_duplicates.SEARCH * self.searches


@pytest.fixture
def effort(monkeypatch: pytest.MonkeyPatch) -> Callable[[Hashes, int], Effort]:
    near, joined = near_duplicates._near, near_duplicates._join

    def taken(hashes: Hashes, distance: int) -> Effort:
        effort = Effort()

        def near_counted(hashes: Hashes, first: Places, *rest: Any) -> npt.NDArray[np.bool_]:
            effort.blocks.append(len(first))
            return near(hashes, first, *rest)

        def joined_counted(sets: Places, *rest: Any) -> Places:
            effort.searches += len(sets)
            return joined(sets, *rest)

        monkeypatch.setattr(near_duplicates, "_near", near_counted)
        monkeypatch.setattr(near_duplicates, "_join", joined_counted)
        near_duplicates.near_sets(hashes, grey(hashes), distance)
        return effort

    return taken


@pytest.mark.parametrize(("distance", "share"), [(4, 0.02), (8, 0.2)])
def test_ten_times_the_images_are_less_than_half_of_a_hundred_times_the_work(
    effort: Callable[[Hashes, int], Effort], distance: int, share: float
) -> None:
    few, many = (
        effort(np.random.default_rng(0).integers(0, 2**64, count, dtype=np.uint64), distance).total
        for count in (2_000, 20_000)
    )
    assert many < 50 * few
    assert many < share * 20_000**2 / 2, "of what comparing every pair takes"


def test_frames_of_one_scene_cost_little(effort: Callable[[Hashes, int], Effort]) -> None:
    """50,000 different hashes that agree in 48 of 64 bits: a thousand million pairs."""
    frames = np.arange(50_000, dtype=np.uint64)
    taken = effort(frames, 4)
    assert taken.total < 50_000**2 / 2 / 50
    assert max(taken.blocks) <= near_duplicates.PAIRS + len(frames), "memory stays small"


def test_hashes_of_one_bucket_that_are_not_near_are_compared_in_small_blocks(
    effort: Callable[[Hashes, int], Effort],
) -> None:
    few_bits_each = np.random.default_rng(0).choice(2**32, 4000, replace=False).astype(np.uint64)
    assert max(effort(few_bits_each, 4).blocks) <= near_duplicates.PAIRS + len(few_bits_each)


def test_fifty_thousand_black_frames_are_no_work_at_all() -> None:
    """Their hashes say nothing, so that only equal contents hang together."""
    digests = [f"{n // 2:064x}" for n in range(50_000)]
    looks = {"phash": "0" * 16, "chroma": "80" * 32, "width": 64, "height": 64}
    frames = pd.DataFrame({"sha256": digests, **looks})
    frames[list(MEASURES)] = 0.0
    frames["brightness"] = np.arange(50_000) // 2 / 1e6  # of each content its own black
    everywhere = pd.Series(True, frames.index)
    sets = near_duplicates.near_duplicates(frames, 4, telling=~everywhere, small=~everywhere)
    assert sets.nunique() == 25_000
    assert near_duplicates.near_duplicates(frames, 4, telling=everywhere, small=~everywhere).nunique() == 1


def flag(*stripes: tuple[int, int]) -> Image.Image:
    """One drawing in grey, and upright stripes of these Cb and Cr."""
    grey = np.random.default_rng(0).integers(60, 200, (6, 6), np.uint8)
    drawing = Image.fromarray(grey).resize((96, 96), Image.Resampling.BICUBIC)
    colours = np.repeat(np.array(stripes, np.uint8)[None], 96, 0).repeat(96 // len(stripes), 1)
    bands = (drawing, *(Image.fromarray(colours[..., band].copy()) for band in (0, 1)))
    return Image.merge("YCbCr", bands).convert("RGB")


def sets_of(*images: Image.Image) -> list[int]:
    """The number of each image's set of near-duplicates, from 0 in the order in which they come."""
    rows = [measures(image) | {"sha256": str(n), "width": 96, "height": 96} for n, image in enumerate(images)]
    frame = pd.DataFrame(rows)
    everywhere = pd.Series(True, frame.index)
    found = near_duplicates.near_duplicates(frame, 4, telling=everywhere, small=~everywhere)
    return pd.factorize(found)[0].tolist()


RED, GREEN, BLUE, PLAIN = (110, 180), (110, 90), (180, 110), (128, 128)


def test_images_of_one_drawing_in_other_colours_are_different_images() -> None:
    france, italy, other = flag(BLUE, PLAIN, RED), flag(GREEN, PLAIN, RED), flag(BLUE, PLAIN, GREEN)
    hashes = [int(str(measures(one)["phash"]), 16) for one in (france, italy, other)]
    assert max((hashes[0] ^ code).bit_count() for code in hashes) <= 4, "or the colours say nothing here"
    assert sets_of(france, italy, other) == [0, 1, 2]


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((48, 48)),
        lambda image: image.convert("L").convert("RGB"),
        lambda image: ImageEnhance.Color(image).enhance(0.8),
        lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    ],
)
def test_a_copy_in_slightly_other_colours_or_in_grey_is_a_near_duplicate(
    change: Callable[[Image.Image], Image.Image],
) -> None:
    original = flag(BLUE, PLAIN, RED)
    assert sets_of(original, change(original)) == [0, 0]
