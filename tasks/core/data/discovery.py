"""Finding the images of a folder and of the archives in it: three layouts, recognized automatically."""

import difflib
import os
import re
import sys
import unicodedata
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.core.base import console, presence
from tasks.core.base.errors import AGAIN, DataError, brief
from tasks.core.base.errors import remedy as remedy_for
from tasks.core.data import archives, image_io

HINTS = (  # what people call the splits, in lower case
    dict.fromkeys(("train", "training"), "train")
    | dict.fromkeys(("validation", "val", "valid", "dev"), "validation")
    | dict.fromkeys(("test", "testing"), "test")
)
# Words in names of splits that aren't called so.
OTHERS = ("validate", "eval", "evaluation", "holdout", "extra", "pred", "unseen")
LIKE_SPLITS = HINTS | {name: name for name in OTHERS}
WORDS = re.compile("[a-z]+")
COLUMNS = ("path", "label", "group", "split")  # of a labels file; others are the user's own
# Characters of no width that are no part of a letter, for `str.translate` to remove.
UNSEEN = dict.fromkeys((0x200B, 0x2060, 0xFEFF, 0x00AD, 0x200E, 0x200F))
SHOWN = 100  # characters of a path
BREAKING = ("Cc", "Zl", "Zp")  # categories of Unicode: what ends a line, or does something else but show
# Bidirectional classes of Unicode: what has the text after it shown in another order.
REORDERING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


@dataclass(frozen=True, slots=True)
class Entry:
    """An image as the folders or the labels file name it, not yet opened."""

    path: str  # from the images' folder, with slashes
    label: str
    group: str | None
    split_hint: str | None


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
    """
    presence.check_images(folder)
    skipped: Counter[str] = Counter()
    named = _read_entries(folder, labels)
    below = images_below(folder, skipped, strict=not named, on_link=_refuse_unseen)
    entries = named or _by_folder(folder, below)
    if not entries:
        known = " ".join(sorted(image_io.SUFFIXES))
        seen = f", but {describe_suffixes(skipped)}" if skipped else ""
        raise DataError(
            f"data.images: {folder} holds no image ({known}) in a class folder{seen}; lay them out as "
            "class/image, in folders, .zip or .tar that is not compressed"
        )
    classes = {entry.label for entry in entries}
    _check_names(classes)
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


def own_columns(labels: Path) -> pd.DataFrame:
    """The user's own columns of a labels file, text by path; none where there are none."""
    frame = _read_labels(labels).set_index("path")
    own: pd.DataFrame = frame.drop(columns=[name for name in COLUMNS if name in frame])
    return own.where(own != "")


def _refuse_unseen(folder: str) -> None:
    raise DataError(
        f"{folder} is a link to a folder; DVC doesn't look behind such links, and changes "
        "there would go unseen: move the images here, or link each of them"
    )


def _refuse_link(folder: str) -> None:
    raise DataError(
        f"{folder} is a link to a folder, which is not followed, since it may lead in a circle; give the "
        "folder that it leads to, or move its images here"
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
        folders[:] = sorted(name for name in folders if not _hidden(name))
        for name in folders:
            if _is_linked(f"{top}/{name}"):
                on_link(f"{top}/{name}")
        for name in sorted(name for name in files if not _hidden(name)):
            file, inner = f"{top}/{name}", [""]
            if is_archive(file):
                try:
                    inner = [f"/{member}" for member in _members(archives.Archive.of(file))]
                except DataError:
                    if strict:
                        raise
                    yield file[start:]
            for member in inner:
                suffix = _suffix(name + member)
                if suffix in image_io.SUFFIXES:
                    yield f"{file}{member}"[start:]
                elif skipped is not None:
                    skipped[suffix] += 1


def is_archive(path: str) -> bool:
    return _suffix(path) in archives.SUFFIXES and os.path.isfile(path)  # noqa: PTH113


def images_in(archive: str) -> list[str]:
    """Paths of all images in an archive, with its own before them.

    Raises:
        DataError: it can't be listed.
    """
    names = _members(archives.Archive.of(archive))
    return [f"{archive}/{name}" for name in names if _suffix(name) in image_io.SUFFIXES]


def _members(archive: archives.Archive) -> list[str]:
    """The files in an archive, but hidden ones and those of classes."""
    return sorted(
        name
        for name in archive.members
        if not archives.is_label(name) and not any(map(_hidden, name.split("/")))
    )


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122, a tenth of Path's time


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


def tell_skipped(folder: Path, skipped: Mapping[str, int]) -> None:
    """Tells of files that nobody reads: an image in another format would be missed without a word."""
    if skipped:
        console.warn(
            f"{folder}: passed over {describe_suffixes(skipped)}; no image is read that is called so"
        )


def _is_linked(folder: str) -> bool:
    return os.path.islink(folder) and not os.path.isfile(folder)  # noqa: PTH113, PTH114 (an archive's)


def _refuse(error: OSError) -> None:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        raise DataError(f"{error.filename} went away while its images were listed; {AGAIN}")
    raise DataError(
        f"{error.filename} can't be listed ({error.strerror}); {remedy_for(error) or 'check its permissions'}"
    )


def _hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX", "@eaDir"))  # what macOS and Synology leave behind


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
    folders = [path.name for path in folder.iterdir() if path.is_dir() and not _hidden(path.name)]
    places = [_Place.of(folder, path) for path in below]
    _check_unpacked(folder, places)
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
    _check_classes_in_archives(folder, places, known, depth)
    _check_wrapped(places)
    of_classes = [folder / top for top in folders]
    if depth == 2:
        of_classes = [each for top in of_classes for each in top.iterdir() if each.is_dir()]
    empty = [each for each in sorted(of_classes) if each.name not in known and not _hidden(each.name)]
    if entries and empty:
        held = _files_in(empty[0])
        remedy = f", but {held}; convert these to a format that is read" if held else "; put some there"
        raise DataError(f"data.images: {empty[0]} holds no image{remedy}, or remove the folder")
    return entries


def _check_classes_in_archives(folder: Path, places: list[_Place], known: set[str], depth: int) -> None:
    """Refuses a class folder in an archive that holds no image, but files that aren't read."""
    for archive in dict.fromkeys(place.archive for place in places if place.archive):
        path = os.path.relpath(archive.file, folder)
        others = [name for name in _members(archive) if _suffix(name) not in image_io.SUFFIXES]
        lost: dict[str, Counter[str]] = {}
        for name in others:
            place = _Place.of(folder, f"{path}/{name}")
            parts = place.in_split if depth == 2 else place.parts
            if len(parts) > depth and parts[depth - 1] not in known:
                lost.setdefault(parts[depth - 1], Counter())[_suffix(name)] += 1
        if lost:
            label, suffixes = min(lost.items(), key=lambda each: each[0])
            raise DataError(
                f"data.images: the class {label!r} in {archive.file} holds no image, but "
                f"{describe_suffixes(suffixes)}; convert these to a format that is read, or take them out"
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


def _files_in(folder: Path) -> str:
    """How many files of each suffix there are below a folder."""
    names = (name for *_, files in os.walk(folder) for name in files if not _hidden(name))
    return describe_suffixes(Counter(Path(name).suffix.lower() for name in names))


def describe_suffixes(suffixes: Mapping[str, int]) -> str:
    """How many files there are of each suffix, in words."""
    return ", ".join(f"{n} {suffix or 'without a suffix'}" for suffix, n in sorted(suffixes.items()))


def _check_names(classes: Iterable[str]) -> None:
    """Refuses classes that nobody can tell from one another, and those that are more than one line."""
    known: dict[str, str] = {}
    for label in sorted(classes):
        if any(
            unicodedata.category(character) in BREAKING or unicodedata.bidirectional(character) in REORDERING
            for character in label
        ):
            raise DataError(f"the class {label!a} holds a line end or another control character; take it out")
        twin = known.setdefault(_appearance(label), label)
        if twin != label:
            raise DataError(
                f"the classes {twin!a} and {label!a} look alike, but for blanks or for how Unicode "
                "writes a letter; give them one name"
            )


def _appearance(text: str) -> str:
    """What is seen of a text: its letters, each composed in one way, and single blanks between words."""
    return " ".join(unicodedata.normalize("NFC", text.translate(UNSEEN)).split())


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


def _read_entries(folder: Path, labels: Path) -> list[Entry]:
    """Entries of the labels file; none where it has no rows."""
    frame = _read_labels(labels)
    _check_columns(labels, list(frame.columns))
    frame = frame.astype(object).where(frame.notna() & (frame != ""), None)
    twice = frame["path"][frame["path"].duplicated() & frame["path"].notna()]
    if len(twice):
        given = frame["label"][frame["path"] == twice.iloc[0]].unique()
        labelled = f" with the labels {', '.join(map(repr, given))}" if len(given) > 1 else ""
        raise DataError(f"data.labels: {labels} lists {twice.iloc[0]!r} twice{labelled}; keep one row")
    entries = [_row_entry(labels, row) for row in frame.to_dict("records")]
    _check_files(folder, labels, entries)
    return entries


def _check_columns(labels: Path, columns: list[str]) -> None:
    for name in ("path", "label"):
        if name not in columns:
            had = ", ".join(map(repr, columns))
            raise DataError(
                f"data.labels: {labels} has no column {name!r} but {had}; its first line must be path,label"
            )
    for name in set(columns) - set(COLUMNS):
        if meant := difflib.get_close_matches(name.lower(), set(COLUMNS) - set(columns), 1, 0.8):
            raise DataError(
                f"data.labels: {labels} has a column {name!r}, which is nearly {meant[0]!r}; name it so, "
                "or something else"
            )


def _row_entry(labels: Path, row: dict[Any, Any]) -> Entry:
    path, label, hint = row["path"], row["label"], row.get("split")
    if path is None or label is None or not _appearance(label):
        raise DataError(f"data.labels: {labels} has a row without a path or label ({row}); fill it in")
    if hint is not None and hint.lower() not in HINTS:
        raise DataError(
            f"data.labels: {labels} gives {path!r} the split {hint!r}; it must be {', '.join(HINTS)} or empty"
        )
    if path.split("/")[0] in ("", "..") or os.path.normpath(path) != path:
        raise DataError(
            f"data.labels: {labels} lists {_shown(path)}; paths start at data.images and stay below it, "
            "without . and .. in them"
        )
    group = row.get("group")
    return Entry(
        path, sys.intern(label), (group and _appearance(group)) or None, HINTS[hint.lower()] if hint else None
    )


def _check_files(folder: Path, labels: Path, entries: list[Entry]) -> None:
    missing = [entry.path for entry in entries if not archives.is_there(folder / entry.path)]
    if missing:
        raise DataError(
            f"data.labels: {labels} lists {_shown(missing[0])}, which is not in {folder} ({len(missing)} of "
            f"{len(entries)} are not); {_remedy(folder, missing[0])}"
        )
    parents = {parent for entry in entries for parent in PurePath(entry.path).parents if parent.name}
    for parent in sorted(parents):
        if _is_linked(f"{folder}/{parent}"):
            _refuse_unseen(f"{folder}/{parent}")


def _shown(path: str) -> str:
    """A path that may be anything, in a line."""
    return repr(path if len(path) < SHOWN else f"{path[:SHOWN]}...")


def _remedy(folder: Path, path: str) -> str:
    """What to do about a path that is not there."""
    if "\n" in path:
        return "a quote before it is not closed, perhaps"
    first, _, below = path.partition("/")
    table = {
        "write paths with / in place of \\": path.replace("\\", "/"),
        "leave out the blanks around it": path.strip(),
        f"paths start at data.images: leave out {first}/": below,
        "write its letters in NFC, as the file's name has them": unicodedata.normalize("NFC", path),
        "write its letters in NFD, as the file's name has them": unicodedata.normalize("NFD", path),
    }
    for what, other in table.items():
        if other not in ("", path) and archives.is_there(folder / other):
            return what
    return "paths start at data.images"


def _read_labels(labels: Path) -> pd.DataFrame:
    presence.check_labels(labels)
    try:
        if _is_parquet(labels):
            return _without_blank_rows(_read_parquet(labels))
        as_text: dict[str, Any] = {"dtype": str, "keep_default_na": False, "index_col": False}
        as_text["skipinitialspace"] = True  # of `path, label`
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            _check_twice(labels, pd.read_csv(labels, header=None, nrows=1, **as_text).iloc[0].tolist())
            return _without_blank_rows(pd.read_csv(labels, **as_text))
    except pd.errors.ParserWarning:
        raise DataError(
            f"data.labels: {labels} has rows with more fields than its first line; a comma too many at their "
            "end perhaps, or one within a path that isn't in quotes"
        ) from None
    except (ValueError, pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # else it is Arrow's, about what is in the file
            raise
        raise DataError(
            f"data.labels: {labels} can't be read ({brief(error)}); "
            "it must be a CSV in UTF-8, with commas, or Parquet"
        ) from None


def _without_blank_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Spreadsheets leave such at the end."""
    return frame[(frame.notna() & (frame != "")).any(axis=1)]


def _is_parquet(file: Path) -> bool:
    with file.open("rb") as stream:
        return file.suffix == ".parquet" or stream.read(4) == b"PAR1"


def _read_parquet(labels: Path) -> pd.DataFrame:
    """As text, with what pandas has stored beside the columns left out, and what is no text or number."""
    with pq.ParquetFile(labels) as file:
        table = file.read()
    _check_twice(labels, table.column_names)
    columns = {}
    for field in table.schema:
        kind = getattr(field.type, "storage_type", field.type)  # of an extension, such as a tensor
        is_text_like = not (pa.types.is_nested(kind) or _is_bytes(kind))
        if field.name in COLUMNS and not is_text_like:
            raise DataError(
                f"data.labels: {labels} has the column {field.name!r} as {field.type}; store it as text"
            )
        if is_text_like and not field.name.startswith("__index_level_"):
            values = table[field.name].to_pylist()
            columns[field.name] = [None if pd.isna(value) else str(value) for value in values]
    return pd.DataFrame(columns, dtype=object)


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_bytes(kind.value_type)
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def _check_twice(labels: Path, columns: list[str]) -> None:
    if twice := [name for name, count in Counter(columns).items() if count > 1 and name]:
        raise DataError(f"data.labels: {labels} has the column {twice[0]!r} twice; keep one of them")
