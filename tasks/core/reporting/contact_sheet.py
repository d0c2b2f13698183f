"""Many images on one, to be looked at together."""

from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from tasks.core.data import image_io

COLUMNS = 8
TILE = 112  # pixels of an image's square
GAP = 4


def box(place: int) -> tuple[int, int, int, int]:
    """Where the image of this place lies, in pixels: left, top, right, bottom; rows are filled in turn."""
    row, column = divmod(place, COLUMNS)
    left, top = GAP + column * (TILE + GAP), GAP + row * (TILE + GAP)
    return left, top, left + TILE, top + TILE


def contact_sheet(files: Iterable[Path]) -> Image.Image:
    """Draws images whole, in their order, in rows of `COLUMNS` on white.

    Raises:
        DataError: one of them can't be read.
    """
    tiles = [Image.fromarray(image_io.read(file, TILE, "pad")) for file in files]
    right = max(box(place)[2] for place in range(len(tiles)))
    sheet = Image.new("RGB", (right + GAP, box(len(tiles) - 1)[3] + GAP), "white")
    for place, tile in enumerate(tiles):
        sheet.paste(tile, box(place))
    return sheet
