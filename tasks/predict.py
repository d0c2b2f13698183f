"""Predicts images with an exported classifier of any format.

  python -m tasks.predict export/model.onnx image.jpg folder/ 'more/*.png'
  python -m tasks.predict export/saved_model folder/ --json > answers.json
  find photos -name '*.jpg' | python -m tasks.predict export/model.tflite - --csv
  python -m tasks.predict export/model.onnx image.jpg --explain why/

The format is recognized by the file's content. Folders and archives are searched for images; `-` reads paths,
one a line, or one image from stdin. An image that can't be read is named on stderr and passed over; the exit
code is then 1, and 2 if none could be read.
"""

import argparse
import csv
import glob
import hashlib
import json
import os
import sys
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from tasks.core.artifacts import runtimes
from tasks.core.base import cli, console, params, process
from tasks.core.base.contract import Contract
from tasks.core.base.errors import DataError, ParamError
from tasks.core.base.files import replacing
from tasks.core.base.params import Data
from tasks.core.data import image_io
from tasks.core.data.listing import images_below, images_in, is_archive, tell_skipped
from tasks.core.inference import saliency
from tasks.core.inference.predictor import Predictor, load_predictor
from tasks.core.inference.target import check_target

BATCH = 32
STDIN = "-"


@dataclass(frozen=True)
class Params(params.Section):
    data: Data


@dataclass(frozen=True)
class Source:
    """An image to be read: a file, or what came from stdin."""

    name: str
    data: bytes | None = None


def list_sources(names: list[str], stdin: Any = None) -> list[Source]:
    """Replaces folders and archives by the images in them, patterns by what they match, `-` by what comes in.

    Raises:
        DataError: a folder or a pattern without images, or nothing of use from stdin.
    """
    return [
        source for name in names for source in (_from_stdin(stdin) if name == STDIN else _from_name(name))
    ]


def _from_name(name: str) -> list[Source]:
    is_pattern = glob.has_magic(name) and not os.path.exists(name)  # noqa: PTH110
    named = (_matches(name) if is_pattern else []) or [name]
    # By path, since ** matches a folder and what is in it.
    found = {Path(image): image for one in named for image in _images(one)}
    if not found:
        raise DataError(f"{name} holds no images; give a folder or an archive that does")
    return [Source(one) for one in found.values()]


def _matches(pattern: str) -> list[str]:
    """The files and folders that a pattern matches, but for folders that are linked, and what is in them."""
    found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207, which takes no absolute patterns
    linked = {path for path in map(Path, found) if path.is_dir() and path.is_symlink()}
    for folder in sorted(linked):
        _pass_over(str(folder))
    kept = [match for match in found if linked.isdisjoint([Path(match), *Path(match).parents])]
    return [match for match in kept if Path(match).is_file() or Path(match).is_dir()]


def _images(name: str) -> list[str]:
    """Those in a folder or an archive; else, or if that can't be listed, itself as one."""
    path = Path(name)
    if os.path.isdir(name):  # noqa: PTH112, which says no where nobody may look
        skipped: Counter[str] = Counter()
        found = [str(path / below) for below in images_below(path, skipped, on_link=_pass_over)]
        tell_skipped(path, skipped)
        return found
    try:
        return images_in(name) if is_archive(name) else [name]
    except DataError:
        return [name]


@cache  # to tell it once, though ** matches folders and those in them
def _pass_over(folder: str) -> None:
    console.warn(f"predict: {folder} is a link to a folder, and passed over; name it, if it is meant")


def _from_stdin(stdin: Any) -> list[Source]:
    data = stdin.read()
    try:
        image_io.open_image(data)
    except DataError:
        if b"\0" in data:  # which no path holds
            raise DataError("stdin holds neither an image nor paths; give one of the two") from None
        lines = [line.removesuffix(b"\r") for line in data.removeprefix(BOM_UTF8).split(b"\n")]
        if not any(lines):
            raise DataError("stdin is empty; give an image or paths, one a line") from None
        # A path is bytes, of which only a line feed ends a line: no other separator of Unicode's does.
        return [source for line in lines if line for source in _from_name(os.fsdecode(line))]
    return [Source("stdin", data)]


def read_images(
    sources: list[Source], contract: Contract, unread: list[str]
) -> Iterator[tuple[Source, image_io.Pixels]]:
    """Reads images as the contract says; those that can't be read are named, and put in `unread`."""
    for source in sources:
        path = Path(source.name)
        try:
            data = image_io.content(path) if source.data is None else source.data
            yield source, image_io.pixels(data, path, contract.image_size, contract.resize)
        except DataError as error:
            console.warn(f"predict: {error}")
            unread.append(source.name)


@dataclass(frozen=True)
class Answer:
    """What a classifier says of an image: its pixels as it saw them, and the probability of each class."""

    path: str
    pixels: image_io.Pixels
    probabilities: np.ndarray
    names: tuple[str, ...]

    def best(self, top: int) -> list[dict[str, Any]]:
        """The likeliest classes, in order."""
        places = np.argsort(-self.probabilities, kind="stable")[:top]
        return [
            {"class": self.names[place], "probability": round(float(self.probabilities[place]), 6)}
            for place in places
        ]


def predict(predictor: Predictor, sources: list[Source], batch: int, unread: list[str]) -> Iterator[Answer]:
    """Predicts what can be read, in the order given; the names of the others go into `unread`."""
    names = predictor.contract.class_names
    items = read_images(sources, predictor.contract, unread)
    while taken := list(islice(items, batch)):
        pixels = np.stack([one for _, one in taken])
        rows = predictor.predict(runtimes.floats(pixels))
        for (source, one), row in zip(taken, rows, strict=True):
            yield Answer(source.name, one, row, names)


def explain(predictor: Predictor, answer: Answer, folder: Path) -> Path:
    """Draws which parts of an image speak for its class, into a file named after the image."""
    drops = saliency.occlusion(
        runtimes.floats(answer.pixels), predictor.predict, int(answer.probabilities.argmax())
    )
    digest = hashlib.sha256(os.fsencode(answer.path)).hexdigest()[:8]  # others may have the same name
    stem = os.fsencode(Path(answer.path).stem)[:60].decode("utf-8", "ignore")  # names are short in bytes
    file = folder / f"{stem}-{digest}.png"
    with replacing(file) as temporary:
        (best,) = answer.best(1)
        caption = f"{best['class']} {best['probability']:.3f}"
        saliency.drawing(answer.pixels, drops, caption).save(temporary, "PNG")
    return file


# Three ways to write answers. Each row is written when it is known.


def as_table(rows: Iterator[dict[str, Any]], out: TextIO, width: int) -> None:
    """Path, then the likeliest classes."""
    for row in rows:
        ranked = "  ".join(f"{item['class']} {item['probability']:.3f}" for item in row["top"])
        print(f"{row['path']:<{width}}  {ranked}", file=out)


def as_json(rows: Iterator[dict[str, Any]], out: TextIO) -> None:
    """A list of objects: `path`, `class`, `probability`, and `top` with the likeliest classes in order."""
    out.write("[")
    for place, row in enumerate(rows):
        text = json.dumps(row, indent=2, ensure_ascii=False).replace("\n", "\n  ")
        out.write(f"{',' if place else ''}\n  {text}")
    out.write("\n]\n")


def as_csv(rows: Iterator[dict[str, Any]], out: TextIO, top: int) -> None:
    """`path,class,probability`, then `class_2,probability_2` and so on."""
    writer = csv.writer(out, lineterminator="\n")
    more = [f"{name}_{place}" for place in range(2, top + 1) for name in ("class", "probability")]
    writer.writerow(["path", "class", "probability", *more])
    for row in rows:
        values = [value for item in row["top"] for value in (item["class"], item["probability"])]
        writer.writerow([row["path"], *values])


def main() -> int:
    arguments = _arguments()
    if "stdout" in process.closed:
        raise DataError("stdout is closed, where the answers go; point it at a file or a pipe")
    # Names may be no text; and JSON is UTF-8 wherever it goes, as is CSV, for no name to be lost.
    encoding = "utf-8" if arguments.json or arguments.csv else None
    sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")  # type: ignore[union-attr]
    if arguments.explain:
        asked = [Path(name) for name in arguments.images if name != STDIN and Path(name).is_dir()]
        check_target("--explain", arguments.explain, *asked, *_known_images())
    unread: list[str] = []
    sources = list_sources(arguments.images, sys.stdin.buffer)
    predictor = load_predictor(arguments.model)

    def rows() -> Iterator[dict[str, Any]]:
        for answer in predict(predictor, sources, arguments.batch, unread):
            best = answer.best(arguments.top)
            row = {"path": answer.path, **best[0], "top": best}
            if arguments.explain:
                row["explanation"] = str(explain(predictor, answer, arguments.explain))
            yield row

    if arguments.json:
        as_json(rows(), sys.stdout)
    elif arguments.csv:
        as_csv(rows(), sys.stdout, min(arguments.top, len(predictor.contract.class_names)))
    else:
        as_table(rows(), sys.stdout, min(60, max(len(source.name) for source in sources)))
    return 0 if not unread else 1 if len(unread) < len(sources) else DataError.exit_code


def _known_images() -> list[Path]:
    """The folder that a run reads; none where params.yaml can't be read, which predicting doesn't need."""
    try:
        return [Path(params.load(Params).data.images)]
    except ParamError:
        return []


def _arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("model", type=cli.path, help="an artifact of export/")
    parser.add_argument(
        "images",
        nargs="+",
        type=cli.given,
        metavar="IMAGE",
        help="an image, a folder, an archive, a pattern, or -",
    )
    parser.add_argument("--top", type=cli.whole(1), default=5, help="how many classes to show (default 5)")
    parser.add_argument("--batch", type=cli.whole(1), default=BATCH, help=f"images at once (default {BATCH})")
    parser.add_argument(
        "--explain",
        type=cli.path,
        metavar="FOLDER",
        help="draw there which parts each prediction depends on, beside the image",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a JSON list instead of a table")
    form.add_argument("--csv", action="store_true", help="CSV instead of a table")
    return parser.parse_args()


if __name__ == "__main__":
    cli.command(main)
