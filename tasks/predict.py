"""Predicts pictures with an exported classifier of any format.

  python -m tasks.predict export/model.onnx picture.jpg folder/
  python -m tasks.predict export/saved_model folder/ --json > answers.json

The format is told by what is in the file. Folders are searched for pictures. A picture that can't be
read is named on stderr and passed over; the exit code is then 1, and 2 if none could be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tasks.core import cli, images, predictors
from tasks.core.contract import Contract
from tasks.core.errors import DataError
from tasks.core.layout import pictures_below

BATCH = 32


def listed(paths: list[Path]) -> list[Path]:
    """Replaces each folder by the pictures below it.

    Raises:
        DataError: a folder without pictures, or nothing of that name.
    """
    result = []
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} is not there; check the path")
        found = [path / name for name in pictures_below(path)] if path.is_dir() else [path]
        if not found:
            raise DataError(f"{path} holds no pictures; give a folder that does")
        result += found
    return result


def readable(
    paths: list[Path], contract: Contract, unread: list[Path]
) -> Iterator[tuple[Path, images.Pixels]]:
    """Reads pictures as the contract says; those that can't be read are named, and put in `unread`."""
    for path in paths:
        try:
            yield path, images.read(path, contract.image_size, contract.resize)
        except DataError as error:
            print(f"predict: {error}", file=sys.stderr)
            unread.append(path)


def batches(items: Iterator[tuple[Path, images.Pixels]]) -> Iterator[tuple[list[Path], np.ndarray]]:
    """Gathers up to `BATCH` pictures as float32 (n, size, size, 3) in [0, 1]."""
    while batch := list(islice(items, BATCH)):
        paths, pixels = zip(*batch, strict=True)
        yield list(paths), np.stack(pixels).astype(np.float32) / 255


def answer(path: Path, probabilities: np.ndarray, names: tuple[str, ...], top: int) -> dict[str, Any]:
    """One picture's class, its probability, and the likeliest `top` classes in order."""
    places = np.argsort(-probabilities, kind="stable")[:top]
    best = [{"class": names[place], "probability": round(float(probabilities[place]), 6)} for place in places]
    return {"path": str(path), **best[0], "top": best}


def predict(model: Path, files: list[Path], top: int, unread: list[Path]) -> Iterator[dict[str, Any]]:
    """Predicts every picture that can be read, in the order given; the others go into `unread`."""
    predictor = predictors.load(model)
    names = predictor.contract.class_names
    for batch, pixels in batches(readable(files, predictor.contract, unread)):
        for path, row in zip(batch, predictor.predict(pixels), strict=True):
            yield answer(path, row, names, top)


def line(result: dict[str, Any], width: int) -> str:
    """One row of the table: path, then the likeliest classes."""
    ranked = "  ".join(f"{item['class']} {item['probability']:.3f}" for item in result["top"])
    return f"{result['path']:<{width}}  {ranked}"


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("model", type=Path, help="an artifact of export/")
    parser.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE", help="a picture or a folder")
    parser.add_argument("--top", type=_positive, default=5, help="how many classes to show (default 5)")
    parser.add_argument("--json", action="store_true", help="a JSON list instead of a table")
    arguments = parser.parse_args()
    unread: list[Path] = []
    files = listed(arguments.pictures)
    results = predict(arguments.model, files, arguments.top, unread)
    if arguments.json:
        print(json.dumps(list(results), indent=2, ensure_ascii=False))
    else:
        width = max(len(str(path)) for path in files)
        for result in results:
            print(line(result, min(width, 60)))
    return 0 if not unread else 1 if len(unread) < len(files) else DataError.exit_code


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


if __name__ == "__main__":
    cli.command(main)
