"""What is measured: our work on a folder of images, and the work that it is held against."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from joblib.externals.loky import get_reusable_executor
from PIL import Image

from tasks import build
from tasks.check import Params
from tasks.core.backbones.catalogue import BUILT_IN
from tasks.core.base import params
from tasks.core.base.files import remove
from tasks.core.data import discovery, manifest
from tasks.core.data.config import LOCAL, Build, Processes
from tasks.core.data.parquet import read_parquet, write_parquet
from tasks.core.validation.derived_columns import number_near_sets
from tasks.core.validation.scan import scan

SIDE = 224  # pixels
BATCH = 16
PARAMS = params.read(Path(__file__).parents[1] / "params.yaml", Params)


@dataclass(frozen=True)
class Work:
    """Our work on the images of `top`/pictures, with a cache and outputs of its own beside them."""

    top: Path
    workers: int = 1
    side: int | Literal["auto"] = SIDE

    @property
    def images(self) -> Path:
        return self.top / "pictures"

    @property
    def labels(self) -> Path:
        return self.top / "labels.csv"

    @property
    def manifest(self) -> Path:
        return self.top / "manifest.parquet"

    @property
    def dataset(self) -> Path:
        return self.top / "dataset"

    @property
    def compute(self) -> Processes:
        return Processes(self.workers, LOCAL)

    def forget(self) -> None:
        """Begins anew: an empty cache, no processes that wait for more, no labels but the folders' names."""
        self.labels.write_text("path,label\n")
        os.environ["DARKROOM_CACHE"] = str(self.top / "cache")
        remove(self.top / "cache")
        remove(self.dataset)
        get_reusable_executor().shutdown(wait=True)

    def scan(self) -> None:
        """From the folder to a manifest on disk, as the stage `validate` begins."""
        entries, _ = discovery.discover(self.images, self.labels)
        write_parquet(self.manifest, scan(self.images, entries, self.compute), manifest.SCHEMA)

    def scan_afresh(self) -> None:
        """A scan that knows nothing of an earlier one."""
        self.forget()
        self.scan()

    def scan_and_compare(self) -> pd.Series:
        """A scan, and the search for exact and near-duplicates over it."""
        self.scan()
        return number_near_sets(manifest.readable(read_parquet(self.manifest)), PARAMS.validate)

    def build(self) -> None:
        """Records of raw pixels of every image of the manifest, as the stage `build` writes them."""
        p = Build(0.1, 0.2, 123, "stretch", "raw")
        build.build(
            self.images, self.manifest, self.dataset, p, BUILT_IN, self.side, self.compute, accepted={}
        )


@dataclass(frozen=True)
class Bare:
    """The least that has to be done to the same images: Pillow and nothing else, in one process."""

    files: tuple[Path, ...]

    def decode(self) -> None:
        for file in self.files:
            with Image.open(file) as image:
                image.load()
                image.convert("RGB")

    def decode_and_resize(self) -> None:
        for file in self.files:
            with Image.open(file) as image:
                image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def cleanvision(folder: Path) -> None:
    """CleanVision's own scan for all that it looks for unless told otherwise."""
    from cleanvision import Imagelab

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        Imagelab(data_path=str(folder)).find_issues(n_jobs=1, verbose=False)


def arithmetic(processes: int) -> None:
    """A loop that needs nothing but a core, in each of some processes: how much of a machine is free."""
    words = [sys.executable, "-c", "for number in range(50_000_000): pass"]
    for started in [subprocess.Popen(words) for _ in range(processes)]:
        started.wait()


def reading(dataset: Path) -> Callable[[], int]:
    """Reads a built data set once, in batches; gives the number of images."""
    from tasks.core.training.dataset import Dataset

    data = Dataset.load(dataset)
    pipelines = [data.read(split, BATCH) for split in data.counts]
    return lambda: sum(len(batch["image"]) for pipeline in pipelines for batch in pipeline)


def notebook(folder: Path) -> Callable[[], int]:
    """Reads a folder as the notebook does that this project grew out of."""
    from tasks.core.backbones.tensorflow_setup import AUTOTUNE, keras

    with contextlib.redirect_stdout(io.StringIO()):
        single: Any = keras.utils.image_dataset_from_directory(
            folder, image_size=(SIDE, SIDE), batch_size=1, interpolation="bilinear"
        )
    pipeline = single.unbatch().batch(BATCH).prefetch(AUTOTUNE)
    return lambda: sum(len(labels) for _, labels in pipeline)
