"""One way to read an image, for scanning, building and predicting alike."""

import hashlib
import logging
import warnings
from codecs import BOM_UTF8
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, ImageOps, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from tasks.core.base.arrays import Array
from tasks.core.base.console import quiet
from tasks.core.base.contract import Packing, Resize
from tasks.core.base.errors import DataError
from tasks.core.base.presence import IS_POINTER, LFS_POINTER
from tasks.core.data import archives

logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what it logs of broken files it raises, too

Pixels = npt.NDArray[np.uint8]

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP", "PPM")
_NAMES = "bmp gif jfif jpe jpeg jpg pbm pgm png pnm ppm tif tiff webp"
SUFFIXES = frozenset(f".{name}" for name in _NAMES.split())
PNG = b"\x89PNG\r\n\x1a\n"  # what each file of it begins with
STRIP = 1 << 20  # numbers that are scaled at a time, which takes ten times their memory
BEYOND = 1.1  # times its white, as far as a float goes where an image was resampled
NO_DATA = 1e30  # of a float; the largest is a common mark for it
# What browsers, phones and cameras write that isn't read here, by what a file has from its fifth byte on...
BY_BRAND = {
    b"ftypavif": "AVIF",
    b"ftypavis": "AVIF",
    b"ftypheic": "HEIC",
    b"ftypheix": "HEIC",
    b"ftyphevc": "HEIC",
    b"ftypmif1": "HEIC",
    b"jP  \r\n\x87\n": "JPEG 2000",
    b"JXL \r\n\x87\n": "JPEG XL",
}
# ...or by what it begins with. A page is what a server sends in place of an image that isn't there.
BY_START = {
    b"\xff\n": "JPEG XL",
    b"8BPS": "PSD",
    b"%PDF-": "PDF",
    b"<svg": "SVG",
    b"<?xml": "XML or SVG",
    b"<!doctype html": "HTML",
    b"<html": "HTML",
}
TIFF = (b"II*\0", b"MM\0*")
# Pillow's names of numbers in this machine's order of bytes, by those of big-endian ones.
NATIVE = {"F;32BF": "F;32NF", "I;16BS": "I;16NS", "I;32BS": "I;32NS"}
HIGHEST = {"L;2": 3, "L;4": 15}  # level of a PNG's grey, by what Pillow calls its depth
MAX_PIXELS = 178_956_970  # Pillow's own limit against decompression bombs, for an error not a warning


def open_image(data: bytes) -> Image.Image:
    """Reads an image's header, and no pixels yet.

    Raises:
        DataError: empty, not an image, or larger than `MAX_PIXELS`. Says so without the file's name.
    """
    if not data:
        raise DataError("is empty (0 bytes)")
    if data.startswith(LFS_POINTER):
        raise DataError(IS_POINTER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd EXIF and of size, which is judged below
        try:
            image = _open(data)
        except UnidentifiedImageError:
            raise DataError(_why_unknown(data)) from None
        except Image.DecompressionBombError:
            raise DataError("is too large to open safely") from None
        except MemoryError:
            raise
        except Exception as error:  # of every kind, over a broken file
            raise DataError(f"has a broken header ({error})") from None
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"is too large: {image.width} x {image.height} pixels")
    _scale_transparent_level(image)
    return image


def _why_unknown(data: bytes) -> str:
    """What a file is that Pillow finds no image in, as far as it is known."""
    if data.startswith(TIFF):
        return "is a TIFF that is damaged, or of a kind that isn't read"
    start = data[:64].removeprefix(BOM_UTF8).lstrip().lower()
    starts = (name for other, name in BY_START.items() if start.startswith(other.lower()))
    other = BY_BRAND.get(data[4:12]) or next(starts, None)
    return f"is {other}, which isn't read" if other else "is not an image"


def _open(data: bytes) -> ImageFile.ImageFile:
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        if data.startswith(PNG):
            PngImagePlugin.PngImageFile(BytesIO(data))  # whose error says what is wrong with it
        raise
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _in_native_order(_by_libtiff(data) if _is_in_planes(image) else image)
    return image


def _is_in_planes(image: TiffImagePlugin.TiffImageFile) -> bool:
    return image.tag_v2.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2 and not image.use_load_libtiff


def _by_libtiff(data: bytes) -> TiffImagePlugin.TiffImageFile:
    """Pillow's own reader, for what is not compressed, takes each plane for one of 8 bits, black at 0."""
    TiffImagePlugin.READ_LIBTIFF = True
    try:
        return TiffImagePlugin.TiffImageFile(BytesIO(data))
    finally:
        TiffImagePlugin.READ_LIBTIFF = False


def _in_native_order(image: TiffImagePlugin.TiffImageFile) -> TiffImagePlugin.TiffImageFile:
    """libtiff puts bytes in this machine's order; of floats and signed numbers Pillow expects the file's."""
    if image.use_load_libtiff:
        kinds: list[Any] = [tile.args for tile in image.tile]
        image.tile = [
            tile._replace(args=(NATIVE.get(kind, kind), *others))
            for tile, (kind, *others) in zip(image.tile, kinds, strict=True)
        ]
    return image


def _scale_transparent_level(image: ImageFile.ImageFile) -> None:
    """Pillow scales greys of 2 and 4 bits to 0-255, and leaves the one that is transparent as it is."""
    if image.format == "PNG" and image.tile and "transparency" in image.info:
        highest = HIGHEST.get(str(image.tile[0].args))
        if highest is not None:
            image.info["transparency"] = (image.info["transparency"] & highest) * 255 // highest


def decode(image: Image.Image) -> Image.Image:
    """Decodes the first frame as RGB, upright by its EXIF orientation, transparency on white.

    What is RGB and upright already is not copied: `image` itself is loaded and returned.

    Raises:
        DataError: truncated or corrupt.
        MemoryError: larger than what is left.
    """
    try:
        # libtiff writes on stderr what Pillow raises as well
        with quiet() if image.format == "TIFF" else warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
            rgb, turn = _rgb(image), _TURNS.get(_orientation(image))
            # Pillow's own function for it writes EXIF again, and fails where that is odd.
            return rgb if turn is None else rgb.transpose(turn)
    except MemoryError:
        raise
    except Exception as error:  # of every kind, over a broken file
        raise DataError(f"is truncated or corrupt ({error})") from None


def shrink(image: Image.Image, side: int) -> tuple[Image.Image, tuple[int, int]]:
    """Decodes an image of which no more than `side` pixels of each side are wanted.

    A JPEG can be decoded at a half, a quarter or an eighth of its size, in a fraction of the time.

    Returns:
        What `decode` gives, and the width and height of the whole image, upright.
    """
    whole, file = image.size, getattr(image, "fp", None)
    image.draft(None, (side, side))
    shrunk = image.size != whole
    turned = shrunk and _orientation(image) in (5, 6, 7, 8)
    try:
        rgb = decode(image)
    except DataError:
        if not shrunk or not isinstance(file, BytesIO):
            raise
        shrunk, rgb = False, decode(open_image(file.getvalue()))  # a lossless JPEG has no smaller size
    return rgb, (whole[::-1] if turned else whole) if shrunk else rgb.size


def _orientation(image: Image.Image) -> int:
    """What EXIF says, 1 (upright) to 8; broken EXIF says nothing, and nothing against the pixels."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # of every kind
        return 1


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bit(image)
    if image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        image = image.convert("RGB")  # its fourth byte was left empty: it means no transparency
    if image.has_transparency_data:
        # Colours under transparent pixels are arbitrary; white is what a page would show.
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(ground, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Scales grey of more than 8 bits to 0-255; Pillow's own conversion would clip it, transparency and all.

    White is 65535 where a file has 16 bits, and 4095 where it has 12. 32 bits and floats don't say what it
    is: of what is usual, it is the least that holds the image, floats but for a tenth of it. What is no
    number, or as large as only a mark for no data is, is black.
    """
    numbers = np.asarray(image)
    numbers = numbers.view(np.uint32) if _is_unsigned(image) else numbers
    rows = max(1, STRIP // image.width)
    strips = [numbers[start : start + rows] for start in range(0, len(numbers), rows)]
    highest = max(float(_without_none(strip)[0].max(initial=0)) for strip in strips)
    top = _white(image, highest)
    is_inverse = _tag(image, TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0  # Pillow heeds it up to 8 bits
    grey = Image.fromarray(np.concatenate([_levels(strip, top, is_inverse) for strip in strips]))
    level = image.info.get("transparency")
    if level is not None:
        grey.putalpha(Image.fromarray(np.where(numbers == level, 0, 255).astype(np.uint8)))
    return grey


def _without_none(numbers: Array) -> tuple[Array, Array]:
    """Numbers as float64, and which of them mark that there is no data, where there is 0."""
    values = numbers.astype(np.float64)
    is_none = ~(np.abs(values) < NO_DATA)
    values[is_none] = 0
    return values, is_none


def _levels(numbers: Array, top: float, is_inverse: bool) -> Pixels:
    values, is_none = _without_none(numbers)
    levels = values.clip(0, top) / top * 255
    levels = 255 - levels if is_inverse else levels
    levels[is_none] = 0
    return levels.round().astype(np.uint8)


def _white(image: Image.Image, highest: float) -> float:
    """What white is; counts go some way beyond 65535, and are cut off there, as are floats beyond theirs."""
    if _tag(image, TiffImagePlugin.BITSPERSAMPLE) == (12,):
        return 4095.0
    if image.mode != "F" and highest >= 1 << 31:  # where numbers with a sign end
        return 4294967295.0
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return 65535.0
    if image.mode != "F":
        return 255.0 if highest <= 255 else 65535.0
    return next((white for white in (1.0, 255.0) if highest <= BEYOND * white), 65535.0)


def _is_unsigned(image: Image.Image) -> bool:
    """Whether it is a TIFF of 32 bits without a sign, to which Pillow gives one."""
    form = _tag(image, TiffImagePlugin.SAMPLEFORMAT)
    return _tag(image, TiffImagePlugin.BITSPERSAMPLE) == (32,) and form in (None, (1,))


def _tag(image: Image.Image, number: int) -> Any:
    """What a TIFF's tag says; nothing of another format."""
    return image.tag_v2.get(number) if isinstance(image, TiffImagePlugin.TiffImageFile) else None


def resize_image(image: Image.Image, size: int, how: Resize) -> Pixels:
    """Fits an RGB image into a square of `size` pixels, antialiased.

    Args:
        how: `stretch` ignores the aspect ratio, `crop` fills the square and cuts what is left
            over, `pad` fits the image whole on black, at least a pixel wide and high.

    Returns:
        uint8 of shape (size, size, 3).
    """
    square, bilinear = (size, size), Image.Resampling.BILINEAR
    if how == "crop":
        image = ImageOps.fit(image, square, bilinear)
    elif how == "pad":
        # `ImageOps.pad` alone makes an image that is very thin one without any pixels.
        inner = [max(1, round(size * side / max(image.size))) for side in image.size]
        image = ImageOps.pad(image.resize(inner, bilinear), square)
    else:
        image = image.resize(square, bilinear)
    return np.asarray(image)


def read(path: Path, size: int, how: Resize) -> Pixels:
    """Reads an image file at the size a model wants: uint8 of shape (size, size, 3).

    Raises:
        DataError: names the file, what is wrong with it, and what to do.
    """
    return pixels(content(path), path, size, how)


def pixels(data: bytes, path: Path, size: int, how: Resize) -> Pixels:
    """What `read` gives, of a file's content that has been read already."""
    try:
        return resize_image(decode(open_image(data)), size, how)
    except DataError as error:
        raise DataError(f"{path} {error}; leave it out or replace it") from None
    except MemoryError:
        raise DataError(f"{path} needs more memory than there is; lower compute.workers") from None


def content(path: Path) -> bytes:
    """A file's bytes.

    Raises:
        DataError: names the file and what to do.
    """
    try:
        if not path.is_file():
            if inner := archives.find(path):
                return _from_archive(path, *inner)
            found = "is no regular file" if path.exists() else "is not there"
            raise DataError(f"{path} {found}; check the path")  # reading a pipe would wait for ever
        return read_file(path)
    except OSError as error:
        raise DataError(f"{path} can't be read ({error.strerror}); check its permissions") from None


def _from_archive(path: Path, archive: archives.Archive, name: str) -> bytes:
    remedy = "make the archive anew" if name in archive.members else "check the path"
    try:
        return archive.read(name)
    except DataError as error:
        raise DataError(f"{path} {error}; {remedy}") from None


def read_file(path: Path) -> bytes:
    """The bytes of a file that is in no archive.

    Raises:
        DataError: it is called as an archive is, and is neither an image nor an archive that is sound.
        OSError: it can't be read.
    """
    data = path.read_bytes()
    if path.suffix.lower() in archives.SUFFIXES and not _is_image(data):
        _ = archives.Archive.of(str(path)).members  # of which an error says what is wrong
    return data


def _is_image(data: bytes) -> bool:
    try:
        open_image(data)
    except DataError:
        return False
    return True


def validated(path: Path, sha256: str) -> bytes:
    """The bytes of an image that `validate` has seen. DVC doesn't look for it before the later stages.

    Raises:
        DataError: it isn't there any more, can't be read, or is another by now.
    """
    if not (path.exists() or archives.is_there(path)):
        raise DataError(f"{path} is gone since it was validated; run the pipeline again")
    data = content(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise DataError(f"{path} was changed since it was validated; run the pipeline again")
    return data


def encode(pixels: Pixels, kind: Packing) -> bytes:
    """Packs pixels for a record: `raw` is the bytes in row-major order, without a header."""
    if kind == "raw":
        return pixels.tobytes()
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if kind == "jpeg" else {"compress_level": 1}
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()
