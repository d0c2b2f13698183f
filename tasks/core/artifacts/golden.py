"""Encoded pictures that go with the artifacts, and what to expect of them: to try one where it will run."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np

from tasks.core.artifacts import runtimes
from tasks.core.base.arrays import Array, rounded
from tasks.core.base.contract import Contract
from tasks.core.base.files import write_json, write_text
from tasks.core.data import images

RESIZED = {
    "stretch": "picture.resize(square, Image.Resampling.BILINEAR)",
    "crop": "ImageOps.fit(picture, square, Image.Resampling.BILINEAR)",
    "pad": "ImageOps.pad(picture, square, Image.Resampling.BILINEAR)",
}
HOW_TO_TRY = """\
# Golden pictures

Test pictures, and in `golden.json` the probabilities that they should get: try an artifact with them where it
will run. With `model.onnx`, in the folder above this one:

```python
import json, os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import: ONNX Runtime reports to Microsoft otherwise
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

contract = json.load(open("classifier.json", encoding="utf-8"))
square = (contract["image_size"],) * 2
session = onnxruntime.InferenceSession("model.onnx")
for row in json.load(open("golden/golden.json", encoding="utf-8")):
    picture = ImageOps.exif_transpose(Image.open("golden/" + row["file"])).convert("RGBA")
    picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    pixels = np.asarray(RESIZED, np.float32)
    (given,) = session.run(None, {"image": pixels[None] / 255})
    off = np.abs(given[0] - row["probabilities"]).max()
    print(row["file"], contract["class_names"][given[0].argmax()], off)
```
"""
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
    write_text(folder / "README.md", HOW_TO_TRY.replace("RESIZED", RESIZED[contract.resize]))
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
        theirs = runtimes.pixels(data, contract.facts())
    except Exception:  # Pillow raises errors of many kinds over broken EXIF, which ours passes over
        return False
    return np.array_equal(ours, theirs) and b"Orientation" not in data
