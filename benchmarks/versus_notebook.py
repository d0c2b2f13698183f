"""Trains as this pipeline does and as the notebook does that it grew out of, in turn, and prints one table.

Both have the same images, split, size, backbone and cores, and each run a process of its own. The clock
runs from before the backbone is loaded until the weights are there. `as it is` has the notebook's own
faults: a sigmoid under a loss that is told of logits, which Keras 2 forgives, 40 read as turns, an epoch's
last images dropped. `mended` has our augmentation, and logits. Where the notebook's 50 epochs would take
too long, `--epochs` trains fewer of them, two at the least: the rest are taken to last as long as the mean
of those after the first, and the accuracy is that of the epochs trained. Writes
benchmarks/versus_notebook.json.
"""

import argparse
import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import fashion_mnist
from benchmarks.sides import PARAMS, Work
from tasks.check import Params
from tasks.core.backbones.catalogue import BUILT_IN
from tasks.core.base import params
from tasks.core.base.files import remove, write_json
from tasks.core.training.config import Augment, Recipe

RESULTS = Path(__file__).with_suffix(".json")
NOTEBOOK = params.read(Path(__file__).parents[1] / "params/notebook.yaml", Params)
SPLITS = ("train", "validation", "test")
SIDES = ("ours", "notebook as it is", "notebook mended")
AIMS = {"fine-tuning": 1 / 20, "frozen": 1 / 30}
ROUNDS = 6  # of either feed; what else the machine does makes some of them slow
STILL = Augment(0, 0, 0, 0, False, 0, 0)
MOVED = Augment(10, 0.1, 0.1, 0, False, 0, 0)  # ours, where images have no symmetry


# What is trained on.


def prepare(top: Path, source: Path | None, count: int) -> None:
    """Builds the data set, and lays its images out by split and class, as the notebook reads them.

    Args:
        source: the folder of Fashion-MNIST's files, of which `count` images are drawn; none: digits.
    """
    from tasks.core.training.dataset import Dataset
    from tasks.digits import write_digits

    work = Work(top, side="auto")
    work.forget()
    if source:
        fashion_mnist.write_images(source, top / "all")
        files = sorted((top / "all").rglob("*.png"))
        for number in np.random.default_rng(1).permutation(len(files))[:count]:
            file = files[number]
            link = work.images / file.parent.name / f"{file.parent.parent.name}-{file.name}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.hardlink_to(file)
    else:
        write_digits(work.images)
    work.scan()
    work.build()
    data = Dataset.load(work.dataset)
    for split in SPLITS:
        for example in data.read(split, 64).unbatch().as_numpy_iterator():
            name = example["path"].decode()
            link = top / "split" / split / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.hardlink_to(work.images / name)


# The two sides. Each gives seconds, test accuracy and epochs.


def ours(top: Path, fine_tune: bool, seed: int) -> dict[str, Any]:
    """The stage `train`, with the parameters that this project ships; frozen: without augmentation."""
    from tasks import train
    from tasks.core.backbones import store
    from tasks.core.training import classifier
    from tasks.core.training.dataset import Dataset
    from tasks.core.training.devices import choose_devices

    hardware = choose_devices("auto", "float32", "auto", deterministic=True)  # as the notebook
    p = dataclasses.replace(PARAMS.train, seed=seed, fine_tune=fine_tune)
    p = p if fine_tune else dataclasses.replace(p, augment=STILL)
    data = Dataset.load(Work(top).dataset)
    remove(top / "cache/features")  # of a run before
    store.locate(BUILT_IN)
    start = time.perf_counter()
    best = train.train(data, top / "models", top / "live", p, PARAMS.model, hardware)
    seconds = time.perf_counter() - start
    model, _ = classifier.load(top / "models")
    epochs = int((pd.read_csv(top / "models/history.csv")["phase"] == best["phase"]).sum())
    return {"seconds": seconds, "accuracy": accuracy(model, data), "epochs": epochs}


def notebook(top: Path, fine_tune: bool, seed: int, mended: bool, epochs: int) -> dict[str, Any]:
    """The notebook's loop: images read from their files and augmented one by one, in every epoch."""
    from tasks.core.backbones import store
    from tasks.core.backbones.tensorflow_setup import hub, keras
    from tasks.core.training.dataset import Dataset

    data, m = Dataset.load(Work(top).dataset), NOTEBOOK.model
    p = Recipe.of(NOTEBOOK.train)
    side, batch = (data.image_size, data.image_size), p.batch_size
    handle = store.locate(BUILT_IN)
    keras.utils.set_random_seed(seed)
    ends: list[float] = []
    start = time.perf_counter()

    def read(split: str) -> Any:
        return keras.utils.image_dataset_from_directory(
            top / "split" / split, label_mode="categorical", seed=seed, image_size=side, batch_size=1
        )

    scale = keras.layers.Rescaling(1 / 255)
    change = keras.Sequential([scale, *(_changes(keras, mended) if fine_tune else [])])
    train = read("train").unbatch().batch(batch).repeat()
    train = train.map(lambda images, labels: (change(images, training=True), labels))
    held_out = read("validation").unbatch().batch(batch)
    held_out = held_out.map(lambda images, labels: (scale(images), labels))
    model = keras.Sequential(
        [
            keras.layers.InputLayer((*side, 3)),
            hub.KerasLayer(handle, trainable=fine_tune),
            keras.layers.Dropout(m.dropout),
            keras.layers.Dense(
                len(data.class_names),
                activation=None if mended else "sigmoid",
                kernel_regularizer=keras.regularizers.L2(m.l2),
            ),
        ]
    )
    model.compile(
        keras.optimizers.SGD(p.learning_rate, momentum=p.momentum),
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=p.label_smoothing),
        ["accuracy"],
    )
    model.fit(
        train,
        epochs=epochs,
        steps_per_epoch=data.size("train") // batch,
        validation_data=held_out,
        validation_steps=data.size("validation") // batch,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: ends.append(time.perf_counter()))],
        verbose=2,
    )
    rest = (ends[-1] - ends[0]) / (len(ends) - 1) * (p.epochs - epochs)
    return {"seconds": ends[-1] - start + rest, "accuracy": accuracy(model, data), "epochs": epochs}


def _changes(keras: Any, mended: bool) -> list[Any]:
    p = MOVED if mended else NOTEBOOK.train.augment
    assert p.rotation != "auto"
    turn = p.rotation / 360 if mended else p.rotation  # the layer takes shares of a turn
    layers = [
        keras.layers.RandomRotation(turn),
        keras.layers.RandomTranslation(0, p.translation),
        keras.layers.RandomTranslation(p.translation, 0),
        keras.layers.RandomZoom(p.zoom, p.zoom),
    ]
    return [*layers, keras.layers.RandomFlip("horizontal")] if p.horizontal_flip else layers


def accuracy(model: Any, data: Any) -> float:
    """Of the test images."""
    from tasks import evaluate
    from tasks.core.training import classifier

    answers = evaluate.predict(classifier.predictor(model), data, "test", batch_size=64)
    return float((answers["label"] == answers["predicted"]).mean())


def waiting(top: Path) -> dict[str, Any]:
    """An epoch of our loop fed by its pipeline, and by memory: seconds of both, the least of some rounds."""
    from tasks.core.backbones.layer import backbone_layer
    from tasks.core.backbones.scaling import Scaling
    from tasks.core.backbones.tensorflow_setup import keras, tf, without_autotune
    from tasks.core.training import classifier, fine_tuning
    from tasks.core.training.batches import Batches
    from tasks.core.training.dataset import Dataset

    data, backbone = Dataset.load(Work(top).dataset), backbone_layer(BUILT_IN, trainable=True)
    decided = {"fine_tune": True, "unfreeze": 1.0, "epochs": 1, "batch_size": 32, "class_weight": "none"}
    p = Recipe.of(PARAMS.train, augment=MOVED, **decided)
    model = classifier.network(backbone, len(data.class_names), data.image_size, "last")
    scaling = Scaling.none(backbone.output_shape[1])
    whole = classifier.in_training(model, "last", scaling, 0.0, frozen_statistics=False)
    batches = Batches(data, p, PARAMS.model.dropout, backbone.output_shape[1])
    whole.compile(keras.optimizers.SGD(1e-6), fine_tuning.loss(p))
    steps = min(batches.steps, 80)
    memory = list(batches.training(0).take(steps))
    kept = tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(lambda *parts: tf.stack(parts), *memory))
    fed = {"real": batches.training(0), "memory": without_autotune(kept.repeat())}
    taken: dict[str, list[float]] = {"real": [], "memory": []}
    for round_ in range(ROUNDS + 1):  # the first is for tracing
        for name, stream in fed.items():
            start = time.perf_counter()
            whole.fit(stream, steps_per_epoch=steps, verbose=0)
            taken[name] += [time.perf_counter() - start] if round_ else []
    return {name: min(times) for name, times in taken.items()}


# The table.


def apart(top: Path, **what: Any) -> dict[str, Any]:
    """Runs one side in a process of its own, and gives what it printed last."""
    words = [
        sys.executable,
        "-m",
        "benchmarks.versus_notebook",
        "--one",
        json.dumps(what | {"top": str(top)}),
    ]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def one(what: dict[str, Any]) -> dict[str, Any]:
    top = Path(what["top"])
    os.environ["DARKROOM_CACHE"] = str(top / "cache")
    if what["side"] == "waiting":
        return waiting(top)
    fine_tune = what["kind"] == "fine-tuning"
    if what["side"] == "ours":
        return ours(top, fine_tune, what["seed"])
    return notebook(top, fine_tune, what["seed"], what["side"].endswith("mended"), what["epochs"])


def rows(top: Path, kinds: list[str], seeds: list[int], epochs: int) -> Iterator[dict[str, Any]]:
    for kind in kinds:
        for seed in seeds:
            for side in SIDES:
                what = {"kind": kind, "seed": seed, "side": side}
                yield what | apart(top, epochs=epochs, **what)


def summed(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row for each kind and side: means over the seeds, and ours as a share of each of the notebook's."""
    for kind, aim in AIMS.items():
        mine = [row for row in found if row["kind"] == kind]
        for side in SIDES:
            runs = [row for row in mine if row["side"] == side]
            if runs:
                facts = {"kind": kind, "side": side, "seeds": len(runs), "epochs": runs[0]["epochs"]}
                times = {"seconds": mean(runs, "seconds"), "test_accuracy": mean(runs, "accuracy")}
                share = mean([row for row in mine if row["side"] == "ours"], "seconds") / times["seconds"]
                yield facts | times | {"ours_over_it": share, "aim": aim}


def mean(runs: list[dict[str, Any]], key: str) -> float:
    return math.fsum(row[key] for row in runs) / len(runs)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.versus_notebook", description=__doc__)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--fashion-mnist", type=Path, help="folder of its four .gz files, in place of digits")
    parser.add_argument("--images", type=int, default=10_000, help="drawn from Fashion-MNIST (10000)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (3)")
    parser.add_argument("--epochs", type=int, default=NOTEBOOK.train.epochs, help="the notebook's (50)")
    parser.add_argument("--kinds", nargs="+", choices=list(AIMS), default=list(AIMS))
    arguments = parser.parse_args()
    if arguments.epochs < 2:
        parser.error("--epochs must be 2 at the least: the first one takes longer than the others")
    if arguments.one:
        print(json.dumps(one(json.loads(arguments.one))))
        return 0
    data = f"fashion-mnist, {arguments.images}" if arguments.fashion_mnist else "digits"
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as folder:
        top = Path(folder)
        prepare(top, arguments.fashion_mnist, arguments.images)
        found = []
        for row in rows(top, arguments.kinds, list(range(1, arguments.seeds + 1)), arguments.epochs):
            found.append(row)
            shown = f"{row['seconds']:8.1f} s  {row['accuracy']:.4f}  {row['epochs']} epochs"
            print(f"{row['kind']:12} seed {row['seed']}  {row['side']:18} {shown}", flush=True)
        waited = apart(top, side="waiting")
    table = list(summed(found))
    parts = {"table": table, "runs": found}
    for row in table:
        print(
            f"{row['kind']:12} {row['side']:18} {row['seconds']:8.1f} s  {row['test_accuracy']:.4f} correct  "
            f"ours takes {row['ours_over_it']:.3f} of it (aim {row['aim']:.3f})"
        )
    print(
        f"the loop takes {waited['real'] / waited['memory']:.3f} of the same loop fed from memory (aim 1.03)"
    )
    kept = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    of_data = kept.setdefault(data, {})
    of_data["waiting"] = waited
    for kind in arguments.kinds:
        of_data[kind] = {name: [row for row in every if row["kind"] == kind] for name, every in parts.items()}
    write_json(RESULTS, kept)
    return 0


if __name__ == "__main__":
    sys.exit(main())
