"""Matrices that may be larger than memory: a small one is in memory, a large one mapped from a file on disk.

A mapped one is worked on in blocks of rows. What has been read of it is let go of, so that a process takes no
more memory for ten times as many rows; the system keeps of the file what it has room for.
"""

import mmap
import os
import tempfile
from collections.abc import Iterator
from functools import reduce
from typing import IO, Any

import numpy as np

from tasks.core.base.arrays import Array
from tasks.core.base.paths import cache_folder

BLOCK = 1 << 26  # bytes of a matrix that are worked on at a time; what is larger is mapped


def new_matrix(rows: int, width: int) -> Array:
    """A matrix to be filled, float32 (rows, width).

    Raises:
        OSError: the disk has no room for it.
    """
    size = rows * width * np.dtype(np.float32).itemsize
    if size <= BLOCK:
        return np.empty((rows, width), np.float32)
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=cache_folder()) as file:  # has no name, so that a kill leaves nothing
        _take_room(file, size)
        return np.memmap(file, np.float32, "r+", shape=(rows, width))


def _take_room(file: IO[bytes], size: int) -> None:
    """Has the disk keep the room: a mapped page for which there is none would end the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:  # macOS
        for begin in range(0, size, BLOCK):
            file.write(bytes(min(BLOCK, size - begin)))
        file.flush()


def blocks(*matrices: Array) -> Iterator[tuple[Array, ...]]:
    """Gives matrices of as many rows by blocks of them; all rows at once where none of these is mapped.

    A block is to be used before the next one is asked for.
    """
    mapped = [matrix for matrix in matrices if _mapping(matrix)]
    count = len(matrices[0])
    each = max(1, BLOCK // max(matrix.strides[0] for matrix in mapped) if mapped else count)
    for begin in range(0, max(count, 1), each):
        yield tuple(matrix[begin : begin + each] for matrix in matrices)
        for matrix in mapped:
            let_go(matrix)


def total(parts: Iterator[Array]) -> Array:
    """The sum of what blocks came to."""
    return reduce(np.add, parts)


def take_rows(matrix: Array, rows: Array) -> Array:
    """Some of the rows: `rows` is bool (n,), or their places, which rise."""
    if rows.dtype != bool:
        places, rows = rows, np.zeros(len(matrix), bool)
        rows[places] = True
    taken, filled = new_matrix(int(rows.sum()), matrix.shape[1]), 0
    for block, some in blocks(matrix, rows):
        end = filled + int(some.sum())
        taken[filled:end] = block[some]
        filled = end
        let_go(taken)
    return taken


def let_go(matrix: Array) -> None:
    """Takes a mapped matrix out of this process's memory; it is read again when it is used."""
    if mapping := _mapping(matrix):
        mapping.madvise(mmap.MADV_DONTNEED)


def _mapping(matrix: Any) -> mmap.mmap | None:
    """What a matrix, or one that it is a part of, is mapped by."""
    while matrix is not None and not isinstance(matrix, mmap.mmap):
        matrix = getattr(matrix, "base", None)
    return matrix
