"""Stage `build`: splits the readable images and packs them, resized, into TFRecords."""

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from tqdm import tqdm

from tasks.core.backbones import store
from tasks.core.backbones.catalogue import UNPINNED
from tasks.core.backbones.config import Model
from tasks.core.base import cli, console, params
from tasks.core.base.contract import Resize
from tasks.core.base.errors import DataError
from tasks.core.base.files import read_json, replacing, sha256, write_json
from tasks.core.base.params import Data
from tasks.core.base.paths import DATASET, DATASET_FACTS, MANIFEST, cache_folder
from tasks.core.data import shards, splits
from tasks.core.data.config import Build, Processes
from tasks.core.data.image_io import Pixels
from tasks.core.data.last_run import last_output_files
from tasks.core.data.manifest import readable
from tasks.core.data.parallel import each, limit_workers
from tasks.core.data.parquet import read_parquet
from tasks.core.data.shards import Image, Recipe, Shard
from tasks.core.data.splits import SPLITS

SPLIT_BY = ("path", "label", "group", "given_group", "split_hint", "sha256")
COLUMNS = (*SPLIT_BY, "bytes", "width", "height", "error")
PER_SHARD = 500  # images on average; with raw images of 224 pixels a shard is about 75 MB


@dataclass(frozen=True)
class Params(params.Section):
    data: Data
    build: Build
    model: Model
    compute: Processes


def plan_shards(frame: pd.DataFrame, folder: Path, target: Path, recipe: Recipe) -> Iterator[Shard]:
    """Shares the images of each split out to files.

    A file holds neighbours in the order of paths, and ends where a hash of the next path says so: new
    images change the files that they fall into and no others.

    Args:
        frame: images with `path`, `sha256`, `bytes`, `split` and `place` (of the class).
    """
    for name in SPLITS:
        rows = frame[frame["split"] == name].sort_values("path")
        number = rows["path"].map(_starts_shard).cumsum()
        number -= number.min()
        count = int(number.max()) + 1
        for place, members in rows.groupby(number):
            file = target / f"{name}-{place:05d}-of-{count:05d}.tfrecord"
            yield Shard(file, folder, _records(members), recipe, tuple(members["bytes"]))


def _records(rows: pd.DataFrame) -> tuple[Image, ...]:
    return tuple(map(Image, rows["path"], rows["sha256"], rows["place"].tolist()))


def _starts_shard(path: str) -> bool:
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") % PER_SHARD == 0


@dataclass(frozen=True)
class _Earlier:
    """The files of the data set built last, by digest, and the digests of what was written, by source."""

    files: Mapping[str, Path]
    digests: Mapping[str, str]

    def reuse(self, shard: Shard) -> str | None:
        """Copies a file, and returns its digest; none where none was written from the same source."""
        digest = self.digests.get(shard.source)
        if digest is None or digest not in self.files:
            return None
        shutil.copyfile(self.files[digest], shard.file)
        return digest if sha256(shard.file) == digest else None


def build(
    folder: Path,
    manifest: Path,
    target: Path,
    p: Build,
    backbone: str,
    image_size: int | Literal["auto"],
    compute: Processes,
    accepted: Mapping[str, Path],
    pinned: str = UNPINNED,
) -> dict[str, Any]:
    """Writes the data set's folder and returns what its `dataset.json` says.

    Args:
        accepted: files of the data set built last, by name; those that would come out the same are copied.
        pinned: the sha256 that the backbone must have.

    Raises:
        DataError: an image changed since it was validated, or a split is left empty.
        ParamError: the backbone is unknown, or its image size is.
        BackboneError: it can't be fetched, or is not the one that was pinned.
    """
    frame = readable(read_parquet(manifest, COLUMNS))
    if frame.empty:
        raise DataError(f"{manifest} has no image that can be read; run the pipeline again")
    shares = splits.Shares(p.validation_split, p.test_split, p.seed)
    frame["split"] = splits.split(frame, shares)
    if note := splits.named(frame["split_hint"]):
        console.say(f"build: {note}")
    gaps = splits.check(frame, frame["split"], shares)
    for warning in filter(None, (gaps, splits.large(frame), splits.few(frame["label"], frame["split"]))):
        console.say(f"build: warning, {warning}")
    counts = pd.crosstab(frame["label"], frame["split"])
    classes = sorted(frame["label"].unique())
    frame["place"] = frame["label"].map({label: place for place, label in enumerate(classes)})
    side, why = choose_image_size(frame, folder, p.resize, backbone, image_size, pinned)
    if why:
        console.say(f"build: images of {why}")
    notes = cache_folder() / "shards.json"
    earlier = _Earlier(_by_digest(accepted), _read_notes(notes))
    with replacing(target) as temporary:
        temporary.mkdir()
        recipe = Recipe(side, p.resize, p.record)
        wanted = plan_shards(frame, folder.absolute(), temporary.absolute(), recipe)
        sources, digests = _fill(wanted, earlier, len(frame), compute)
        facts = {
            "class_names": classes,
            "counts": {name: counts[name].to_dict() for name in SPLITS},
            "image_size": side,
            "auto": {"model.image_size": why} if why else {},
            "resize": p.resize,
            "record": p.record,
            "shards": {name: digests[source] for name, source in sources.items()},
            "manifest": sha256(manifest),
        }
        write_json(temporary / DATASET_FACTS, facts)
        splits.write(temporary, frame)
    write_json(notes, digests)
    return facts


def choose_image_size(
    frame: pd.DataFrame,
    folder: Path,
    how: Resize,
    backbone: str,
    setting: int | Literal["auto"],
    pinned: str = UNPINNED,
) -> tuple[int, str | None]:
    """Gives the side, in pixels, of the images that a backbone is fed, and what decided it.

    Where several come into question, it is what a linear probe on some training images says, one of each
    group of images.

    Args:
        frame: the readable images, with `split` and `place` (of the class).
        setting: `model.image_size`.
    """
    typical = frame[["width", "height"]].min(axis=1).median()
    sizes = store.image_sizes(backbone, setting, typical, pinned)
    if len(sizes) == 1:
        return sizes[0], None
    from tasks.core.backbones import probe, tensorflow_setup  # brings TensorFlow along

    tensorflow_setup.deterministic(0)
    train = frame[frame["split"] == "train"].sort_values(["sha256", "path"])
    train = train[~train["group"].fillna(train["sha256"]).duplicated()]
    some = train.iloc[probe.sample(train["place"].to_numpy())]
    if some.empty:
        return sizes[0], f"{sizes[0]} pixels: their own size; too few images or classes to compare others by"
    progress = tqdm(sizes, "image size", unit=" sizes", disable=None, leave=False)

    def read(side: int) -> Pixels:
        recipe = Recipe(side, how, "raw")
        return np.stack([shards.read(folder / image.path, image, recipe) for image in _records(some)])

    probes = probe.probe_sizes(backbone, progress, read, some["place"].to_numpy(), pinned)
    best, seen = probe.choose_size(probes)
    # Rounded so far that another kind of CPU says the same.
    said = ", ".join(f"{each.loss:.2f} ({each.accuracy:.0%} right) at {each.size}" for each in seen)
    return (
        best.size,
        f"{best.size} pixels: of {len(some)} images, each predicted by others, the loss is {said}",
    )


def _read_notes(file: Path | None) -> Any:
    """What was noted in an earlier run; nothing where that was lost or spoilt."""
    try:
        notes = read_json(file) if file else {}
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _by_digest(accepted: Mapping[str, Path]) -> dict[str, Path]:
    built = _read_notes(accepted.get(DATASET_FACTS)).get("shards", {})
    return {digest: accepted[name] for name, digest in built.items() if name in accepted}


def _fill(
    wanted: Iterator[Shard], earlier: _Earlier, count: int, compute: Processes
) -> tuple[dict[str, str], dict[str, str]]:
    """Copies or writes each file, of `count` images in all; few of them are in memory at a time.

    Returns:
        The source of each by its name, and its digest by the source.
    """
    sources: dict[str, str] = {}
    digests: dict[str, str] = {}
    with tqdm(total=count, desc="build", unit=" images", disable=None, leave=False) as progress:

        def settle(shard: Shard, digest: str) -> None:
            digests[shard.source] = digest
            progress.update(len(shard.images))

        def missing() -> Iterator[Shard]:
            for shard in wanted:
                sources[shard.file.name] = shard.source
                if digest := earlier.reuse(shard):
                    settle(shard, digest)
                else:
                    yield shard

        new, to_write, ahead = tee(missing(), 3)
        compute = limit_workers(compute, (size for shard in ahead for size in shard.sizes))
        del ahead  # or all files would be kept for it
        for shard, digest in zip(new, each(shards.write, to_write, compute), strict=True):
            settle(shard, digest)
    return sources, digests


def main() -> None:
    p = params.load(Params)
    facts = build(
        Path(p.data.images),
        MANIFEST,
        DATASET,
        p.build,
        p.model.backbone,
        p.model.image_size,
        p.compute,
        last_output_files(DATASET),
        p.model.sha256,
    )
    sizes = ", ".join(f"{name} {sum(facts['counts'][name].values())}" for name in SPLITS)
    console.say(f"build: {sizes} images of {facts['image_size']} pixels, {len(facts['class_names'])} classes")


if __name__ == "__main__":
    cli.stage(main)
