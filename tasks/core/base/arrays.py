"""What is common to all that counts with arrays."""

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.core.base.files import replacing

Array = npt.NDArray[Any]
# What NumPy and zipfile raise of a damaged file; RuntimeError: its bytes ask for a password or another zip.
DAMAGED = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)


def rounded(value: float) -> float:
    """Rounds to the six decimals that are stored."""
    return round(float(value), 6)


def save_arrays(path: Path, **arrays: Array) -> None:
    """Writes arrays as an .npz file, whatever the path's suffix, that appears whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def load_arrays(path: Path) -> dict[str, Array] | None:
    """Reads what `save_arrays` has written; none if it is not there, or damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except DAMAGED:
        return None


def recall_arrays(path: Path, names: set[str], compute: Callable[[], dict[str, Array]]) -> dict[str, Array]:
    """Reads the arrays of these names from a cache, or computes and keeps them where it has no sound file."""
    known = load_arrays(path)
    if known is None or known.keys() != names:
        known = compute()
        save_arrays(path, **known)
    return known
