"""Reading a labels file: a CSV or Parquet of path,label[,group,split], with columns of the user's own."""

import difflib
import os
import re
import sys
import unicodedata
import warnings
from codecs import BOM_UTF8
from collections import Counter
from itertools import accumulate
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.core.base import presence
from tasks.core.base.errors import DataError, brief
from tasks.core.data import archives, image_io
from tasks.core.data.entries import HINTS, Entry, appearance
from tasks.core.data.listing import is_linked, refuse_unseen

COLUMNS = ("path", "label", "group", "split")  # others are the user's own
SHOWN = 100  # characters of a path
FORMATS = "a CSV in UTF-8, with commas, or Parquet"
IS_JSON = re.compile(rb'\[\s*[\[{]|\{\s*"')  # and no name of a column
WORKBOOK = (b"PK\3\4", b"\xd0\xcf\x11\xe0")  # of Excel and others; a .zip with a CSV in it begins so, too
SEPARATORS = (";", "\t", "|")


def read_entries(folder: Path, labels: Path) -> list[Entry]:
    """Entries of the labels file; none where it has no rows.

    Raises:
        DataError: names the file, the row and the remedy.
        PermissionError: a folder may not be looked into.
    """
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


def own_columns(labels: Path) -> pd.DataFrame:
    """The user's own columns of a labels file, text by path; none where there are none."""
    frame = _read_labels(labels).set_index("path")
    own: pd.DataFrame = frame.drop(columns=[name for name in COLUMNS if name in frame])
    return own.where(own != "")


def _check_format(labels: Path) -> None:
    with labels.open("rb") as stream:
        start = stream.read(100).removeprefix(BOM_UTF8).lstrip()
    is_workbook = start.startswith(WORKBOOK) and labels.suffix.lower() != ".zip"
    if is_workbook or IS_JSON.match(start):
        raise DataError(
            f"data.labels: {labels} is {'a workbook' if is_workbook else 'JSON'}; save it as {FORMATS}"
        )
    if start.startswith(b"sep="):
        raise DataError(
            f"data.labels: {labels} begins with `sep=`, of Excel's; remove the line, and use commas"
        )


def _check_columns(labels: Path, columns: list[str]) -> None:
    _check_separator(labels, columns)
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


def _check_separator(labels: Path, columns: list[str]) -> None:
    if len(columns) == 1 and (used := next((mark for mark in SEPARATORS if mark in columns[0]), None)):
        raise DataError(f"data.labels: {labels} has {used!r} between its columns; save it with commas")
    if columns[0].startswith("#"):
        raise DataError(
            f"data.labels: {labels} begins with {columns[0]!r}; its first line must be path,label"
        )


def _row_entry(labels: Path, row: dict[Any, Any]) -> Entry:
    path, label, hint = row["path"], row["label"], row.get("split")
    if path is None or label is None or not appearance(label):
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
        path, sys.intern(label), (group and appearance(group)) or None, HINTS[hint.lower()] if hint else None
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
        if is_linked(f"{folder}/{parent}"):
            refuse_unseen(f"{folder}/{parent}")


def _shown(path: str) -> str:
    """A path that may be anything, in a line."""
    return repr(path if len(path) < SHOWN else f"{path[:SHOWN]}...")


def _remedy(folder: Path, path: str) -> str:
    """What to do about a path that is not there."""
    if "\n" in path:
        return "a quote before it is not closed, perhaps"
    suffix = PurePath(path).suffix
    table = {
        "write paths with / in place of \\": path.replace("\\", "/"),
        "leave out the blanks around it": path.strip(),
        "put quotes around it, for a blank at its beginning is left out otherwise": f" {path}",
        "write them without %, as the files are named": unquote(path),
        f"write the suffix as the file has it, not {suffix}": path.removesuffix(suffix) + suffix.swapcase(),
        "write its letters in NFC, as the file's name has them": unicodedata.normalize("NFC", path),
        "write its letters in NFD, as the file's name has them": unicodedata.normalize("NFD", path),
    }
    folders = list(accumulate(path.split("/")[:-1], "{}/{}".format))
    table |= {
        f"paths start at data.images: leave out {above}/": path.removeprefix(f"{above}/") for above in folders
    }
    table |= {f"its name there ends with {kind}: add that": path + kind for kind in sorted(image_io.SUFFIXES)}
    for what, other in table.items():
        if other not in ("", path) and archives.is_there(folder / other):
            return what
    return "paths start at data.images"


def _read_labels(labels: Path) -> pd.DataFrame:
    presence.check_labels(labels)
    _check_format(labels)
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
        with labels.open(encoding="utf-8-sig", errors="replace") as lines:
            _check_separator(labels, next(lines).rstrip("\n").split(","))
        raise DataError(
            f"data.labels: {labels} has rows with more fields than its first line; a comma too many at their "
            "end perhaps, or one within a path that isn't in quotes"
        ) from None
    except (ValueError, pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # else it is Arrow's, about what is in the file
            raise
        raise DataError(
            f"data.labels: {labels} can't be read ({brief(error)}); it must be {FORMATS}"
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
