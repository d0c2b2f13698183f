"""A SavedModel that takes bytes reads an image as training did: turned, on white, of the same size."""

import functools
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from sklearn.datasets import load_sample_image

from tasks.core.artifacts import decode_graph, golden, runtimes
from tasks.core.backbones.tensorflow_setup import tf
from tasks.core.base.contract import Contract, Resize
from tasks.core.data import image_io
from tasks.core.data.image_io import Pixels

PHOTOGRAPH = Image.fromarray(load_sample_image("flower.jpg")).resize((203, 151))
SIDE = 64
NOWHERE = Path("picture")


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def fading(image: Image.Image) -> Image.Image:
    alpha = np.tile(np.linspace(0, 255, image.width).astype(np.uint8), (image.height, 1))
    faded = image.convert("RGBA")
    faded.putalpha(Image.fromarray(alpha))
    return faded


@functools.cache
def graph(how: Resize) -> Any:
    """Traced once for all tests, which takes seconds."""
    contract = Contract(("a", "b"), SIDE, how)
    return tf.function(lambda strings: decode_graph.images(strings, contract))


def in_graph(data: bytes, how: Resize = "stretch") -> Pixels:
    pixels: Pixels = np.round(graph(how)(tf.constant([data]))[0].numpy() * 255).astype(np.uint8)
    return pixels


def farthest(data: bytes, how: Resize = "stretch") -> int:
    """The largest difference from our own way to read it, in steps of colour."""
    ours = image_io.pixels(data, NOWHERE, SIDE, how).astype(int)
    return int(np.abs(ours - in_graph(data, how)).max())


@pytest.mark.parametrize("how", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("turn", [None, Image.Transpose.ROTATE_90])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_image_is_fitted_as_by_our_own_reader(how: Resize, turn: Any, kind: str) -> None:
    image = PHOTOGRAPH if turn is None else PHOTOGRAPH.transpose(turn)
    assert farthest(encoded(image, kind), how) <= 2


def test_a_small_image_is_enlarged_as_by_our_own_reader() -> None:
    assert farthest(encoded(PHOTOGRAPH.resize((11, 8)), "PNG")) <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("endian", ["<", ">"])
def test_exif_turns_it(orientation: int, endian: str) -> None:
    exif = Image.Exif()
    exif.endian = endian
    exif[ExifTags.Base.Make] = "A camera"
    exif[ExifTags.Base.Orientation] = orientation
    data = encoded(PHOTOGRAPH, exif=exif.tobytes())
    assert Image.open(BytesIO(data)).getexif()[ExifTags.Base.Orientation] == orientation
    assert farthest(data) <= 2
    if orientation > 1:
        upright = in_graph(encoded(PHOTOGRAPH)).astype(int)
        assert np.abs(upright - in_graph(data)).max() > 50, "its failing twin: unturned it is another image"


@pytest.mark.parametrize(
    "broken",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff\1\0",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\1",
        b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\x63\0\0",
    ],
)
def test_broken_exif_turns_nothing(broken: bytes) -> None:
    plain = encoded(PHOTOGRAPH)
    segment = b"\xff\xe1" + (len(broken) + 2).to_bytes(2, "big") + broken
    assert np.array_equal(in_graph(plain[:2] + segment + plain[2:]), in_graph(plain))


@pytest.mark.parametrize(
    "image",
    [*(PHOTOGRAPH.convert(mode) for mode in ("L", "LA", "P", "1")), fading(PHOTOGRAPH)],
    ids=["grey", "grey with alpha", "palette", "bits", "transparent"],
)
def test_modes_of_png_are_read_alike(image: Image.Image) -> None:
    assert farthest(encoded(image, "PNG")) <= 2


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_grey_of_few_bits_is_read_alike(depth: int) -> None:
    grey = np.asarray(PHOTOGRAPH.convert("L").crop((0, 0, 200, 150)))
    levels = (grey.astype(int) * (2**depth - 1) // 255).astype(np.uint8)
    data = little_png(levels, depth)
    with Image.open(BytesIO(data)) as image:
        assert image.size == (200, 150)
    assert farthest(data) <= 2


def little_png(levels: Pixels, depth: int) -> bytes:
    """A grey PNG of 1, 2 or 4 bits, which Pillow reads and can't write."""
    bits = np.unpackbits(levels[..., None], axis=-1)[..., 8 - depth :].reshape(len(levels), -1)
    rows = np.packbits(bits, axis=1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    height, width = levels.shape
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("colours", [2, 4, 16])
@pytest.mark.parametrize("transparent", [False, True])
def test_palettes_of_few_colours_are_read_alike(colours: int, transparent: bool) -> None:
    options = {"transparency": 0} if transparent else {}
    data = encoded(PHOTOGRAPH.quantize(colours), "PNG", bits=colours.bit_length() - 1, **options)
    assert farthest(data) <= 2


@pytest.mark.parametrize(
    ("depth", "level"),
    [(1, 0), (1, 1), (2, 0), (2, 1), (2, 3), (2, 4 + 1), (4, 0), (4, 9), (4, 15)],  # of 4 + 1, two bits count
)
def test_grey_of_few_bits_with_transparency_is_read_alike(depth: int, level: int) -> None:
    levels = (np.asarray(PHOTOGRAPH.convert("L"))[:150, :200] >> (8 - depth)).astype(np.uint8)
    plain = little_png(levels, depth)
    chunk = b"tRNS" + struct.pack(">H", level)
    cut = plain.index(b"IDAT") - 4
    data = plain[:cut] + struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk)) + plain[cut:]
    assert Image.open(BytesIO(data)).has_transparency_data
    assert farthest(data) <= 2


@pytest.mark.parametrize("level", [0, 77, 40_000, 65_535])
def test_grey_of_16_bits_with_transparency_is_read_alike(level: int) -> None:
    """Half of a picture is of the level that is transparent, the other of one beside it, of the same byte."""
    rows = np.repeat([level, level ^ 1], SIDE // 2).astype(np.uint16)
    data = encoded(Image.fromarray(np.tile(rows[:, None], SIDE)), "PNG", transparency=level)
    assert farthest(data) <= 2
    assert in_graph(data)[0].min() == 255
    assert in_graph(data)[-1].max() == round(level / 257)


@pytest.mark.parametrize("orientation", [3, 6])
def test_exif_turns_png_too(orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    assert farthest(encoded(PHOTOGRAPH, "PNG", exif=exif)) <= 2


def test_an_orientation_of_four_bytes_counts() -> None:
    tiff = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\4\0\0\0\1\0\0\0\6\0\0\0\0"
    plain = encoded(PHOTOGRAPH)
    body = b"Exif\0\0" + tiff
    data = plain[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + plain[2:]
    assert Image.open(BytesIO(data)).getexif()[ExifTags.Base.Orientation] == 6
    assert farthest(data) <= 2


def tag(kind: int, count: int, value: bytes) -> bytes:
    """A directory of one tag, the orientation."""
    entry = struct.pack("<HHI", ExifTags.Base.Orientation, kind, count) + value
    return b"\x08\0\0\0\1\0" + entry + bytes(4)


def in_jpeg(exif: bytes, before: bytes = b"") -> bytes:
    plain = encoded(PHOTOGRAPH)
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    return plain[:2] + before + segment + plain[2:]


SIX = tag(3, 1, b"\6\0\0\0")


@pytest.mark.parametrize("head", [b"II*\0", b"II\0*", b"XX*\0", b"IM*\0", b"II\0\0", b"II+\0", b"II**"])
@pytest.mark.parametrize("marks", [1, 2, 3])
def test_exif_counts_if_it_begins_as_pillow_wants_it(head: bytes, marks: int) -> None:
    assert farthest(in_jpeg(b"Exif\0\0" * marks + head + SIX)) <= 2


@pytest.mark.parametrize("kind", [0, 1, 3, 4, 5, 7, 8, 9, 11, 13, 99])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_an_orientation_counts_if_it_is_of_a_type_that_pillow_takes(kind: int, count: int) -> None:
    assert farthest(in_jpeg(b"Exif\0\0II*\0" + tag(kind, count, b"\6\0\0\0"))) <= 2


def test_of_two_orientations_the_first_counts() -> None:
    two = b"\x08\0\0\0\2\0" + (SIX[6:18].replace(b"\6", b"\3") + SIX[6:18]) + bytes(4)
    assert farthest(in_jpeg(b"Exif\0\0II*\0" + two)) <= 2


def test_exif_ends_with_its_segment() -> None:
    cut = in_jpeg(b"Exif\0\0II*\0" + SIX[:-14])
    place = cut.index(SIX[:-14]) + len(SIX) - 14
    comment = b"\xff\xfe\0\x0c"
    assert farthest(cut[:place] + comment + bytes(10) + cut[place:]) <= 2


def test_what_a_comment_says_of_exif_is_none() -> None:
    text = b"Exif\0\0II*\0" + SIX.replace(b"\6", b"\3")
    comment = b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text
    assert farthest(in_jpeg(b"Exif\0\0II*\0" + SIX, comment)) <= 2


@pytest.mark.parametrize("marks", [0, 1, 2])
def test_exif_of_a_png_may_begin_as_that_of_a_jpeg_does(marks: int) -> None:
    """As ImageMagick and old programs write it."""
    plain = encoded(PHOTOGRAPH, "PNG")
    chunk = b"eXIf" + b"Exif\0\0" * marks + b"II*\0" + SIX
    data = (
        plain[:33]
        + struct.pack(">I", len(chunk) - 4)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + plain[33:]
    )
    assert farthest(data) <= 2


def test_a_grey_jpeg_is_read_as_colour() -> None:
    assert farthest(encoded(PHOTOGRAPH.convert("L"))) <= 2


@pytest.mark.parametrize("marker", ["none", "CMYK", "YCCK"])
def test_a_jpeg_of_four_colours_is_read_alike_whether_or_not_adobe_marked_it(marker: str) -> None:
    data = encoded(PHOTOGRAPH.convert("CMYK"))
    start, transform = data.index(b"\xff\xee"), data.index(b"Adobe") + 11
    if marker == "none":
        data = data[:start] + data[transform + 1 :]
    elif marker == "YCCK":
        data = data[:transform] + b"\2" + data[transform + 1 :]
    assert (b"Adobe" in data) == (marker != "none")
    assert farthest(data) <= 2


MODES = (*golden.PLAIN, "I;16")


@given(
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.sampled_from(MODES),
    st.sampled_from(["PNG", "JPEG"]),
    st.sampled_from(["stretch", "crop", "pad"]),
    st.booleans(),
)
@example(3000, 10, "RGB", "PNG", "pad", True)
@example(5000, 1, "RGB", "JPEG", "pad", True)
@example(1, 5000, "L", "PNG", "crop", False)
@example(1, 1, "P", "PNG", "stretch", False)
@settings(max_examples=150, deadline=None)
def test_every_reader_reads_every_size_and_mode_alike(
    width: int, height: int, mode: str, kind: str, how: Resize, white: bool
) -> None:
    """Training's, that of the runtimes, and the SavedModel's."""
    height = min(height, max(1, 300_000 // width))  # an image of all sizes takes a tenth of a second
    random = np.random.default_rng(width * height)
    values = np.full((height, width, 4), 255) if white else random.integers(0, 256, (height, width, 4))
    image = Image.fromarray(values.astype(np.uint8), "RGBA")
    if kind == "JPEG":
        mode = "L" if mode in ("L", "LA", "1", "I;16") else "RGB"
    if mode == "I;16":
        image = Image.fromarray((values[..., 0] * 257).astype(np.uint16))
    else:
        image = image.convert(mode)
    data = encoded(image, kind)
    assert farthest(data, how) <= 2
    contract = {"image_size": SIDE, "resize": how}
    if mode in golden.PLAIN:
        assert np.array_equal(runtimes.pixels(data, contract), image_io.pixels(data, NOWHERE, SIDE, how))
    if white:
        assert in_graph(data, how).max() >= 254  # a palette has another white


def test_images_of_several_sizes_make_one_batch() -> None:
    contract = Contract(("a", "b"), SIDE, "pad")
    data = [encoded(PHOTOGRAPH), encoded(PHOTOGRAPH.resize((40, 90)), "PNG")]
    assert decode_graph.images(tf.constant(data), contract).shape == (2, SIDE, SIDE, 3)
