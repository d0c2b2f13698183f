"""Finding the images of a folder and of the archives in it: three layouts, recognized automatically."""

import os
import re
import sys
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tasks.core.base import console, presence
from tasks.core.base.errors import DataError, first_of
from tasks.core.base.files import is_hidden
from tasks.core.data import archives, image_io, labels_file
from tasks.core.data.entries import HINTS, Entry, check_names
from tasks.core.data.listing import (
    describe_suffixes,
    images_below,
    members,
    refuse_unseen,
    suffix_of,
)

# Words in names of splits that aren't called so.
OTHERS = ("validate", "eval", "evaluation", "holdout", "extra", "pred", "unseen")
LIKE_SPLITS = HINTS | {name: name for name in OTHERS}
WORDS = re.compile("[a-z]+")
SHOWN = 5  # folders that a line names


def discover(folder: Path, labels: Path) -> tuple[list[Entry], dict[str, int]]:
    """Lists the images of a folder in one of three layouts, in the order of their paths.

    A labels file with rows wins; else `train|validation|test/class/image` where the folders at the top
    have such names; else `class/image`. Images may lie deeper within a class.

    What is in an archive counts as if it lay in the archive's folder. One at the top whose name begins as
    that of a split counts as that split's folder. A `.cls` file gives the class of an image beside it in an
    archive, as in WebDataset, whatever folders they lie in.

    A link to a file is followed wherever it leads, as DVC does; a link to a folder is refused.

    Returns:
        The images, and how many files were skipped, since no image is called so, by suffix.

    Raises:
        DataError: no such folder, nothing in it, images outside of every class, a class folder without any,
            one class only, classes that look alike or break lines, or classes beside splits.
        PermissionError: a folder may not be looked into.
    """
    presence.check_images(folder)
    skipped: Counter[str] = Counter()
    named = labels_file.read_entries(folder, labels)
    below = images_below(folder, skipped, strict=not named, on_link=refuse_unseen)
    entries = named or _by_folder(folder, below)
    if not entries:
        known = " ".join(sorted(image_io.SUFFIXES))
        seen = f", but {describe_suffixes(skipped)}" if skipped else ""
        raise DataError(
            f"data.images: {folder} holds no image ({known}) in a class folder{seen}; lay them out as "
            "class/image, in folders, .zip or .tar that is not compressed"
        )
    classes = {entry.label for entry in entries}
    check_names(classes)
    if len(classes) < 2:
        (only,), remedy = classes, ""
        if any(archives.INTO.search(entry.path) for entry in entries):
            remedy = "; an archive counts from its top, without a folder around the classes"
        elif not named and sum(path.is_dir() for path in (folder / only).glob("*")) > 1:
            remedy = f"; if the classes are the folders in it, give {folder / only}"
        raise DataError(
            f"data.images: {folder} holds one class only, {only!r}; a classifier needs at least two{remedy}"
        )
    deque(below, maxlen=0)  # the walk is still to be made where the labels file named the images
    return sorted(entries, key=lambda entry: entry.path), dict(sorted(skipped.items()))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an image lies. parts: of its path, without the archive's name, which `archive` and `name` say.

    split: that the name of an archive at the top begins with, or the text in its place.
    """

    path: str
    parts: list[str]
    archive: archives.Archive | None = None
    name: str = ""
    split: str = ""

    @classmethod
    def of(cls, folder: Path, path: str) -> Self:
        if not (found := archives.find(f"{folder}/{path}")):
            return cls(path, path.split("/"))
        archive, name = found
        *above, file = path.removesuffix(f"/{name}").split("/")
        words, parts = re.match("[a-z]+", file.lower()), [*above, *name.split("/")]
        named = words is not None and words[0] in HINTS and not above and parts[0].lower() not in HINTS
        return cls(path, parts, archive, name, words[0] if words and named else "")

    @property
    def in_split(self) -> list[str]:
        """The parts, where archives count as folders of splits."""
        return [self.split, *self.parts] if self.split else self.parts

    def label(self, parts: list[str], depth: int) -> str | None:
        """The class that a file beside it in an archive says, else its folder, the `depth`th part."""
        said = self.archive.label(self.name) if self.archive else None
        return said or (parts[depth - 1] if len(parts) > depth else None)


def _by_folder(folder: Path, below: Iterable[str]) -> list[Entry]:
    folders = [path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name)]
    places = [_Place.of(folder, path) for path in below]
    _check_unpacked(folder, places)
    _check_doubled(folder, places)
    inner = {place.in_split[0] for place in places if place.archive and len(place.in_split) > 1}
    hinted = _are_splits(folder, sorted({*folders, *inner}))
    depth = 2 if hinted else 1
    entries, known = [], set()
    for place in places:
        parts = place.in_split if hinted else place.parts
        label = place.label(parts, depth)
        if label is None:
            remedy = "move it into one or out of there"
            if place.archive:
                remedy = "pack it with a folder of its class, or with a .cls file beside it that says that"
            if place.archive and "\\" in place.name:
                remedy = "make the archive anew with / in its names in place of \\"
            raise DataError(
                f"data.images: {folder / place.path} lies outside of every class folder; {remedy}"
            )
        hint = HINTS.get(parts[0].lower()) if hinted else None
        entries.append(Entry(place.path, sys.intern(label), None, hint))
        known.add(parts[depth - 1] if len(parts) > depth else label)
    if not hinted:
        _check_splits(folder, places)
        _tell_of_classes_within(folder, places)
    _check_classes_in_archives(folder, places, known, depth)
    _check_wrapped(places)
    of_classes = [folder / top for top in folders]
    if depth == 2:
        of_classes = [each for top in of_classes for each in top.iterdir() if each.is_dir()]
    empty = [each for each in sorted(of_classes) if each.name not in known and not is_hidden(each.name)]
    if entries and empty:
        held = _files_in(empty[0])
        remedy = f", but {held}; convert these to a format that is read" if held else "; put some there"
        raise DataError(f"data.images: {empty[0]} holds no image{remedy}, or remove the folder")
    return entries


def _are_splits(folder: Path, tops: list[str]) -> bool:
    """Whether the folders at the top are splits; a single one with such a name may well be a class."""
    splits = sorted(top for top in tops if top.lower() in HINTS)
    others = sorted(set(tops) - set(splits))
    if len({HINTS[top.lower()] for top in splits}) > 1 and others:
        raise DataError(
            f"data.images: {folder} holds the splits {', '.join(splits)} and beside them {others[0]}; "
            "move it away, or name the images' classes in data.labels"
        )
    return bool(splits) and not others


def _check_doubled(folder: Path, places: list[_Place]) -> None:
    """Refuses splits of which each lies in a folder of its own name: `seg_train/seg_train/cat/1.jpg`."""
    parts = {tuple(place.parts[:2]) for place in places}
    kinds = {_kind_of_split(top) for top, *_ in parts}
    if len(kinds) > 1 and None not in kinds and all(len(each) == 2 and len(set(each)) == 1 for each in parts):
        doubled = first_of([f"{top}/{top}" for top, _ in sorted(parts)], SHOWN)
        raise DataError(
            f"data.images: {folder} holds {doubled}, which would make classes of splits; "
            "move what is in each inner folder up, into the outer one"
        )


def _check_splits(folder: Path, places: list[_Place]) -> None:
    """Refuses folders and archives that are called nearly as splits are, and hold the same folders."""
    inner: dict[str, set[str]] = {}
    for place in places:
        top, label = place.path.partition("/")[0], place.label(place.parts, 1)
        is_at_top = place.archive is not None and place.archive.file == f"{folder}/{top}"
        if is_at_top and _kind_of_split(place.parts[0]) is None:
            inner.setdefault(top, set()).add(label or "")
        elif len(place.parts) < 3 or label != place.parts[0]:
            return
        else:
            inner.setdefault(place.parts[0], set()).add(place.parts[1])
    kinds = {top: _kind_of_split(top) for top in inner}
    if None not in kinds.values() and len(set(kinds.values())) > 1 and set.intersection(*inner.values()):
        raise DataError(
            f"data.images: {folder} holds {' and '.join(sorted(kinds))}, which would be taken for no splits; "
            "name splits train, validation and test; if these are none, name the classes in data.labels"
        )


def _tell_of_classes_within(folder: Path, places: list[_Place]) -> None:
    """Warns where all classes hold the same folders: `color/rose` beside `grey/rose` are copies of a set."""
    inner: dict[str, set[str]] = {}
    for place in places:
        inner.setdefault(place.parts[0], set()).add(place.parts[1] if len(place.parts) > 2 else "")
    first = next(iter(inner.values()), set[str]())
    if len(inner) > 1 and len(first) > 1 and all(each == first for each in inner.values()):
        console.warn(
            f"data.images: the classes of {folder}, {first_of(sorted(inner), SHOWN)}, all hold the folders "
            f"{first_of(sorted(first), SHOWN)}; if these are the classes, give {folder / min(inner)}"
        )


def _kind_of_split(name: str) -> str | None:
    """The split that a word in a name says, if one does: of `test_set` or `testset` test."""
    words = (word.removesuffix("set") for word in WORDS.findall(name.lower()))
    return next((LIKE_SPLITS[word] for word in words if word in LIKE_SPLITS), None)


def _check_wrapped(places: list[_Place]) -> None:
    """Refuses archives with a folder around folders that are classes elsewhere: it would be taken for one."""
    inner: dict[archives.Archive | None, set[tuple[str, ...]]] = {}
    for place in places:
        inner.setdefault(place.archive, set()).add(tuple(place.parts[:3]))
    for archive, parts in inner.items():
        tops = {each[0] for each in parts}
        within = {each[1] for each in parts if len(each) == 3}
        if archive is None or len(tops) > 1 or min(map(len, parts)) < 3:
            continue
        others = {part[0] for other, each in inner.items() if other != archive for part in each if part[1:]}
        if tops.isdisjoint(HINTS) and (shared := sorted(within & others)):
            raise DataError(
                f"data.images: {archive.file} has a folder {tops.pop()!r} around {shared[0]!r}, which is a "
                "class elsewhere; pack what is in that folder, without it"
            )


def _check_unpacked(folder: Path, places: list[_Place]) -> None:
    """Refuses an archive beside what has been unpacked from it."""
    loose = {place.path for place in places if not place.archive}
    for place in places:
        if place.archive and "/".join(place.parts) in loose:
            raise DataError(
                f"data.images: {folder / place.path} lies beside the archive as well; move the archive "
                "or what was unpacked from it out of there"
            )


def _check_classes_in_archives(folder: Path, places: list[_Place], known: set[str], depth: int) -> None:
    """Refuses a class folder in an archive that holds no image, but files that aren't read."""
    for archive in dict.fromkeys(place.archive for place in places if place.archive):
        path = os.path.relpath(archive.file, folder)
        others = [name for name in members(archive) if suffix_of(name) not in image_io.SUFFIXES]
        lost: dict[str, Counter[str]] = {}
        for name in others:
            place = _Place.of(folder, f"{path}/{name}")
            parts = place.in_split if depth == 2 else place.parts
            if len(parts) > depth and parts[depth - 1] not in known:
                lost.setdefault(parts[depth - 1], Counter())[suffix_of(name)] += 1
        if lost:
            label, suffixes = min(lost.items(), key=lambda each: each[0])
            raise DataError(
                f"data.images: the class {label!r} in {archive.file} holds no image, but "
                f"{describe_suffixes(suffixes)}; convert these to a format that is read, or take them out"
            )


def _files_in(folder: Path) -> str:
    """How many files of each suffix there are below a folder."""
    names = (name for *_, files in os.walk(folder) for name in files if not is_hidden(name))
    return describe_suffixes(Counter(Path(name).suffix.lower() for name in names))
