"""Contact sheets: small images for a page, which holds each of them once."""

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from tasks.core.data import image_io

SIDE = 96  # pixels of a small image's longer side
MIN_SMOOTH_SIDE = 48  # pixels; what is smaller is shown with hard edges, as it is
MAX_CLASS_THUMBNAILS = 1500  # small images on the sheets of all classes; of photographs they take about 3 MB
UNREAD = "unread"
NOTES = 3  # expectations that a finding names


@dataclass(frozen=True)
class Thumbnail:
    """An image on a page: its path, and the CSS class that shows it."""

    path: str
    look: str


class Album:
    """The images of a page. Each is decoded and held once, however often it is shown.

    Args:
        folder: that their paths start from.
        digests: the sha256, by path, of those that could be read when they were validated.
    """

    def __init__(self, folder: Path, digests: pd.Series) -> None:
        self._folder, self._digests = folder, digests
        self._looks: dict[str, str] = {}
        self._rules: list[str] = []

    def image(self, path: str) -> Thumbnail:
        """Takes an image up, if it isn't in the album; one that can't be read has no look of its own.

        Raises:
            DataError: it could be read, and is not what it was then.
        """
        if path not in self._looks:
            self._looks[path] = self._look(path)
        return Thumbnail(path, self._looks[path])

    def _look(self, path: str) -> str:
        if path not in self._digests.index:
            return UNREAD
        self._rules.append(background(image_io.validated(self._folder / path, self._digests[path])))
        return f"i{len(self._rules) - 1}"

    def css(self) -> str:
        """A rule for each look."""
        return "\n".join(f".i{place}{{{rule}}}" for place, rule in enumerate(self._rules))


def background(data: bytes) -> str:
    """An image file as CSS, in WebP within a data URI and never enlarged."""
    small, _ = image_io.shrink(image_io.open_image(data), 2 * SIDE)
    small.thumbnail((SIDE, SIDE))
    edges = ";image-rendering:pixelated" if max(small.size) < MIN_SMOOTH_SIDE else ""
    return f"background-image:url({_data_uri(small, 75)}){edges}"


def embed(path: Path) -> str | None:
    """A whole sheet as a data URI, in WebP; none if there is no such file."""
    if not path.is_file():
        return None
    with Image.open(path) as sheet:
        return _data_uri(sheet, 80)


def _data_uri(image: Image.Image, quality: int) -> str:
    buffer = BytesIO()
    image.save(buffer, "WEBP", quality=quality)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


@dataclass(frozen=True)
class Sheet:
    """Some images of all that there are of a kind, in sets of what belongs together."""

    title: str
    total: int
    sets: list[list[Thumbnail]]
    together: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def shown(self) -> int:
        return sum(map(len, self.sets))


def of_classes(images: pd.DataFrame, album: Album, count: int) -> list[Sheet]:
    """A sheet for each class, of images drawn by their content: the same ones each time.

    Args:
        images: the readable ones, with `path`, `label` and `sha256`.
        count: images a sheet at most; fewer where there are so many classes that the page would burst.
    """
    classes = images[["path", "sha256"]].groupby(images["label"])
    each = min(count, max(1, MAX_CLASS_THUMBNAILS // max(1, len(classes))))
    return [
        Sheet(str(label), len(rows), [_take(_by_content(rows).head(each), album)]) for label, rows in classes
    ]


def _by_content(rows: pd.DataFrame) -> pd.Series:
    """Paths in the order of digests, one of each."""
    return rows.sort_values("sha256", kind="stable").drop_duplicates("sha256")["path"]


def of_findings(validation: dict[str, Any], album: Album, count: int) -> list[Sheet]:
    """A sheet for each kind of finding of `validation.json`, with what was asked for and what to do."""
    return [
        Sheet(
            kind.replace("_", " ").capitalize(),
            len(finding["paths"]),
            [_take(paths, album) for paths in _limit(finding.get("sets", [finding["paths"]]), count)],
            "sets" in finding,
            _notes(validation["expectations"], kind),
        )
        for kind, finding in validation["findings"].items()
    ]


def _take(paths: Iterable[str], album: Album) -> list[Thumbnail]:
    return [album.image(path) for path in paths]


def _limit(sets: Iterable[list[str]], count: int) -> Iterator[list[str]]:
    """The first sets, until they hold `count` images; none is cut down to a single image."""
    for paths in sets:
        shown = paths[:count]
        count -= len(shown)
        if len(shown) > 1 or shown == paths:
            yield shown


def _notes(expectations: list[dict[str, Any]], kind: str) -> list[str]:
    """What was asked for and is not met, or is within a tolerance, in a sentence each."""
    found = [o for o in expectations if o["kind"] == kind and (o["paths"] or not o["passed"])]
    more = [f"And {len(found) - NOTES} more of the kind."] if len(found) > NOTES else []
    return [*map(_note, found[:NOTES]), *more]


def _note(outcome: dict[str, Any]) -> str:
    seen = outcome["observed"]
    shown = outcome["details"] or (f"{seen:.4g}" if isinstance(seen, float) else seen)
    end = "." if outcome["passed"] else f". To do: {outcome['remedy']}."
    text = f"{outcome['name']}: {shown}. Asked for: {outcome['expected']}{end}"
    return text[0].upper() + text[1:]
