"""Scans and builds Fashion-MNIST's 70,000 images, written as PNG files, and says what it took.

The folder holds the four .gz files in IDX format as Debian's package `dataset-fashion-mnist` installs them.
"""

import argparse
import gzip
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.memory import peak
from benchmarks.sides import Work

PARTS = {"train": "train", "test": "t10k"}  # our name of a split, and theirs


def read_idx(file: Path) -> npt.NDArray[np.uint8]:
    """Reads an array of bytes: 0, 0, type (8), number of sizes, big-endian sizes, values (LeCun)."""
    data = gzip.decompress(file.read_bytes())
    sizes = np.frombuffer(data, ">u4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(sizes)


def write_images(source: Path, target: Path) -> int:
    """Writes target/split/class/number.png; gives their number."""
    count = 0
    for split, part in PARTS.items():
        images = read_idx(source / f"{part}-images-idx3-ubyte.gz")
        labels = read_idx(source / f"{part}-labels-idx1-ubyte.gz")
        for label in np.unique(labels):
            (target / split / str(label)).mkdir(parents=True)
        for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            Image.fromarray(pixels).save(target / split / str(label) / f"{number:05d}.png")
        count += len(labels)
    return count


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fashion_mnist", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as top:
        work = Work(Path(top), arguments.workers, side="auto")
        work.forget()
        try:
            count = write_images(arguments.folder, work.images)
        except OSError as error:
            print(f"fashion_mnist: {error.filename} can't be read ({error.strerror})", file=sys.stderr)
            return 2
        steps: dict[str, Callable[[], object]] = {"scan": work.scan, "scan again": work.scan}
        for name, step in (steps | {"build": work.build}).items():
            start = time.perf_counter()
            step()
            taken = time.perf_counter() - start
            print(
                f"{name}: {count} images, {taken:.1f} s, {count / taken:.0f} a second, peak {peak():.0f} MB"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
