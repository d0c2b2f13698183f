"""What each stage takes as images become many: `python -m benchmarks.scale [NUMBER ...]`.

For each number of images, 20,000 and 200,000 by default, the pipeline runs in a clone of the last commit,
with a frozen backbone, stage by stage. Of each: CPU seconds, DVC's own work on inputs and outputs among them,
and the memory of the stage's largest process and of DVC's. Then `dvc repro` with nothing to do; `validate`
and `build` again with one image in a hundred added; and what DVC and `validate` take for the same images in
ten archives. Linux only: its kernel counts what a process and those it started take.
200,000 images take about an hour of two cores, and 20 GB of disk.

`--rows 1000000` measures instead what no cluster shares out: all that one process does with a manifest of so
many rows, which is made up.
"""

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
from PIL import Image
from ruamel.yaml import YAML

from benchmarks.memory import peak_of
from benchmarks.orchestration import clone, environment
from benchmarks.sides import PARAMS
from tasks import build
from tasks.core.base.files import read_json, write_json
from tasks.core.data import manifest, splits
from tasks.core.data.parquet import read_parquet, write_parquet
from tasks.core.data.shards import Recipe

RESULTS = Path(__file__).with_suffix(".json")
NUMBERS = (20_000, 200_000)
CLASSES, SIDE = 10, 32
MEMORY_AIM = 1.2  # times as much memory, at the most, for ten times as many images
STAGES = ("validate", "build", "train", "evaluate", "gate", "export", "latency", "report", "verdict")
ONE_IN = 100  # is added


def write_images(folder: Path, numbers: range) -> None:
    """Writes PNGs of 32 x 32 pixels, of waves in ten directions under noise: classes that can be learnt."""
    across, down = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    for number in numbers:
        rng, kind = np.random.default_rng(number), number % CLASSES
        angle = np.pi * kind / CLASSES
        phase = across * np.cos(angle) + down * np.sin(angle) + rng.uniform(0, 2 * np.pi)
        waves = 128 + 60 * np.sin(phase)[..., None] + rng.normal(0, 30, (SIDE, SIDE, 3))
        file = folder / str(kind) / f"{number:07d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(waves.clip(0, 255).astype(np.uint8)).save(file, compress_level=1)


def prepare(folder: Path, number: int) -> None:
    """A clone of so many images, whose backbone stays frozen."""
    clone(folder)
    change(folder, data={"images": "data/images"}, model={"image_size": SIDE}, train={"effort": "quick"})
    write_images(folder / "data/images", range(number))


def change(folder: Path, **sections: dict[str, Any]) -> None:
    """Changes parameters of a clone."""
    yaml, file = YAML(), folder / "params.yaml"
    values = yaml.load(file.read_text("utf-8"))
    for section, changes in sections.items():
        values[section] |= changes
    with file.open("w", encoding="utf-8") as stream:
        yaml.dump(values, stream)


def pack(images: Path, archives: Path) -> None:
    """Packs a folder of images into ten tar files."""
    archives.mkdir()
    files = sorted(images.rglob("*.png"))
    for place in range(10):
        with tarfile.open(archives / f"{place}.tar", "w") as tar:
            for file in files[place::10]:
                tar.add(file, file.relative_to(images).as_posix())


def take(folder: Path, *words: str) -> dict[str, float]:
    """Runs DVC, which must end well: CPU seconds, and MB of its own process and of the largest other."""
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(
            [sys.executable, "-m", "dvc", *words],
            cwd=folder,
            env=environment(folder),
            stdout=said,
            stderr=said,
        )
        own = others = 0.0
        ended, status, used = os.wait4(child.pid, os.WNOHANG)
        while not ended:
            own = max(own, _peak_of(child.pid))
            others = max(others, *map(_peak_of, _below(child.pid)), 0)
            time.sleep(0.05)
            ended, status, used = os.wait4(child.pid, os.WNOHANG)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            said.seek(0)
            raise RuntimeError(said.read().decode()[-2000:])
    cpu = used.ru_utime + used.ru_stime
    return {"cpu_s": round(cpu, 1), "mb": round(others), "dvc_mb": round(own)}


def _below(process: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(process).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _peak_of(process: int) -> float:
    try:
        return peak_of(str(process))
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return 0.0


def measure(folder: Path, number: int) -> dict[str, Any]:
    """What each stage takes in a clone, nothing to do, and one image in a hundred more."""
    prepare(folder, number)
    row: dict[str, Any] = {"digits": take(folder, "repro", "-s", "digits")}
    for stage in STAGES:
        row[stage] = take(folder, "repro", "-s", stage)
        print(f"{number:,} {stage}: {row[stage]}", flush=True)
    row["nothing to do"] = take(folder, "repro")
    before = read_json(folder / "data/dataset/dataset.json")["shards"]
    write_images(folder / "data/images", range(number, number + number // ONE_IN))
    for stage in STAGES[:2]:
        row[f"{stage}, 1 % more"] = take(folder, "repro", "-s", stage)
    after = read_json(folder / "data/dataset/dataset.json")["shards"]
    pack(folder / "data/images", folder / "data/archives")
    for name in ("images", "archives"):
        row[f"dvc add, {name}"] = take(folder, "add", f"data/{name}")
    change(folder, data={"images": "data/archives"})
    row["validate, archives"] = take(folder, "repro", "-s", "validate")
    row["shards"] = {"all": len(after), "written": len(set(after.values()) - set(before.values()))}
    return row


def make_manifest(count: int) -> pd.DataFrame:
    """A manifest of so many images that nobody has, of which none are alike."""
    rng, places = np.random.default_rng(1), range(count)
    names = [name for name in manifest.SCHEMA.names if manifest.SCHEMA.field(name).type == pa.float64()]
    columns: dict[str, Any] = {name: 0.4 + 0.1 * rng.random(count) for name in names}
    columns |= {"entropy": 5 + rng.random(count), "brightness_p99": 0.9, "brightness_p05": 0.1}
    columns |= {"path": [f"{place % CLASSES}/{place:08d}.png" for place in places]}
    columns |= {"label": [str(place % CLASSES) for place in places], "format": "PNG", "mode": "RGB"}
    for name, width in (("sha256", 32), ("phash", 8), ("chroma", 32)):
        columns[name] = [rng.bytes(width).hex() for _ in places]
    columns |= {"bytes": rng.integers(1000, 9000, count), "width": 224, "height": 224}
    return pd.DataFrame(columns).reindex(columns=manifest.SCHEMA.names)


def measure_manifest(count: int) -> None:
    """Prints seconds, and MB at the peak, of each thing that one process does with a manifest."""
    from tasks.core.validation import checks, expectations, groups
    from tasks.core.validation.derived_columns import number_near_sets, with_derived_columns

    frame, start = make_manifest(count), time.process_time()

    def tell(what: str) -> None:
        nonlocal start
        now = time.process_time()
        print(f"{what:40}{now - start:8.1f} s {peak_of('self'):8.0f} MB", flush=True)
        start = time.process_time()

    tell(f"a manifest of {count:,} rows")
    near = number_near_sets(frame, PARAMS.validate)
    tell("near-duplicates")
    frame["group"], merged = groups.assign(frame, near, groups.KnownGroups())
    tell("groups")
    derived = with_derived_columns(frame, near, merged)
    tell("derived columns")
    with tempfile.TemporaryDirectory() as top:
        expectations.run(derived, checks.checks(derived, PARAMS.validate)[0], Path(top) / "site")
        tell("Great Expectations")
        write_parquet(Path(top) / "manifest.parquet", frame, manifest.SCHEMA)
        tell("the manifest is written")
        read_parquet(Path(top) / "manifest.parquet")
        tell("and read")
    frame["split"] = splits.split(frame, splits.Shares(0.1, 0.2, 123))
    tell("splits")
    frame["place"] = frame["label"].astype(int)
    shards = build.plan_shards(frame, Path("images"), Path("dataset"), Recipe(224, "stretch", "raw"))
    files = sum(bool(shard.source) for shard in shards)
    tell(f"{files:,} files of records are planned")


def show(rows: dict[str, Any]) -> None:
    """Prints a line for each stage: CPU seconds, MB of the stage and of DVC, and how many times the first."""
    numbers = list(rows)
    print(f"{'':20}" + "".join(f"{name:>27}" for name in numbers))
    for stage, first in rows[numbers[0]].items():
        each = [rows[name].get(stage) for name in numbers]
        if "mb" not in first:
            print(f"{stage:20}" + "".join(f"{one['written']:>15} of {one['all']:>8}" for one in each))
            continue
        cells = "".join(f"{one['cpu_s']:>10.1f} s {one['mb']:>6} + {one['dvc_mb']:>4} MB" for one in each)
        grown = each[-1]["mb"] / first["mb"] if first["mb"] else 0
        print(f"{stage:20}{cells}   {grown:.2f} times (aim: at most {MEMORY_AIM})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("numbers", nargs="*", type=int, default=NUMBERS)
    parser.add_argument("--rows", type=int, help="of a manifest that is made up")
    options = parser.parse_args()
    if options.rows:
        measure_manifest(options.rows)
        return
    rows = {}
    for number in options.numbers:
        with tempfile.TemporaryDirectory(prefix="darkroom-scale-") as top:
            rows[f"{number:,}"] = measure(Path(top) / "clone", number)
        write_json(RESULTS, rows)
    show(rows)


if __name__ == "__main__":
    main()
