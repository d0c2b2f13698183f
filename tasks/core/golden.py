"""Encoded pictures that go with the artifacts, and what to expect of them: to try one where it will run."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np

from tasks.core import images, runtimes
from tasks.core.contract import Contract
from tasks.core.metrics import Array, rounded
from tasks.core.serialize import write_json

PLAIN = ("1", "L", "LA", "P", "RGB", "RGBA")  # modes that every reader reads alike


def write(
    folder: Path,
    pictures: Path,
    paths: list[str],
    contract: Contract,
    predict: Callable[[images.Pixels], Array],
) -> Array:
    """Writes pictures as JPEG or PNG files, and `golden.json` with the probabilities that they should get.

    A JPEG or PNG that every reader reads alike is copied as it is, anything else written as PNG.

    Args:
        pictures: the folder that `paths` are from.
        predict: from uint8 (n, size, size, 3) to probabilities.

    Returns:
        Those, float (n, classes), in the order of the files' names.
    """
    folder.mkdir()
    files, read = [], []
    for place, path in enumerate(paths):
        data, suffix = _plain(images.content(pictures / path), contract)
        files.append(f"{place:06d}.{suffix}")
        (folder / files[-1]).write_bytes(data)
        read.append(images.pixels(data, pictures / path, contract.image_size, contract.resize))
    expected = predict(np.stack(read))
    rows = [
        {
            "file": file,
            "path": path,
            "class": contract.class_names[row.argmax()],
            "probabilities": list(map(rounded, row)),
        }
        for file, path, row in zip(files, paths, expected, strict=True)
    ]
    write_json(folder / "golden.json", rows)
    return expected


def _plain(data: bytes, contract: Contract) -> tuple[bytes, str]:
    picture = images.opened(data)
    if picture.format in ("JPEG", "PNG") and picture.mode in PLAIN and _read_alike(data, contract):
        return data, {"JPEG": "jpg", "PNG": "png"}[picture.format]
    buffer = BytesIO()
    upright = images.decoded(picture)
    upright.info.clear()  # of EXIF and colour profiles
    upright.save(buffer, "PNG")
    return buffer.getvalue(), "png"


def _read_alike(data: bytes, contract: Contract) -> bool:
    """Whether others read it as we do: what is broken, or turned in some odd way, they may not."""
    ours = images.pixels(data, Path("picture"), contract.image_size, contract.resize)
    try:
        return np.array_equal(ours, runtimes.pixels(data, contract.facts())) and b"Orientation" not in data
    except Exception:  # of every kind, over a broken file
        return False
