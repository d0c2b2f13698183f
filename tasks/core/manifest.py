"""Finding the pictures of a folder, and what there is to know about each."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import imagehash
import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
from joblib import Parallel, delayed
from PIL import Image
from tqdm import tqdm

from tasks.core import images
from tasks.core.errors import DataError

SPLITS = ("train", "validation", "test")
HINTS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("label", pa.string()),
        ("group", pa.string()),
        ("split_hint", pa.string()),
        ("sha256", pa.string()),
        ("phash", pa.string()),
        ("bytes", pa.int64()),
        ("format", pa.string()),
        ("mode", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("brightness", pa.float64()),
        ("contrast", pa.float64()),
        ("saturation", pa.float64()),
        ("sharpness", pa.float64()),
        ("entropy", pa.float64()),
        ("error", pa.string()),
    ]
)


@dataclass(frozen=True)
class Entry:
    """A picture as the folders or the labels file name it, not yet opened."""

    path: str  # from the pictures' folder, with slashes
    label: str
    group: str | None = None
    split_hint: str | None = None


def discover(folder: Path, labels: Path) -> list[Entry]:
    """Lists the pictures of a folder in one of three layouts, told apart by themselves.

    A labels file with rows wins; else `train|validation|val|test/class/picture` where every folder
    at the top has such a name; else `class/picture`. Pictures may lie deeper within a class.

    Raises:
        DataError: no such folder, nothing in it, pictures outside of every class, or one class only.
    """
    if not folder.is_dir():
        raise DataError(f"data.images: {folder} is not a folder; point it at your pictures")
    listed = _listed(folder, labels)
    entries = listed or _by_folder(folder)
    if not entries:
        known = " ".join(sorted(images.SUFFIXES))
        raise DataError(
            f"data.images: {folder} holds no picture ({known}) in a class folder; "
            "lay them out as class/picture"
        )
    classes = {entry.label for entry in entries}
    if len(classes) < 2:
        raise DataError(
            f"data.images: {folder} holds one class only, {classes.pop()!r}; a classifier needs at least two"
        )
    return sorted(entries, key=lambda entry: entry.path)


def _by_folder(folder: Path) -> list[Entry]:
    tops = sorted(path.name for path in folder.iterdir() if path.is_dir() and not _hidden(path.name))
    hinted = bool(tops) and all(top in HINTS for top in tops)
    depth = 2 if hinted else 1
    entries = []
    for path in pictures_below(folder):
        parts = path.split("/")
        if len(parts) <= depth:
            raise DataError(
                f"data.images: {folder / path} lies outside of every class folder; "
                "move it into one or out of there"
            )
        hint = HINTS[parts[0]] if hinted else None
        entries.append(Entry(path, label=parts[depth - 1], split_hint=hint))
    return entries


def pictures_below(folder: Path) -> Iterator[str]:
    """Paths of all pictures below a folder, by suffix; hidden files and folders are passed over."""
    for top, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _hidden(name))
        for name in sorted(files):
            if not _hidden(name) and Path(name).suffix.lower() in images.SUFFIXES:
                yield (Path(top) / name).relative_to(folder).as_posix()


def _hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def _listed(folder: Path, labels: Path) -> list[Entry]:
    """Entries of the labels file; none where it has no rows."""
    frame = _read_labels(labels)
    missing = {"path", "label"} - set(frame.columns)
    if missing:
        raise DataError(
            f"data.labels: {labels} has no column {sorted(missing)[0]!r}; "
            f"it has {', '.join(map(str, frame.columns))}"
        )
    frame = frame.astype(object).where(frame.notna() & (frame != ""), None)
    twice = frame["path"][frame["path"].duplicated()]
    if len(twice):
        raise DataError(f"data.labels: {labels} lists {twice.iloc[0]!r} twice; keep one row")
    return [_row_entry(folder, labels, row) for row in frame.to_dict("records")]


def _row_entry(folder: Path, labels: Path, row: dict[Any, Any]) -> Entry:
    path, label, hint = row["path"], row["label"], row.get("split")
    if path is None or label is None:
        raise DataError(f"data.labels: {labels} has a row without a path or label ({row}); fill it in")
    if hint is not None and hint not in HINTS:
        raise DataError(
            f"data.labels: {labels} gives {path!r} the split {hint!r}; it must be {', '.join(HINTS)} or empty"
        )
    if not (folder / path).is_file():
        raise DataError(
            f"data.labels: {labels} lists {path!r}, which is not in {folder}; paths start at data.images"
        )
    return Entry(path, label, row.get("group"), HINTS[hint] if hint else None)


def _read_labels(labels: Path) -> pd.DataFrame:
    if not labels.is_file():
        raise DataError(f"data.labels: {labels} is not a file; give a CSV or Parquet of path,label")
    try:
        if labels.suffix == ".parquet":
            return pd.read_parquet(labels).map(lambda value: None if pd.isna(value) else str(value))
        return pd.read_csv(labels, dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError, pa.ArrowInvalid) as error:
        raise DataError(
            f"data.labels: {labels} can't be read ({error}); it must be a CSV in UTF-8 or Parquet"
        ) from None


def scan(folder: Path, entries: list[Entry], workers: int) -> pd.DataFrame:
    """Opens every picture once and describes it: one row each, in the order of `entries`.

    A picture that can't be read gets a row too, with `error` saying why.

    Args:
        workers: processes; 0 takes one for each core.
    """
    describe = delayed(_describe)
    rows = Parallel(n_jobs=processes(workers, len(entries)), return_as="generator", batch_size=32)(
        describe(folder, entry) for entry in entries
    )
    progress = tqdm(rows, "scan", len(entries), unit=" pictures", disable=None, leave=False)
    return pd.DataFrame(list(progress), columns=SCHEMA.names)


def processes(workers: int, pictures: int) -> int:
    """How many processes to read that many pictures with; `workers` 0 means one for each core."""
    if pictures < 1000:
        return 1  # starting more would take longer than the work
    return workers or joblib.cpu_count()


def readable(manifest: pd.DataFrame) -> pd.DataFrame:
    """The rows whose pictures can be used."""
    return manifest[manifest["error"].isna()].reset_index(drop=True)


def _describe(folder: Path, entry: Entry) -> dict[str, Any]:
    row = asdict(entry)
    try:
        data = (folder / entry.path).read_bytes()
        row |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        picture = images.opened(data)
        row |= {"format": picture.format, "mode": picture.mode}
        rgb = images.decoded(picture)
    except DataError as error:
        return row | {"error": str(error)}
    except OSError as error:
        return row | {"error": f"can't be read ({error.strerror})"}
    return row | {"width": rgb.width, "height": rgb.height} | measures(rgb)


def measures(rgb: Image.Image) -> dict[str, float | str]:
    """Measures a picture's quality on a copy of at most 256 pixels a side.

    At one size the measures compare across cameras, and cost the same for each picture.

    Returns:
        brightness: mean luma, 0-1 (ITU-R 601).
        contrast: standard deviation of luma, 0-0.5.
        saturation: mean of HSV's S, 0-1.
        sharpness: variance of luma's 4-neighbour Laplacian, 0 up (Pech-Pacheco et al., 2000).
        entropy: Shannon entropy of luma's histogram, 0-8 bits.
        phash: 64-bit perceptual hash as 16 hex digits (Zauner, 2010; by ImageHash).
    """
    small = rgb.copy()
    small.thumbnail((256, 256), Image.Resampling.BOX)
    grey = small.convert("L")
    luma = np.asarray(grey, dtype=np.float64) / 255
    padded = np.pad(luma, 1, mode="edge")
    neighbours = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    rounded = {
        "brightness": luma.mean(),
        "contrast": luma.std(),
        "saturation": np.asarray(small.convert("HSV"))[..., 1].mean() / 255,
        "sharpness": (neighbours - 4 * luma).var(),
        "entropy": grey.entropy(),
    }
    hashed = {"phash": str(imagehash.phash(small))}
    return {name: round(float(value), 6) for name, value in rounded.items()} | hashed
