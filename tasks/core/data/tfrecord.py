"""Writes TFRecord files without TensorFlow, which would cost each process seconds and half a gigabyte.

Both formats are small and fixed: the frame of a record, and the protocol buffer `tf.train.Example`. A test
reads the result back with TensorFlow itself.
"""

import struct
from collections.abc import Mapping
from itertools import chain
from typing import BinaryIO

import google_crc32c

BYTES_LIST, INT64_LIST = 1, 3  # field numbers in tf.train.Feature


def write(file: BinaryIO, record: bytes) -> None:
    """Appends a record: its length, the length's checksum, the bytes, their checksum (little-endian)."""
    length = struct.pack("<Q", len(record))
    file.write(length + _checksum(length))
    file.write(record)
    file.write(_checksum(record))


def example(features: Mapping[str, bytes | int]) -> bytes:
    """A serialized `tf.train.Example` with one value for each name, in the order of the names.

    Raises:
        struct.error: a number that 64 bits don't hold.
    """
    entries = (
        _message(1, *_message(1, name.encode()), *_message(2, *_feature(value)))
        for name, value in sorted(features.items())
    )
    return b"".join(_message(1, *chain.from_iterable(entries)))


def _feature(value: bytes | int) -> tuple[bytes, ...]:
    if isinstance(value, int):
        return _message(INT64_LIST, *_message(1, _varint(_unsigned(value))))
    return _message(BYTES_LIST, *_message(1, value))


def _message(field: int, *content: bytes) -> tuple[bytes, ...]:
    """A field of protocol buffers whose content is preceded by its length; in parts, to copy pixels once."""
    return (bytes([field << 3 | 2]) + _varint(sum(map(len, content))), *content)


def _unsigned(number: int) -> int:
    """A signed 64-bit integer as protocol buffers have it: a negative one by its bits, as a large one."""
    (same_bits,) = struct.unpack("<Q", struct.pack("<q", number))
    return int(same_bits)


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def _checksum(data: bytes) -> bytes:
    """CRC-32C, rotated and shifted as TensorFlow does, so that checksums of checksums stay sound."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
