"""What there is to measure in an image: quality, and a perceptual hash.

The definitions of quality are CleanVision's (cleanlab, 2022), so that its thresholds serve. Colours
are measured on a sample of the pixels and edges on a reduced copy, so that a scan costs little more than
decoding does.

Another kind of CPU sums in another order: so sums are of whole numbers or in 64 bits, and rounded.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

SAMPLE = 128  # pixels of the longer side from which colours are measured
EDGES = 64  # pixels of the longer side on which edges are looked for
HASH_SIDE, HASH_LOW = 32, 8  # the hash is of the lowest 8 x 8 frequencies of an image of 32 x 32
CHROMA_SIDE = 4  # cells of each side in which the mean colour is kept
PERCEIVED = np.outer((241, 691, 68), np.arange(256) ** 2).astype(
    np.int32
)  # of red, green and blue, in thousandths
GREY_MODES = frozenset({"1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"})

_COSINES = np.cos(np.pi / HASH_SIDE * np.outer(np.arange(HASH_LOW), np.arange(HASH_SIDE) + 0.5))


def measures(rgb: Image.Image, mode: str = "RGB") -> dict[str, float | str]:
    """Measures a decoded image.

    Args:
        mode: of the file, as Pillow names it; grey images have one band's entropy and not three.

    Returns:
        brightness: mean of sqrt(0.241 R² + 0.691 G² + 0.068 B²), 0-1 (Finley, HSP, 2006).
        contrast: its standard deviation, 0-0.5.
        saturation: mean of HSV's S, 0-1.
        sharpness: standard deviation of the edges (Pillow's FIND_EDGES) at 64 pixels, 0 up.
        entropy: Shannon entropy of the histogram of all bands: grey 0-8 bits, colour up to 9.58.
        brightness_p05, brightness_p99: the 5th and 99th percentile of brightness, 0-1; an image whose
            brightest pixels are dark is dark, one whose darkest pixels are light is light.
        blur_score: 0 (blurry) to 1: `sharpness`, eased for histograms of few tall peaks.
        phash: 64-bit perceptual hash of the grey image as 16 hex digits (Zauner, 2010).
        chroma: what the hash doesn't see: the mean Cb and Cr of 4 x 4 cells, 64 hex digits.
    """
    sample = _at_most(rgb, SAMPLE, Image.Resampling.NEAREST)
    bands = np.asarray(sample).reshape(-1, 3).T.copy()  # apart, which NumPy works on with vectors
    brightness = _brightness(bands)
    p05, p99 = _percentiles(brightness, 5, 99)
    small = _shrink(rgb)
    edged = _at_most(small.convert("L"), EDGES, Image.Resampling.BICUBIC)
    sharpness = _std(edged.filter(ImageFilter.FIND_EDGES))
    numbers = {
        "brightness": brightness.mean(dtype=np.float64),
        "contrast": brightness.std(dtype=np.float64),
        "saturation": _saturation(bands),
        "sharpness": sharpness,
        "entropy": (sample.convert("L") if mode in GREY_MODES else sample).entropy(),
        "brightness_p05": p05,
        "brightness_p99": p99,
        "blur_score": _blur_score(sharpness, float(np.std(edged.histogram()))),
    }
    hashes = {"phash": phash(edged), "chroma": chroma(small)}
    return {name: round(float(number), 6) for name, number in numbers.items()} | hashes


def _at_most(image: Image.Image, side: int, how: Image.Resampling) -> Image.Image:
    """A copy whose longer side has `side` pixels, or the image itself where it is no larger."""
    ratio = max(image.size) / side
    if ratio <= 1:
        return image
    return image.resize((max(1, int(image.width / ratio)), max(1, int(image.height / ratio))), how)


def _shrink(image: Image.Image) -> Image.Image:
    """Averages blocks of pixels, which is quick, and leaves half as much again as edges need."""
    factor = 2 * max(image.size) // (3 * EDGES)
    return image.reduce(factor) if factor > 1 else image


def _percentiles(values: npt.NDArray[np.floating[Any]], *percents: int) -> list[float]:
    """The value below which that share lies, without interpolation, which would cost many times more."""
    ordered = np.sort(values)  # which NumPy does with vectors, other than `np.partition` for several places
    return [float(ordered[round(percent / 100 * (len(values) - 1))]) for percent in percents]


def _std(grey: Image.Image) -> float:
    """Standard deviation of the pixels, from whole sums: a quarter of `ImageStat`'s time."""
    values = np.frombuffer(grey.tobytes(), np.uint8).astype(np.int64)
    total = float(values.sum())
    return float(((values @ values - total**2 / len(values)) / len(values)) ** 0.5)


def _brightness(bands: npt.NDArray[np.uint8]) -> npt.NDArray[np.floating[Any]]:
    squares = sum(weighed.take(band) for weighed, band in zip(PERCEIVED, bands, strict=True))
    return np.sqrt(np.asarray(squares, np.float32)) / np.float32(255 * 1000**0.5)


def _saturation(bands: npt.NDArray[np.uint8]) -> float:
    red, green, blue = bands
    high = np.maximum(np.maximum(red, green), blue)
    low = np.minimum(np.minimum(red, green), blue)
    return float(((high - low).astype(np.float32) / np.maximum(high, 1)).mean(dtype=np.float64))


def _blur_score(sharpness: float, histogram_std: float) -> float:
    eased = 1 - np.exp(-histogram_std / 100)
    return float(min(1 - np.exp(-sharpness / 100) + (eased if eased > 0.18 else 0), 1))


def phash(grey: Image.Image) -> str:
    """The signs of an image's lowest frequencies about their median, in 16 hex digits.

    It is ImageHash's `phash`, at a fifth of its time: only 64 of the 1,024 frequencies are computed.
    """
    square = np.asarray(grey.resize((HASH_SIDE, HASH_SIDE), Image.Resampling.LANCZOS), np.float64)
    low = np.round(_COSINES @ square @ _COSINES.T, 6)  # or a flat image would hash what is left of rounding
    middle = np.sort(low, axis=None)[low.size // 2 - 1 :][:2].mean()  # `np.median` at a third of its time
    return np.packbits(low > middle).tobytes().hex()


def chroma(rgb: Image.Image) -> str:
    """The mean Cb and Cr (of JPEG's YCbCr, 0-255) of each of 4 x 4 cells, row by row, in 64 hex digits."""
    cells = rgb.resize((CHROMA_SIDE, CHROMA_SIDE), Image.Resampling.BOX).convert("YCbCr")
    return np.asarray(cells)[..., 1:].tobytes().hex()
