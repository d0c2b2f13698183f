"""Stage `build`: splits the readable pictures and packs them, resized, into TFRecords."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from tqdm import tqdm

from tasks.core import backbones, cli, images, params
from tasks.core.errors import DataError
from tasks.core.manifest import SPLITS, processes, readable
from tasks.core.paths import DATASET, MANIFEST
from tasks.core.records import Record, write_split
from tasks.core.serialize import read_parquet, replacing, sha256, write_json


def split(manifest: pd.DataFrame, validation: float, test: float, seed: int) -> pd.Series:
    """Gives each picture `train`, `validation` or `test`.

    Within each class the groups (by default: pictures of the same content) stand in the order of a
    seeded hash, and the first ones are held out, at least one for each split: the same for the same
    pictures, whatever their names. Where the folders or the labels file name splits, those hold, and
    only the splits that they don't name are taken from the pictures meant for training.

    Args:
        manifest: readable pictures with `label`, `group`, `split_hint` and `sha256`.
        validation, test: shares of each class, 0 to 1.

    Returns:
        The split of each row, by the manifest's index.

    Raises:
        DataError: a class is left without pictures in some split.
    """
    hinted = set(manifest["split_hint"].dropna())
    wanted = {"test": test, "validation": validation}
    shares = {name: share for name, share in wanted.items() if name not in hinted}
    result = manifest["split_hint"].fillna("train").astype(object)
    key = _order_key(manifest, seed)
    for _, members in key[result == "train"].groupby(manifest["label"]):
        groups = sorted(members.unique())
        start = 0
        for name, share in shares.items():
            end = start + max(1, round(share * len(groups)))
            result[members.index[members.isin(groups[start:end])]] = name
            start = end
    _check_splits(manifest["label"], result)
    return result


def _order_key(manifest: pd.DataFrame, seed: int) -> pd.Series:
    group = manifest["group"].fillna(manifest["sha256"])
    return group.map(lambda text: hashlib.sha256(f"{seed}:{text}".encode()).hexdigest())


def shuffled_order(manifest: pd.DataFrame, seed: int) -> np.ndarray:
    """Row positions in an order without classes in it, the same for the same pictures."""
    keys = pd.DataFrame({"key": _order_key(manifest, seed), "path": manifest["path"]})
    return np.lexsort((keys["path"].to_numpy(str), keys["key"].to_numpy(str)))


def _check_splits(labels: pd.Series, splits: pd.Series) -> None:
    counts = pd.crosstab(labels, splits).reindex(columns=list(SPLITS), fill_value=0)
    for label, row in counts.iterrows():
        for name in SPLITS:
            if not row[name]:
                raise DataError(
                    f"class {label!r} has no picture for {name} ({row.sum()} in all); "
                    "add pictures to it or leave the class out"
                )


def pack(
    folder: Path, rows: pd.DataFrame, classes: list[str], size: int, p: params.Build, workers: int
) -> Iterator[Record]:
    """Reads, resizes and packs pictures, in the order of `rows`."""
    jobs = processes(workers, len(rows))
    packed = delayed(_packed)
    stream = Parallel(n_jobs=jobs, return_as="generator", batch_size=32)(
        packed(folder / path, size, p.resize, p.record) for path in rows["path"]
    )
    for row, image in zip(rows.to_dict("records"), stream, strict=True):
        yield Record(image, classes.index(row["label"]), row["path"], row["sha256"])


def _packed(path: Path, size: int, resize: images.Resize, record: images.Packing) -> bytes:
    return images.encoded(images.read(path, size, resize), record)


def build(
    folder: Path,
    manifest: Path,
    target: Path,
    p: params.Build,
    backbone: str,
    image_size: int | Literal["auto"],
    workers: int,
) -> dict[str, Any]:
    """Writes the data set's folder and returns what its `dataset.json` says.

    Raises:
        DataError: a picture changed since it was validated, or a split is left empty.
        ParamError: the backbone is unknown, or its picture size is.
    """
    frame = readable(read_parquet(manifest))
    side = backbones.image_size(backbone, image_size, frame[["width", "height"]].min(axis=1).median())
    frame["split"] = split(frame, p.validation_split, p.test_split, p.seed)
    frame = frame.iloc[shuffled_order(frame, p.seed)]
    classes = sorted(frame["label"].unique())
    with replacing(target) as temporary:
        temporary.mkdir()
        progress = tqdm(total=len(frame), desc="build", unit=" pictures", disable=None, leave=False)
        for name in SPLITS:
            rows = frame[frame["split"] == name]
            packed = pack(folder, rows, classes, side, p, workers)
            write_split(temporary, name, _counted(packed, progress), len(rows))
        facts = {
            "class_names": classes,
            "counts": {name: _counts(frame[frame["split"] == name], classes) for name in SPLITS},
            "image_size": side,
            "resize": p.resize,
            "record": p.record,
            "shards": {file.name: sha256(file) for file in sorted(temporary.iterdir())},
            "manifest": sha256(manifest),
        }
        write_json(temporary / "dataset.json", facts)
    return facts


def _counts(rows: pd.DataFrame, classes: list[str]) -> dict[str, int]:
    counts = rows["label"].value_counts()
    return {name: int(counts.get(name, 0)) for name in classes}


def _counted(records: Iterator[Record], progress: Any) -> Iterator[Record]:
    for record in records:
        yield record
        progress.update()


def main() -> None:
    p = params.load()
    facts = build(
        Path(p.data.images),
        MANIFEST,
        DATASET,
        p.build,
        p.model.backbone,
        p.model.image_size,
        p.compute.workers,
    )
    sizes = ", ".join(f"{name} {sum(facts['counts'][name].values())}" for name in SPLITS)
    cli.say(f"build: {sizes} pictures of {facts['image_size']} pixels, {len(facts['class_names'])} classes")


if __name__ == "__main__":
    cli.stage(main)
