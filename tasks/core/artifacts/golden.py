"""Encoded images that go with the artifacts, and what to expect of them: to try one where it will run."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np

from tasks.core.artifacts import decode_graph, runtimes
from tasks.core.backbones.tensorflow_setup import tf
from tasks.core.base.arrays import Array, rounded
from tasks.core.base.contract import Contract
from tasks.core.base.files import write_json, write_text
from tasks.core.data import image_io
from tasks.core.data.image_io import Pixels

RESIZED = {
    "stretch": "image = image.resize(square, Image.Resampling.BILINEAR)",
    "crop": "image = ImageOps.fit(image, square, Image.Resampling.BILINEAR)",
    "pad": """inner = [max(1, round(square[0] * side / max(image.size))) for side in image.size]
    image = ImageOps.pad(image.resize(inner, Image.Resampling.BILINEAR), square)""",
}
HOW_TO_TRY = """\
# Golden images

Test images, and in `golden.json` the probabilities that they should get: try an artifact with them where it
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
    image = ImageOps.exif_transpose(Image.open("golden/" + row["file"])).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    RESIZED
    pixels = np.asarray(image, np.float32)
    (given,) = session.run(None, {"image": pixels[None] / 255})
    off = np.abs(given[0] - row["probabilities"]).max()
    print(row["file"], contract["class_names"][given[0].argmax()], off)
```
"""
PLAIN = ("1", "L", "LA", "P", "RGB", "RGBA")  # modes that every reader reads alike
STEPS = 2.5  # of colour, more than which an image that is decoded alike is not off in a SavedModel


def write(
    folder: Path,
    images: Path,
    digests: dict[str, str],
    contract: Contract,
    predict: Callable[[Pixels], Array],
) -> Array:
    """Writes images as JPEG or PNG files, and `golden.json` with the probabilities that they should get.

    A JPEG or PNG that every reader reads alike is copied as it is, anything else written as PNG.

    Args:
        images: the folder that they are from.
        digests: the sha256 of each, by its path from there.
        predict: from uint8 (n, size, size, 3) to probabilities.

    Returns:
        Those, float (n, classes), in the order of the files' names.

    Raises:
        DataError: an image is not the one that was validated.
    """
    folder.mkdir()
    files, read = [], []
    for place, (path, digest) in enumerate(digests.items()):
        data, suffix = _plain(image_io.validated(images / path, digest), contract)
        files.append(f"{place:06d}.{suffix}")
        (folder / files[-1]).write_bytes(data)
        read.append(image_io.pixels(data, images / path, contract.image_size, contract.resize))
    expected = predict(np.stack(read))
    rows = [
        {
            "file": file,
            "path": path,
            "class": contract.class_names[row.argmax()],
            "probabilities": list(map(rounded, row)),
        }
        for file, path, row in zip(files, digests, expected, strict=True)
    ]
    write_json(folder / "golden.json", rows)
    write_text(folder / "README.md", HOW_TO_TRY.replace("RESIZED", RESIZED[contract.resize]))
    return expected


def _plain(data: bytes, contract: Contract) -> tuple[bytes, str]:
    image = image_io.open_image(data)
    if image.format in ("JPEG", "PNG") and image.mode in PLAIN and _read_alike(data, contract):
        return data, {"JPEG": "jpg", "PNG": "png"}[image.format]
    buffer = BytesIO()
    upright = image_io.decode(image)
    upright.info.clear()  # of EXIF and colour profiles
    upright.save(buffer, "PNG")
    return buffer.getvalue(), "png"


def _read_alike(data: bytes, contract: Contract) -> bool:
    """Whether others read it as we do: what is broken, or turned in some odd way, they may not."""
    ours = image_io.pixels(data, Path("picture"), contract.image_size, contract.resize)
    try:
        theirs = runtimes.pixels(data, contract.facts())
        served = decode_graph.images(tf.constant([data]), contract)[0].numpy() * 255
    except Exception:  # of many kinds: Pillow raises them over odd EXIF, TensorFlow over what Pillow mends
        return False
    is_served = np.abs(served - ours).max() <= STEPS
    return np.array_equal(ours, theirs) and is_served and b"Orientation" not in data
