"""Whether what params.yaml names is there, and not only a pointer to it; and what brings it if it is not."""

from configparser import ConfigParser, Error
from pathlib import Path

from tasks.core.base.errors import DataError

MODULES = Path(".gitmodules")
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
IS_POINTER = "is a pointer of Git LFS, in whose place `git lfs pull` puts the file"


def is_pointer(file: str | Path) -> bool:
    """Whether a file has only what Git LFS leaves where it hasn't fetched the content.

    Raises:
        OSError: it can't be read.
    """
    with Path(file).open("rb") as stream:
        return stream.read(len(LFS_POINTER)) == LFS_POINTER


def check_images(images: Path) -> None:
    """Refuses a folder of images that isn't there, or is an empty one that git or DVC has yet to fill.

    Raises:
        DataError: names the key, the value and the remedy.
    """
    if images.is_dir():
        if not any(images.iterdir()) and (remedy := _way_to_fetch(images)):
            raise DataError(f"data.images: {images} is empty; {remedy}")
        return
    remedy = _way_to_fetch(images) or "point it at your images"
    if images.is_file():
        remedy = "put it into a folder, and give that"
    elif str(images).startswith("~"):
        remedy += "; write ~ out in full"
    raise DataError(f"data.images: {images} is not a folder; {remedy}")


def check_labels(labels: Path) -> None:
    """Refuses a labels file that isn't there, or is only a pointer to it.

    Raises:
        DataError: names the key, the value and the remedy.
    """
    if not labels.is_file():
        remedy = _way_to_fetch(labels) or "give a CSV or Parquet of path,label"
        raise DataError(f"data.labels: {labels} is not a file; {remedy}")
    if is_pointer(labels):
        raise DataError(f"data.labels: {labels} {IS_POINTER}")


def _way_to_fetch(path: Path) -> str | None:
    """The command that brings what DVC or git knows of, be it the path or a folder that it lies in."""
    submodules = _submodules()
    for place in (path, *path.parents):
        file = place.parent / f"{place.name}.dvc"
        if place.name and file.is_file():
            return f"`dvc pull {file}` brings it"
        if place.as_posix() in submodules:
            return f"`git submodule update --init {place}` brings it"
    return None


def _submodules() -> set[str]:
    """Where git's submodules lie; none where its list can't be read."""
    found = ConfigParser(strict=False, interpolation=None)
    try:
        found.read(MODULES, "utf-8")
    except (Error, OSError, UnicodeDecodeError):
        return set()
    return {section.get("path", "") for section in found.values()}
