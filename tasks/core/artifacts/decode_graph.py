"""Reading encoded images within a TensorFlow graph, as `image_io` reads files."""

from collections.abc import Iterable
from typing import Any

from tasks.core.backbones.tensorflow_setup import tf, unconverted
from tasks.core.base.contract import Contract, Resize

HEADER = 1 << 16  # bytes, within which EXIF lies
ORIENTATION = 0x0112  # the tag's number
FIELDS = (slice(2), slice(2, 4), slice(4, 8))  # of a tag: its number, the type and the count of its values
SHORTS, LONGS = (3, 8), (4, 9, 13)  # types of two and of four bytes
# What stands before EXIF, its length as two `?`; and how many of these bytes that length counts.
JPEG_EXIF = (b"\xff\xe1??Exif\0\0", 8)
PNG_EXIF = (b"\0\0??eXIf", 0)
ADOBE = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0"  # what its programs mark a JPEG with


@unconverted
def images(encoded: Any, contract: Contract) -> Any:
    """Reads JPEG and PNG, upright by EXIF, transparency on white, fitted into the contract's square.

    EXIF is looked for in the first 64 KB, and an orientation that stands in XMP alone, in text as
    ImageMagick's `Raw profile type exif`, or as a text or a float is not found.

    Args:
        encoded: string (n,), the files' bytes.

    Returns:
        float32 (n, size, size, 3) in [0, 1].
    """
    shape = (contract.image_size, contract.image_size, 3)
    read = lambda data: fit_square(decode(data), contract.image_size, contract.resize)  # noqa: E731
    return tf.map_fn(read, encoded, fn_output_signature=tf.TensorSpec(shape, tf.float32))


def decode(data: Any) -> Any:
    """One image's pixels: float32 (height, width, 3), 0 to 255."""
    return tf.cond(tf.io.is_jpeg(data), lambda: _jpeg(data), lambda: _png(data))


def _jpeg(data: Any) -> Any:
    pixels = tf.io.decode_jpeg(_inverted(data), channels=3, dct_method="INTEGER_ACCURATE")
    return tf.cast(upright(pixels, orientation(data, *JPEG_EXIF)), tf.float32)


def _inverted(data: Any) -> Any:
    """Marks a JPEG of four colours as Adobe's, whose values are inverted: Pillow takes each of them so.

    A marker of its own comes later in the file, and counts in place of this one.
    """
    start, rest = tf.strings.substr(data, 0, 2), tf.strings.substr(data, 2, tf.strings.length(data))
    is_cmyk = tf.io.extract_jpeg_shape(data)[2] == 4
    return tf.cond(is_cmyk, lambda: tf.strings.join([start, ADOBE, rest]), lambda: data)


def _png(data: Any) -> Any:
    pixels = tf.cast(tf.io.decode_png(data, channels=4), tf.float32)
    opacity = pixels[..., 3:] / _opaque(data)
    return upright(tf.round(pixels[..., :3] * opacity + 255 * (1 - opacity)), orientation(data, *PNG_EXIF))


def _opaque(data: Any) -> Any:
    """The value of full opacity. What has none of 1, 2 and 4 bits gets 1, 3 and 15 from TensorFlow."""
    head = _head(data)
    depth, colour_type = head[24], head[25]
    plain = (colour_type == 0) | (colour_type == 3)  # grey, or of a palette
    none = _place(head, b"tRNS") > _place(head, b"IDAT")
    power = tf.cast(tf.bitwise.left_shift(1, depth), tf.float32)
    return tf.where(plain & none & (depth < 8), power - 1, 255)


def _head(data: Any) -> Any:
    return tf.cast(tf.io.decode_raw(tf.strings.substr(data, 0, HEADER), tf.uint8), tf.int32)


def _place(head: Any, mark: bytes) -> Any:
    """Where a mark begins, in which `?` is any byte; after the end if it isn't there."""
    count = tf.maximum(tf.size(head) - len(mark), 0)
    known = [(place, byte) for place, byte in enumerate(mark) if byte != ord("?")]
    found = tf.reduce_all([head[place : place + count] == byte for place, byte in known], 0)
    places = tf.where(found, tf.range(count), tf.size(head))
    return tf.reduce_min(tf.concat([places, [tf.size(head)]], 0))


def _number(digits: Any, little: Any = False) -> Any:
    """Of bytes along the last axis, the most significant one first unless `little`."""
    ordered = tf.where(little, tf.reverse(digits, [-1]), digits)
    return tf.reduce_sum(ordered * 256 ** tf.range(tf.shape(ordered)[-1])[::-1], -1)


def orientation(data: Any, mark: bytes, counted: int) -> Any:
    """What the EXIF after a mark says, 1 (upright) to 8; broken or no EXIF says 1, as Pillow has it."""
    head = _head(data)
    place = _place(head, mark)
    size = _number(head[place + 2 : place + 4])
    exif = head[place + len(mark) :][: tf.maximum(size - counted, 0)]
    again = tf.reduce_all(exif[:6] == tf.constant(list(b"Exif\0\0"))[: tf.size(exif)])
    tiff = exif[tf.where(again, 6, 0) :]  # its offsets are from there
    return tf.cond(tf.size(tiff) > 8, lambda: _orientation(tiff), lambda: tf.constant(1))


def _orientation(tiff: Any) -> Any:
    """Looks for the tag in the first directory of a TIFF header: int32 (bytes,)."""
    little = tf.equal(tiff[0], ord("I"))
    start = _number(tiff[4:8], little)
    inside = _is_tiff(tiff) & (start >= 8) & (start < tf.size(tiff))
    directory = tiff[tf.where(inside, start, tf.size(tiff)) :]
    there = tf.maximum(tf.size(directory) - 2, 0) // 12
    count = tf.minimum(_number(directory[:2], little), there)
    entries = tf.reshape(directory[2 : 2 + 12 * count], (-1, 12))
    tag, kind, values = (_number(entries[:, place], little) for place in FIELDS)
    short = _is_one_of(kind, SHORTS) & _is_one_of(values, (1, 2))  # more would stand elsewhere
    long = _is_one_of(kind, LONGS) & (values == 1)
    value = tf.where(long, _number(entries[:, 8:], little), _number(entries[:, 8:10], little))
    said = tf.boolean_mask(value, (tag == ORIENTATION) & (short | long))
    first = tf.concat([said, [1]], 0)[0]
    return tf.where((first >= 1) & (first <= 8), first, 1)


def _is_tiff(head: Any) -> Any:
    """Whether it begins as TIFF does; Pillow doesn't mind in which order the second half stands."""
    low, high = tf.reduce_min(head[2:4]), tf.reduce_max(head[2:4])
    return _is_one_of(head[0], b"IM") & (head[1] == head[0]) & (low == 0) & (high == 42)


def _is_one_of(values: Any, known: Iterable[int]) -> Any:
    return tf.reduce_any([values == one for one in known], 0)


def upright(pixels: Any, orientation: Any) -> Any:
    """Turns and mirrors an image as its orientation asks for."""
    turn, image = tf.image.rot90, tf.image
    return tf.switch_case(
        orientation - 1,
        [
            lambda: pixels,
            lambda: image.flip_left_right(pixels),
            lambda: turn(pixels, 2),
            lambda: image.flip_up_down(pixels),
            lambda: image.transpose(pixels),
            lambda: turn(pixels, 3),
            lambda: image.transpose(turn(pixels, 2)),
            lambda: turn(pixels, 1),
        ],
    )


def fit_square(pixels: Any, side: int, how: Resize) -> Any:
    """Resizes an image as `image_io.resize_image` does: float32 (side, side, 3) in [0, 1]."""
    size = tf.cast(tf.shape(pixels)[:2], tf.float32)
    square = tf.constant([side, side])
    if how == "stretch":
        result = _resample(pixels, square, side / size, tf.zeros(2))
    elif how == "crop":
        scale = side / tf.reduce_min(size)
        offset = (size - tf.reduce_min(size)) / 2
        result = _resample(pixels, square, tf.stack([scale, scale]), -offset * scale)
    else:
        inner = tf.cast(tf.round(size * side / tf.reduce_max(size)), tf.int32)
        inner = tf.maximum(inner, 1)
        small = _resample(pixels, inner, tf.cast(inner, tf.float32) / size, tf.zeros(2))
        before = tf.cast(tf.round(tf.cast(square - inner, tf.float32) / 2), tf.int32)
        result = tf.pad(small, tf.concat([tf.stack([before, square - inner - before], 1), [[0, 0]]], 0))
    return tf.ensure_shape(result, (side, side, 3)) / 255


def _resample(pixels: Any, size: Any, scale: Any, translation: Any) -> Any:
    """Bilinear and antialiased, in whole steps of colour as Pillow has them."""
    values = tf.raw_ops.ScaleAndTranslate(
        images=pixels[None],
        size=size,
        scale=scale,
        translation=translation,
        kernel_type="triangle",
        antialias=True,
    )
    return tf.clip_by_value(tf.round(values[0]), 0, 255)
