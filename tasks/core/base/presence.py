"""Whether what params.yaml names is there, and not only a pointer to it; and what brings it if it is not."""

from configparser import ConfigParser, Error
from pathlib import Path

from tasks.core.base.errors import DataError

MODULES = Path(".gitmodules")
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
IS_POINTER = "is a pointer of Git LFS; `git lfs pull` brings the content"


def tell_pointer(path: str | Path) -> str | None:
    """Says so where a file, or one in a folder, is only what Git LFS leaves of what it hasn't fetched.

    Raises:
        OSError: it can't be read.
    """
    top = Path(path)
    for file in (*top.glob("*"), *top.glob("variables/*")) if top.is_dir() else [top]:  # as of a SavedModel
        if file.is_file():
            with file.open("rb") as stream:
                if stream.read(len(LFS_POINTER)) == LFS_POINTER:
                    return f"{file} {IS_POINTER}"
    return None


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
    if told := tell_pointer(labels):
        raise DataError(f"data.labels: {told}")


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
