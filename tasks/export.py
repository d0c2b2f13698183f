"""Stage `export`: turns a model whose gates passed into files for every runtime, and proves each.

Nothing is exported of a model that a gate rejected: `export/artifacts.json` then says so alone.
"""

import math
import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.core.artifacts import golden, isolation, verification
from tasks.core.artifacts.config import TIMED, Export
from tasks.core.artifacts.exporter import Exporter, lines
from tasks.core.artifacts.formats import FORMATS, Format
from tasks.core.backbones import tensorflow_setup
from tasks.core.backbones.layer import to_float
from tasks.core.base import cli, console, params, paths
from tasks.core.base.arrays import Array
from tasks.core.base.errors import brief
from tasks.core.base.files import read_json, remove, replacing, scratch, write_json, write_text
from tasks.core.base.params import Data
from tasks.core.training import classifier
from tasks.core.training.dataset import Dataset

BATCH = 64
MOST_PROVED = 5000  # test images, about, that artifacts are proved on; they tell shares to about 0.1 %
UNSHIPPED = 16  # golden images that artifacts are proved with where none are to go along


@dataclass(frozen=True)
class Params(params.Section):
    data: Data
    export: Export


def calibrate(model: Any, temperature: float) -> None:
    """Divides the logits by a temperature, within the head's own weights."""
    head = model.get_layer("head")
    head.set_weights([weights / temperature for weights in head.get_weights()])


def draw_test_images(counts: Sequence[int]) -> list[Array]:
    """Which test images artifacts are proved on: all, or a share of each class and one at least.

    Args:
        counts: test images of each class.

    Returns:
        For each class, bool (count,).
    """
    share, rng = min(1.0, MOST_PROVED / sum(counts)), np.random.default_rng(0)
    return [rng.permutation(count) < math.ceil(share * count) for count in counts]


def answer_test_images(predict: classifier.Predict, data: Dataset, file: Path) -> tuple[Array, Array]:
    """Has the trained model answer to test images, and writes them to a .npy file for artifacts.

    Returns:
        Labels, int (n,), and probabilities, float (n, classes).
    """
    drawn = draw_test_images([data.counts["test"][name] for name in data.class_names])
    left = list(map(iter, drawn))
    shape = (int(sum(map(np.sum, drawn))), data.image_size, data.image_size, 3)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    labels = []
    with file.open("wb") as images:  # and not mapped into memory, where a full disk is no error but the end
        np.lib.format.write_array_header_1_0(images, header)
        for batch in data.read("test", BATCH).as_numpy_iterator():
            taken = np.array([next(left[label]) for label in batch["label"]])
            images.write(batch["image"][taken].tobytes())
            labels.append(batch["label"][taken])
    pixels = np.load(file, mmap_mode="r")  # in whole batches: the model is traced anew for each size of them
    parts = (pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH))
    return np.concatenate(labels), np.concatenate([predict(np.array(part)) for part in parts])


def sample(data: Dataset, split: str, count: int) -> dict[str, Array]:
    """So many images of a split at most, at even distances, as one batch."""
    batch: dict[str, Array] = next(data.read(split, count, count).as_numpy_iterator())
    return batch


def export(
    models: Path, dataset: Path, images: Path, folder: Path, p: Export, temperature: float
) -> dict[str, Any]:
    """Writes and proves each format into `folder`; one that fails is not left there.

    Returns:
        `artifacts`, the facts of each, and `proved_on`: how many `test_images`, `of` how many.
    """
    model, contract = classifier.load(models)
    if p.calibrate:
        calibrate(model, temperature)
    data, predict = Dataset.load(dataset), classifier.predictor(model)
    seen = to_float(sample(data, "train", p.representative)["image"]).numpy()
    exporter = Exporter(model, contract, read_json(models / paths.MODEL_FACTS)["backbone"], seen)
    with scratch(paths.cache_folder() / "export") as work:
        home = folder if p.golden else work
        count = p.golden or UNSHIPPED
        chosen = sample(data, "test", count)
        digests = {
            path.decode(): digest.decode()
            for path, digest in zip(chosen["path"], chosen["sha256"], strict=True)
        }
        of_golden = golden.write(home / "golden", images, digests, contract, predict)
        images = work / "test.npy"
        check = verification.ParityCheck(
            images, *answer_test_images(predict, data, images), home / "golden", of_golden
        )
        facts = write_and_check(exporter, check, p.formats, folder)
    runs = {kind: fact["file"] for kind, fact in facts.items() if "error" not in fact}
    times = isolation.time_artifacts(folder, runs) if any(rule.metric in TIMED for rule in p.rules) else {}
    artifacts: dict[str, Any] = {
        kind: verification.apply_rules(kind, facts[kind], p.rules, times.get(kind, {}))
        | {"required": kind in p.required}
        for kind in p.formats
    }
    for fact in artifacts.values():
        if fact["passed"]:
            size = fact["bytes"] / 1e6
            console.say(f"export: {fact['file']}, {size:.1f} MB, agreement {fact['agreement']:.4f}")
        else:
            console.warn(f"export: left out, {fact['why']}")
            remove(folder / fact["file"])
    write_text(folder / "labels.txt", lines(contract.class_names))
    write_text(folder / paths.CONTRACT, contract.text() + "\n")
    proved_on = {"test_images": len(check.labels), "of": data.size("test")}
    return {"proved_on": proved_on, "artifacts": artifacts}


def write_and_check(
    exporter: Exporter, check: verification.ParityCheck, formats: tuple[Format, ...], folder: Path
) -> dict[Format, dict[str, Any]]:
    """Writes each format, and has it checked while the next is written."""
    beside = ThreadPoolExecutor(1)
    running: dict[Format, Future[dict[str, Any]]] = {}
    failed: dict[Format, dict[str, Any]] = {}
    try:
        for kind in formats:
            path = folder / FORMATS[kind].file
            console.say(f"export: writing {path.name}")
            try:
                exporter.write(kind, path)
            except Exception as error:  # converters have exceptions of their own; the other formats go on
                remove(path)
                failed[kind] = {"file": path.name, "error": f"{path.name} can't be written ({brief(error)})"}
            else:
                running[kind] = beside.submit(check.facts, path)
        return {kind: failed[kind] if kind in failed else running[kind].result() for kind in formats}
    finally:
        beside.shutdown(wait=False, cancel_futures=True)


def main() -> None:
    p = params.load(Params)
    verdict = read_json(paths.GATES)
    with replacing(paths.EXPORT) as folder:
        folder.mkdir()
        facts: dict[str, Any] = {"exported": verdict["passed"], "artifacts": {}}
        if verdict["passed"]:
            tensorflow_setup.deterministic(0)
            temperature = read_json(paths.METRICS)["calibration"]["temperature"]
            images = Path(p.data.images)
            facts |= export(paths.MODELS, paths.DATASET, images, folder, p.export, temperature)
        else:
            console.say(
                "export: nothing, since a gate said no; what was exported before is in DVC's cache, "
                "and comes back with that run's parameters and images"
            )
        write_json(folder / paths.ARTIFACT_FACTS, facts)
        if (known := isolation.times_file(folder / paths.ARTIFACT_FACTS)).is_file():
            shutil.copyfile(known, folder / paths.TIMED_ARTIFACTS.name)


if __name__ == "__main__":
    cli.stage(main)
