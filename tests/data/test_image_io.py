"""Whatever a camera or a tool writes is read as the same upright RGB, or refused in one line."""

import random
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from sklearn.datasets import load_sample_image

from tasks.core.base.contract import Packing, Resize
from tasks.core.base.errors import DataError
from tasks.core.data import image_io, listing

ORANGE = (250, 130, 10)


def plain(mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", (20, 10), ORANGE).convert(mode)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(image_io.decode(image_io.open_image(data))).astype(int)


@pytest.mark.parametrize(
    "data",
    [
        saved(plain(), "JPEG", quality=95),
        saved(plain("CMYK"), "JPEG", quality=95),
        saved(plain("P"), "PNG"),
        saved(plain("RGBA"), "PNG"),
        saved(plain(), "BMP"),
        saved(plain(), "WEBP", lossless=True),
        saved(plain(), "TIFF"),
        saved(plain(), "GIF", save_all=True, append_images=[Image.new("RGB", (20, 10), "black")]),
    ],
    ids=["jpeg", "cmyk", "palette", "rgba", "bmp", "webp", "tiff", "animated gif"],
)
def test_every_format_gives_the_same_colour(data: bytes) -> None:
    pixels = decoded(data)
    assert pixels.shape == (10, 20, 3)
    assert np.abs(pixels.mean(axis=(0, 1)) - ORANGE).max() <= 12  # a palette dithers


def test_grey_of_16_bits_is_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    pixels = decoded(saved(Image.fromarray(ramp), "PNG"))
    assert np.array_equal(pixels[..., 0].ravel(), np.arange(256))


@pytest.mark.parametrize("white", [1.0, 255.0])
def test_floats_that_go_a_little_beyond_their_white_stay_as_bright(white: float) -> None:
    """As a resampled image does in a pixel; with the next white it was black."""
    ramp = np.linspace(0, white, 256, dtype=np.float32).reshape(16, 16)
    ramp[-1, -1] *= 1.08
    assert np.array_equal(decoded(saved(Image.fromarray(ramp), "TIFF"))[..., 0].ravel(), np.arange(256))


@pytest.mark.parametrize("highest", [200, 255, 256, 4095])
def test_dark_grey_of_16_bits_stays_dark_whatever_its_brightest_pixel(highest: int) -> None:
    image = Image.fromarray(np.linspace(0, highest, 256).astype(np.uint16).reshape(16, 16))
    for kind in ("PNG", "TIFF", "PPM"):
        assert decoded(saved(image, kind)).max() == round(highest / 257)


@pytest.mark.parametrize("kind", ["TIFF", "PPM"])
@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
def test_floats_are_grey_up_to_the_usual_whites(white: float, kind: str) -> None:
    ramp = np.linspace(0, white, 256, dtype=np.float32).reshape(16, 16)
    assert np.array_equal(decoded(saved(Image.fromarray(ramp), kind))[..., 0].ravel(), np.arange(256))


@pytest.mark.parametrize("mark", [np.nan, np.inf, -np.inf, 3.4e38, -3.4e38])
def test_a_mark_for_no_data_is_black_and_changes_no_other_pixel(mark: float) -> None:
    """Of satellites' and medical images; one of it made all others black."""
    ramp = np.linspace(0, 1, 256, dtype=np.float32)
    ramp[7] = mark
    found = decoded(saved(Image.fromarray(ramp.reshape(16, 16)), "TIFF"))[..., 0].ravel()
    assert found[7] == 0
    assert np.array_equal(np.delete(found, 7), np.delete(np.arange(256), 7))


def tiff(
    bands: np.ndarray,
    bits: int,
    photometric: int,
    *,
    size: tuple[int, int] | None = None,
    planes: bool = False,
    packed: bool = False,
) -> bytes:
    """A TIFF of numbers (height, width, bands) in their own order of bytes, as Pillow writes few.

    `size`, width and height, is for numbers that aren't of whole bytes.
    """
    order = ">" if bands.dtype.byteorder == ">" else "<"
    count = bands.shape[2]
    width, height = size or bands.shape[1::-1]
    strips = [band.tobytes() for band in np.moveaxis(bands, -1, 0)] if planes else [bands.tobytes()]
    strips = [zlib.compress(strip) for strip in strips] if packed else strips
    places = np.cumsum([8, *map(len, strips)]).tolist()
    entries = {
        256: [width],
        257: [height],
        258: [bits] * count,
        259: [8 if packed else 1],
        262: [photometric],
    }
    entries |= {273: places[:-1], 277: [count], 278: [height], 279: list(map(len, strips))}
    entries |= {284: [2 if planes else 1], 339: [{"u": 1, "i": 2, "f": 3}[bands.dtype.kind]] * count}
    directory, beyond = struct.pack(f"{order}H", len(entries)), b""
    end = places[-1] + 2 + 12 * len(entries) + 4
    for tag, values in sorted(entries.items()):
        value = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            value, beyond = struct.pack(f"{order}I", end + len(beyond)), beyond + value
        directory += struct.pack(f"{order}HHI", tag, 4, len(values)) + value
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", places[-1])
    return head + b"".join(strips) + directory + b"\0\0\0\0" + beyond


RAMP = np.arange(256).reshape(16, 16)


@pytest.mark.parametrize(
    ("photometric", "mode"),
    [(2, "RGB"), (2, "RGBA"), (5, "CMYK"), (1, "L")],
    ids=["RGB", "RGBA", "CMYK", "L"],
)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
def test_planes_of_a_tiff_are_read_as_one_image(
    photometric: int, mode: str, bits: int, order: str, packed: bool
) -> None:
    """Pillow took those of 16 bits for others' bytes, and 16 bits of grey for no image."""
    image = Image.merge("RGB", [Image.fromarray(np.rot90(RAMP, turn).astype(np.uint8)) for turn in range(3)])
    values = np.atleast_3d(np.asarray(image.convert(mode))).astype(int) * (257 if bits == 16 else 1)
    bands = values.astype(f"{order}u{bits // 8}")
    found = decoded(tiff(bands, bits, photometric, planes=True, packed=packed))
    assert np.array_equal(found, np.asarray(image.convert(mode).convert("RGB")))


@pytest.mark.parametrize("kind", ["f4", "i4", "i2", "u2"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
def test_numbers_of_a_tiff_are_read_in_its_order_of_bytes(kind: str, order: str, packed: bool) -> None:
    """Compressed, those of big-endian were read as of little-endian, unless they had no sign."""
    bands = (RAMP[..., None] * (257 if kind == "u2" else 1)).astype(order + kind)
    found = decoded(tiff(bands, 8 * int(kind[1]), 1, packed=packed))
    assert np.array_equal(found[..., 0], RAMP)


@pytest.mark.parametrize("packed", [False, True])
def test_grey_of_12_bits_is_white_at_4095(packed: bool) -> None:
    """Two numbers in three bytes, of which Pillow makes numbers of 16 bits."""
    levels = (RAMP * 4095 // 255).astype(">u2")
    bits = np.unpackbits(levels.view(np.uint8)).reshape(16, 16, 16)[..., 4:]
    strip = np.packbits(bits).reshape(1, 384, 1)
    data = tiff(strip, 12, 1, packed=packed, size=(16, 16))
    assert np.array_equal(decoded(data)[..., 0], RAMP)


@pytest.mark.parametrize(("kind", "white"), [("u1", 255), ("<u2", 65535), ("<f4", 1), (">f4", 255)])
@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_a_tiff_whose_white_is_zero_is_no_negative(kind: str, white: int, planes: bool, packed: bool) -> None:
    bands = ((255 - RAMP[..., None]) / 255 * white).round(5).astype(kind)
    found = decoded(tiff(bands, 8 * bands.itemsize, 0, planes=planes, packed=packed))
    assert np.array_equal(found[..., 0], RAMP)


def test_a_mark_for_no_data_is_black_where_white_is_zero() -> None:
    bands = np.array([[[0.0], [1.0], [np.nan]]], np.float32)
    assert decoded(tiff(bands, 32, 0))[0, :, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("white", [255, 65535, 2**32 - 1])
@pytest.mark.parametrize("packed", [False, True])
def test_numbers_of_32_bits_without_a_sign_keep_their_upper_half(white: int, packed: bool) -> None:
    bands = (RAMP[..., None] * (white // 255)).astype(np.uint32)
    assert np.array_equal(decoded(tiff(bands, 32, 1, packed=packed))[..., 0], RAMP)


def test_counts_of_more_than_16_bits_are_cut_off_and_not_made_black() -> None:
    bands = np.array([[[0], [32768], [65535], [70_000], [1 << 30]]], np.uint32)
    assert decoded(tiff(bands, 32, 1))[0, :, 0].tolist() == [0, 128, 255, 255, 255]


@pytest.mark.parametrize(
    ("bits", "row", "level", "levels"),
    [
        (2, b"\x1b", 2, [0, 85, 255, 255]),
        (2, b"\x1b", 0, [255, 85, 170, 255]),
        (4, b"\x09\xaf", 9, [0, 255, 170, 255]),
        (4, b"\x09\xaf", 0xFFFA, [0, 153, 255, 255]),  # only the low bits count
    ],
)
def test_the_transparent_level_of_a_grey_of_few_bits_is_the_one_that_becomes_white(
    bits: int, row: bytes, level: int, levels: list[int]
) -> None:
    rgb = decoded(png(4, 1, bits, 0, b"\0" + row, (b"tRNS", struct.pack(">H", level))))
    assert rgb[0, :, 0].tolist() == levels


def test_transparency_becomes_white() -> None:
    assert decoded(saved(Image.new("RGBA", (4, 4), (*ORANGE, 0)), "PNG")).min() == 255


@pytest.mark.parametrize("alpha", [0, 255])
def test_a_bmp_whose_alpha_is_left_empty_is_opaque(alpha: int) -> None:
    """As many programs write it. Where alpha is used at all, it counts."""
    masks = struct.pack("<4I", 0xFF << 16, 0xFF << 8, 0xFF, 0xFF << 24)
    head = struct.pack("<IiiHHI", 56, 2, 1, 1, 32, 3) + bytes(20) + masks
    pixels = bytes([*reversed(ORANGE), 0, *reversed(ORANGE), alpha])
    data = b"BM" + struct.pack("<IHHI", 14 + len(head) + 8, 0, 0, 14 + len(head)) + head + pixels
    assert decoded(data)[0].tolist() == [list(ORANGE) if alpha == 0 else [255] * 3, list(ORANGE)]


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (20, 10), "black")
    image.paste("white", (0, 0, 10, 10))  # the left half
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: left comes to the top
    pixels = decoded(saved(image, "JPEG", exif=exif))
    assert pixels.shape == (20, 10, 3)
    assert pixels[:8].min() > 200
    assert pixels[12:].max() < 50


def flipped(data: bytes, rng: random.Random) -> bytes:
    """One byte of the EXIF changed, behind its header: without that Pillow takes the file for no image."""
    start = data.index(b"Exif") + 6 + 8
    broken = bytearray(data)
    broken[start + rng.randrange(48)] = rng.randrange(256)
    return bytes(broken)


def test_broken_exif_says_nothing_against_the_pixels() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.ImageDescription] = 6, "a day at the sea"
    sound = saved(plain().resize((800, 600)), "JPEG", exif=exif, dpi=(72, 72))
    rng = random.Random(5)
    for data in [flipped(sound, rng) for _ in range(150)]:
        rgb, size = image_io.shrink(image_io.open_image(data), 256)
        assert sorted(size) == [600, 800]
        assert np.abs(np.asarray(rgb).mean(axis=(0, 1)) - ORANGE).max() < 5


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *others: tuple[bytes, bytes]) -> bytes:
    """A PNG of rows that are packed already, each after its filter byte, with other chunks before them."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *others, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    parts = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return image_io.PNG + b"".join(parts)


NOISE = Image.effect_noise((64, 64), 90)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"just some text", "not an image"),
        *(
            (b"\0\0\0\x1c" + brand + bytes(4), f"is {name}, which")
            for brand, name in image_io.BY_BRAND.items()
        ),
        *((start + b" and more", f"is {name}, which") for start, name in image_io.BY_START.items()),
        (
            saved(Image.new("I;16", (4, 4)), "TIFF").replace(
                b"\2\1\3\0\1\0\0\0\x10", b"\2\1\3\0\1\0\0\0\x0a"
            ),
            "a TIFF that is damaged, or of a kind",
        ),
        (saved(NOISE, "TIFF", compression="tiff_lzw")[:200], "a TIFF that is damaged, or of a kind"),
        (b"\xef\xbb\xbf\n <!doctype HTML><html><body>Not found", "is HTML, which isn't read"),
        (saved(NOISE, "PNG")[:900], "truncated"),
        (saved(NOISE, "JPEG")[:900], "truncated"),
        (
            saved(NOISE, "PNG", icc_profile=b"x").replace(b"iCCP", b"iCCQ"),
            "broken header .*checksum in b'iCCQ'",
        ),
        (png(30_000, 30_000, 8, 2, b"\0"), "too large"),
    ],
    ids=lambda value: value if isinstance(value, str) else "file",
)
def test_what_can_not_be_read_is_refused_in_one_line(tmp_path: Path, data: bytes, words: str) -> None:
    file = tmp_path / "an image.jpg"
    file.write_bytes(data)
    with pytest.raises(DataError, match=words) as caught:
        image_io.read(file, 32, "stretch")
    assert "an image.jpg" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("how", "corner_is_black", "edges_are_kept"),
    [("stretch", False, True), ("crop", False, False), ("pad", True, True)],
)
def test_the_three_ways_to_fit_a_square(how: Resize, corner_is_black: bool, edges_are_kept: bool) -> None:
    image = Image.new("RGB", (80, 40), "white")
    image.paste("red", (0, 0, 8, 40))
    pixels = image_io.resize_image(image, 20, how)
    assert pixels.shape == (20, 20, 3)
    assert (pixels[0, 10].max() == 0) == corner_is_black
    assert (pixels[10, 0, 1] < 100) == edges_are_kept


@pytest.mark.parametrize("kind", ["raw", "png"])
def test_packing_loses_nothing(kind: Packing) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3)).astype(np.uint8)
    data = image_io.encode(pixels, kind)
    unpack: Callable[[bytes], np.ndarray] = (
        (lambda d: np.frombuffer(d, np.uint8).reshape(8, 8, 3)) if kind == "raw" else decoded
    )
    assert np.array_equal(unpack(data), pixels)


def test_packing_as_jpeg_loses_little_of_shapes_and_colours() -> None:
    """Pillow's own quality of 75, with half the colours, loses three times as much."""
    pixels = np.asarray(Image.fromarray(load_sample_image("flower.jpg")).resize((96, 96)))
    lost = np.abs(decoded(image_io.encode(pixels, "jpeg")) - pixels)
    assert 0 < lost.mean() < 2


@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 7, 8])
def test_of_a_large_jpeg_less_is_decoded_and_the_whole_size_told(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.effect_noise((1200, 1199), 60)  # at an eighth, both sides round to 150
    data = BytesIO()
    image.save(data, "JPEG", exif=exif)
    small, size = image_io.shrink(image_io.open_image(data.getvalue()), 100)
    assert small.size == (150, 150)
    assert size == ((1200, 1199) if orientation < 5 else (1199, 1200))
    with pytest.raises(DataError, match="truncated"):
        image_io.shrink(image_io.open_image(data.getvalue()[:-5000]), 100)


def test_a_lossless_jpeg_is_decoded_whole() -> None:
    """Which has no smaller size to be decoded at, and was told of as corrupt."""
    table = b"\xff\xc4" + struct.pack(">H", 20) + b"\0\1" + bytes(15) + b"\0"
    frame = b"\xff\xc3" + struct.pack(">HBHHB", 11, 8, 300, 600, 1) + b"\1\x11\0"
    scan = b"\xff\xda" + struct.pack(">H", 8) + b"\1\1\0\1\0\0"
    grey = b"\xff\xd8" + table + frame + scan + bytes(300 * 600 // 8) + b"\xff\xd9"  # no pixel differs
    rgb, size = image_io.shrink(image_io.open_image(grey), 100)
    assert size == rgb.size == (600, 300)
    assert rgb.getextrema() == ((128, 128),) * 3


@pytest.mark.parametrize("suffix", ["jpg", "jfif", "JFIF"])
def test_a_jpeg_is_found_by_each_name_that_browsers_give_it(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a.{suffix}").write_bytes(saved(plain(), "JPEG"))
    assert list(listing.images_below(tmp_path)) == [f"a.{suffix}"]


def test_sixteen_bits_take_little_more_memory_than_the_image() -> None:
    """Scaled as a whole they took 30 bytes a pixel, 5 GB of an image that 360 kB held."""
    side = 3000
    buffer = BytesIO()
    Image.fromarray(np.full((side, side), 30_000, np.uint16)).save(buffer, "PNG")
    tracemalloc.start()
    try:
        found = image_io.pixels(buffer.getvalue(), Path("deep.png"), 8, "stretch")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (found == round(30_000 / 65_535 * 255)).all()
    assert peak / side**2 < 15
