"""Listing the images in a folder and in the archives in it, whatever their labels."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tasks.core.base import console
from tasks.core.base.errors import AGAIN, DataError
from tasks.core.base.errors import remedy as remedy_for
from tasks.core.base.files import is_hidden
from tasks.core.data import archives, image_io


def _refuse_link(folder: str) -> None:
    raise DataError(
        f"{folder} is a link to a folder, which is not followed, since it may lead in a circle; give the "
        "folder that it leads to, or move its images here"
    )


def refuse_unseen(folder: str) -> None:
    raise DataError(
        f"{folder} is a link to a folder; DVC doesn't look behind such links, and changes "
        "there would go unseen: move the images here, or link each of them"
    )


def images_below(
    folder: Path,
    skipped: Counter[str] | None = None,
    *,
    strict: bool = False,
    on_link: Callable[[str], None] = _refuse_link,
) -> Iterator[str]:
    """Paths of all images below a folder, by suffix; hidden files and folders are passed over.

    Args:
        skipped: counts the suffixes of the other files while the paths are taken.
        strict: whether an archive that can't be listed is an error; else it is taken for an image.
        on_link: is told of each link to a folder, into which nobody looks.

    Raises:
        DataError: a folder that can't be listed; by default, one that is a link.
    """
    start = len(str(folder)) + 1
    for top, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in folders:
            if is_linked(f"{top}/{name}"):
                on_link(f"{top}/{name}")
        for name in sorted(name for name in files if not is_hidden(name)):
            file, inner = f"{top}/{name}", [""]
            if is_archive(file):
                try:
                    inner = [f"/{member}" for member in members(archives.Archive.of(file))]
                except DataError:
                    if strict:
                        raise
                    yield file[start:]
            for member in inner:
                suffix = suffix_of(name + member)
                if suffix in image_io.SUFFIXES:
                    yield f"{file}{member}"[start:]
                elif skipped is not None:
                    skipped[suffix] += 1


def list_images(folder: Path) -> list[str]:
    """Paths of all images below a folder, as `images_below` gives them; what isn't read is told of.

    Raises:
        DataError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give one with images")
    skipped: Counter[str] = Counter()
    paths = list(images_below(folder, skipped))
    if not paths:
        held = f", but {describe_suffixes(skipped)}" if skipped else ""
        raise DataError(f"{folder} holds no images{held}; give a folder that does")
    tell_skipped(folder, skipped)
    return paths


def images_in(archive: str) -> list[str]:
    """Paths of all images in an archive, with its own before them.

    Raises:
        DataError: it can't be listed.
    """
    names = members(archives.Archive.of(archive))
    return [f"{archive}/{name}" for name in names if suffix_of(name) in image_io.SUFFIXES]


def members(archive: archives.Archive) -> list[str]:
    """The files in an archive, but hidden ones and those of classes."""
    return sorted(
        name
        for name in archive.members
        if not archives.is_label(name) and not any(map(is_hidden, name.split("/")))
    )


def tell_skipped(folder: Path, skipped: Mapping[str, int]) -> None:
    """Tells of files that nobody reads: an image in another format would be missed without a word."""
    if skipped:
        console.warn(
            f"{folder}: passed over {describe_suffixes(skipped)}; no image is read that is called so"
        )


def describe_suffixes(suffixes: Mapping[str, int]) -> str:
    """How many files there are of each suffix, in words."""
    return ", ".join(f"{n} {suffix or 'without a suffix'}" for suffix, n in sorted(suffixes.items()))


def is_archive(path: str) -> bool:
    return suffix_of(path) in archives.SUFFIXES and os.path.isfile(path)  # noqa: PTH113


def is_linked(folder: str) -> bool:
    return os.path.islink(folder) and not os.path.isfile(folder)  # noqa: PTH113, PTH114 (an archive's)


def suffix_of(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122, a tenth of Path's time


def _refuse(error: OSError) -> None:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        raise DataError(f"{error.filename} went away while its images were listed; {AGAIN}")
    raise DataError(
        f"{error.filename} can't be listed ({error.strerror}); {remedy_for(error) or 'check its permissions'}"
    )
