"""Predicting whole folders: shard by shard, in processes or on a cluster, going on where a run was ended.

The table has a row for each image: `path`, `sha256` and the five measures of quality as in the manifest,
`error` where it can't be read, `predicted`, `confidence` (the largest probability), `p_<class>`.
"""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from tasks.core.artifacts import runtimes
from tasks.core.base.contract import Contract
from tasks.core.base.errors import DataError
from tasks.core.base.files import fingerprint, remove, sha256
from tasks.core.base.paths import cache_folder
from tasks.core.data import image_io
from tasks.core.data.config import Processes
from tasks.core.data.entries import Entry
from tasks.core.data.listing import list_images
from tasks.core.data.manifest import MEASURES
from tasks.core.data.parallel import each, limit_workers
from tasks.core.data.parquet import read_parquet, write_parquet
from tasks.core.evaluation.predictions import PROBABILITY
from tasks.core.inference.predictor import Predictor, load_predictor
from tasks.core.validation.scan import scan

MONITORED = Path("reports/monitor")  # what new images come to
TABLE = "predictions.parquet"  # in there, of the new images
REFERENCE = "reference.parquet"  # of the test images by the same artifact, to compare with
_PREDICT_LOCK = Lock()  # a worker of Dask's has threads, and a TFLite interpreter is for one

MOVED = "was changed while it was scored, or can't be read any more"
SHARD = 512  # images that are predicted, and kept, at a time
DESCRIBED = ("path", "sha256", "error", *MEASURES)


@dataclass(frozen=True)
class Shard:
    """Images to predict, and the file that keeps what came of it."""

    model: Path
    version: str  # the model's digest, by which a process knows that it is still the one it has loaded
    folder: Path
    paths: tuple[str, ...]
    digests: tuple[str, ...]  # of the images
    batch_size: int
    part: Path


def describe(folder: Path, compute: Processes) -> pd.DataFrame:
    """A row for each image below a folder, with what a scan finds, in the order of the paths.

    Raises:
        DataError: no such folder, or no image in it.
    """
    entries = [Entry(path, "", None, None) for path in sorted(list_images(folder))]
    return scan(folder, entries, compute)[list(DESCRIBED)]


def score(
    model: Path, folder: Path, images: pd.DataFrame, batch_size: int, compute: Processes
) -> pd.DataFrame:
    """Adds `predicted`, `confidence` and `p_<class>` to the rows of `describe`; none to unreadable ones.

    Raises:
        ModelError: the artifact can't be loaded.
        WorkerError: processes or a cluster failed.
    """
    names = load_predictor(model).contract.class_names  # here first, where a mistake ends in one line
    rows = images[images["error"].isna()]
    jobs = list(shards(model, folder, rows, batch_size))
    compute = limit_workers(compute, [0] * len(rows))
    parts = []
    with tqdm(total=len(rows), desc="score", unit=" images", disable=None, leave=False) as progress:
        for shard in each(predict_shard, jobs, compute, is_done=lambda job: job.part.exists()):
            parts.append(read_parquet(shard.part))
            if parts[-1].isna().any(axis=None):
                remove(shard.part)  # to be asked again
            progress.update(len(shard.paths))
    columns = [PROBABILITY + name for name in names]
    probabilities = pd.concat(parts) if parts else pd.DataFrame(columns=columns, dtype="float32")
    probabilities = probabilities.set_axis(rows.index)[columns]
    known = probabilities.dropna()
    answers = known.to_numpy()
    best = pd.DataFrame(
        {"predicted": np.array(names, object)[answers.argmax(axis=1)], "confidence": answers.max(axis=1)},
        index=known.index,
    )
    table = images.join(best).join(probabilities)
    changed = table["error"].isna() & table["predicted"].isna()
    return table.assign(error=table["error"].mask(changed, MOVED))


def shards(model: Path, folder: Path, rows: pd.DataFrame, batch_size: int) -> Iterator[Shard]:
    """Cuts images into shards, each with a file in the cache that is named after model and images."""
    version = digest(model)
    for start in range(0, len(rows), SHARD):
        part = rows.iloc[start : start + SHARD]
        name = fingerprint(part["sha256"].tolist())
        file = cache_folder().absolute() / "scores" / version[:16] / f"{name[:32]}.parquet"
        names, digests = tuple(part["path"]), tuple(part["sha256"])
        yield Shard(model.absolute(), version, folder.absolute(), names, digests, batch_size, file)


def digest(model: Path) -> str:
    """Of an artifact that is a file or a folder, and of its name."""
    return fingerprint([model.name, sha256(model)])


def predict_shard(shard: Shard) -> Shard:
    """Predicts a shard's images into its file: rows of probabilities, empty where one isn't what it was."""
    predictor = _load(shard.model, shard.version)
    names = predictor.contract.class_names
    rows = np.full((len(shard.paths), len(names)), np.nan, np.float32)
    for start in range(0, len(shard.paths), shard.batch_size):
        places, pixels = [], []
        for place in range(start, min(start + shard.batch_size, len(shard.paths))):
            file = shard.folder / shard.paths[place]
            with suppress(DataError):
                pixels.append(_pixels(file, shard.digests[place], predictor.contract))
                places.append(place)
        if places:
            with _PREDICT_LOCK:
                rows[places] = predictor.predict(runtimes.floats(np.stack(pixels)))
    columns = [PROBABILITY + name for name in names]
    schema = pa.schema([(column, pa.float32()) for column in columns])
    write_parquet(shard.part, pd.DataFrame(rows, columns=columns), schema)
    return shard


def _pixels(file: Path, digest: str, contract: Contract) -> image_io.Pixels:
    data = image_io.content(file)
    if hashlib.sha256(data).hexdigest() != digest:
        raise DataError(f"{file} was changed while it was scored; score it again")
    return image_io.pixels(data, file, contract.image_size, contract.resize)


@lru_cache(maxsize=1)
def _load(model: Path, _version: str) -> Predictor:
    return load_predictor(model)


def write(path: Path, table: pd.DataFrame, **facts: str) -> None:
    """Writes the table of `score`.

    Args:
        facts: of how it was made, which stand in the file beside the columns.
    """
    text = ("path", "sha256", "error", "predicted")
    types = [
        (name, pa.string() if name in text else pa.float64() if name in MEASURES else pa.float32())
        for name in map(str, table)
    ]
    write_parquet(path, table, pa.schema(types, metadata=facts))


def is_ours(path: Path) -> bool:
    """Whether `write` has made it.

    Raises:
        PermissionError: it may not be read.
    """
    try:
        return "folder" in facts(path)
    except PermissionError:
        raise
    except (OSError, pa.ArrowException, UnicodeDecodeError):
        return False


def facts(path: Path) -> dict[str, str]:
    """How a table was made, as `write` was given it."""
    return {key.decode(): value.decode() for key, value in (pq.read_schema(path).metadata or {}).items()}
