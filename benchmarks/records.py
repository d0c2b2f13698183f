"""What ways to pack records would save of a data set, and cost: `python -m benchmarks.records data/dataset`.

It takes up to 500 images that `build` has packed raw, and prints bytes an image beside raw ones, and
milliseconds on one core to write and to read one. PNG is `build.record: png`; gzip and zstd, of whole files,
are what TFRecord and others have.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import tensorflow as tf

from tasks.core.data import image_io
from tasks.core.training.dataset import Dataset

MOST, BATCH = 500, 100


def timed(work: Callable[[], Any], count: int) -> tuple[Any, float]:
    """What it comes to, and milliseconds an image of a core."""
    start = time.process_time()
    found = work()
    return found, (time.process_time() - start) * 1000 / count


def table(folder: Path) -> str:
    data = Dataset.load(folder)
    count = min(MOST, data.size("train"))
    images = [pixels for batch in data.read("train", BATCH, count) for pixels in batch["image"].numpy()]
    raw = [image_io.encode(pixels, "raw") for pixels in images]
    whole = b"".join(raw)
    packed, written = timed(lambda: [image_io.encode(pixels, "png") for pixels in images], len(images))
    _, read = timed(lambda: [tf.io.decode_png(one) for one in packed], len(images))
    lines = [f"| {len(images)} images of {data.image_size} pixels | smaller | written in | read in |"]
    lines += [
        "| --- | --- | --- | --- |",
        line("png", len(whole) / sum(map(len, packed)), written, read),
    ]
    for name, level in (("gzip", 1), ("zstd", 3)):
        codec = pa.Codec(name, compression_level=level)
        small, written = timed(partial(codec.compress, whole, asbytes=True), len(images))
        _, read = timed(partial(codec.decompress, small, decompressed_size=len(whole)), len(images))
        lines.append(line(f"{name} {level}", len(whole) / len(small), written, read))
    return "\n".join(lines)


def line(name: str, ratio: float, written: float, read: float) -> str:
    return f"| {name} | {ratio:.1f} times | {written:.2f} ms | {read:.2f} ms |"


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.records", description=__doc__)
    arguments.add_argument("folder", type=Path, nargs="?", default=Path("data/dataset"))
    print(table(arguments.parse_args().folder))


if __name__ == "__main__":
    main()
