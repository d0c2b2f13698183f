"""Runs the pipeline on every task of the suite, beside what it must not be worse than, and prints one table.

It works in clones of the last commit and of the one that it is held against; `suite_images.py` says which
packages must be installed. Each row is a task and a seed, of the cut and of training, and has of each side
accuracy and macro-F1 of the test images. Rows that are in benchmarks/suite.json are not run again.

- majority, colours: the most frequent class, and a logistic regression on histograms of colours
- logistic: scikit-learn's, its C cross-validated, on the backbone's last layer
- before: the parameters and the code of 2aa05b8
- notebook: params/notebook.yaml, the notebook's recipe mended; only if asked for, since its 50 epochs of all
  weights are the work of 240 passes
- quick: `train.effort: quick`, the head alone; default: as shipped
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from benchmarks.orchestration import clone, environment, seconds
from benchmarks.suite_images import TASKS
from tasks.core.base.files import read_json, write_json
from tasks.core.evaluation.intervals import wilson

RESULTS = Path(__file__).with_suffix(".json")
BEFORE = "2aa05b8"
SIDES = ("before", "notebook", "quick", "default")


def prepare(folder: Path, task: Path, side: str, seed: int) -> Path:
    """A clone that works on a task's images with the parameters of a side."""
    clone(folder)
    if side == "before":
        subprocess.run(["git", "checkout", "--quiet", BEFORE], cwd=folder, check=True)
    yaml, file = YAML(), folder / "params.yaml"
    source = folder / "params/notebook.yaml" if side == "notebook" else file
    values = yaml.load(source.read_text("utf-8"))
    values["data"] |= {"images": str(task / "images"), "labels": str(task / "labels.csv")}
    values["validate"] |= {"min_per_class": 3}
    # A few images of Fashion-MNIST's own training and test parts are near-duplicates.
    values["validate"]["severity"]["split_conflict"] = "warning"
    values["train"]["seed"] = seed
    if side == "quick":
        values["train"]["effort"] = "quick"
    with file.open("w", encoding="utf-8") as stream:
        yaml.dump(values, stream)
    return folder


def run(top: Path, task: Path, side: str, seed: int) -> dict[str, Any]:
    """What a side comes to, and the seconds of its stage `train`, TensorFlow's start with it."""
    folder = prepare(top / side, task, side, seed)
    seconds(folder, ("dvc", "repro", "build"))
    took = seconds(folder, ("dvc", "repro", "--single-item", "train"))
    seconds(folder, ("dvc", "repro", "evaluate"))
    metrics = read_json(folder / "reports/metrics.json")
    test, baselines = metrics["test"], metrics["baselines"]
    names = ("accuracy", "macro_f1")
    return {
        "n": test["n"],
        "auto": read_json(folder / "models/classifier.json").get("auto", {}),
        "val_losses": pd.read_csv(folder / "models/history.csv")["val_loss"].tolist(),
        "best": read_json(folder / "models/classifier.json")["best_epoch"]["phase"],
        "seconds": took,
        **({} if side == "before" else {"passes": passes(folder)}),
        "baselines": {name: {key: row[key] for key in names} for name, row in baselines.items()},
        **{name: test[name] for name in names},
        "interval_95": {name: test["interval_95"][name] for name in names},
    }


def passes(folder: Path) -> float:
    """The work of a training, in passes of the frozen backbone over the training images at its own size."""
    from tasks.check import Params
    from tasks.core.backbones import store
    from tasks.core.base import params
    from tasks.core.training import effort, recipe
    from tasks.core.training.dataset import Dataset

    p, data = params.read(folder / "params.yaml", Params), Dataset.load(folder / "data/dataset")
    backbone = p.model.backbone
    sizes = data.counts["train"].values(), data.size("validation")
    work = effort.work(backbone, store.facts(backbone), data.image_size, *sizes)
    settled, _ = recipe.settle(p.train, work)
    epochs = int((pd.read_csv(folder / "models/history.csv")["phase"] == "fine_tune").sum())
    return work.training(replace(settled, epochs=epochs))


def logistic(folder: Path) -> dict[str, Any]:
    """A logistic regression on what the backbone's last layer says of the images that a clone has built."""
    words = [sys.executable, "-m", "benchmarks.suite", "--logistic", str(folder)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=environment(folder))
    return dict(json.loads(done.stdout.splitlines()[-1]))


def fit_logistic(folder: Path) -> dict[str, Any]:
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.metrics import f1_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from tasks.core.backbones.catalogue import BUILT_IN
    from tasks.core.backbones.layer import backbone_layer, extractor
    from tasks.core.training import feature_cache
    from tasks.core.training.dataset import Dataset

    data = Dataset.load(folder / "data/dataset")
    extract = extractor(backbone_layer(BUILT_IN, trainable=False))
    train, test = (feature_cache.of_split(extract, data, split, "suite") for split in ("train", "test"))
    folds = max(2, min(5, np.bincount(train.labels).min()))
    regression = LogisticRegressionCV(
        Cs=10.0 ** np.arange(-4, 2), cv=folds, max_iter=300, use_legacy_attributes=False, l1_ratios=(0,)
    )
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make_pipeline(StandardScaler(), regression).fit(train.values, train.labels)
    hits = model.predict(test.values) == test.labels
    return {
        "accuracy": float(hits.mean()),
        "macro_f1": float(f1_score(test.labels, model.predict(test.values), average="macro")),
        "interval_95": {"accuracy": list(map(float, wilson(hits)))},
        "seconds": time.perf_counter() - start,
    }


def measure(name: str, seed: int, sides: list[str], known: dict[str, Any]) -> dict[str, Any]:
    """A row of the suite: those of its sides that are not known."""
    row = dict(known)
    with tempfile.TemporaryDirectory(prefix="darkroom-suite-") as folder:
        top = Path(folder)
        task = top / "task"
        task.mkdir()
        TASKS[name].prepare(task, seed)
        for side in sides:
            if side not in row:
                row[side] = run(top, task, side, seed)
                row |= row[side].pop("baselines")
                if side != "before" and "logistic" not in row:
                    row["logistic"] = logistic(top / side)
                print(f"{name}, seed {seed}, {side}: {row[side]['accuracy']:.4f}", flush=True)
    return row


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Mean accuracy of each task and side over the seeds, in percent."""
    sides = [side for side in SIDES if any(side in row for row in rows.values())]
    sides = ["majority", "colours", "logistic", *sides]
    lines = [f"| task | seeds | {' | '.join(sides)} |", "| --- " * (len(sides) + 2) + "|"]
    for name in TASKS:
        seeds = [row for key, row in rows.items() if key.rpartition(", seed ")[0] == name]
        means = (
            np.mean([row[side]["accuracy"] for row in seeds if side in row] or [np.nan]) for side in sides
        )
        if seeds:
            lines.append(f"| {name} | {len(seeds)} | {' | '.join(f'{mean:.1%}' for mean in means)} |")
    return "\n".join(lines)


def mean_errors(rows: dict[str, dict[str, Any]]) -> list[str]:
    """The geometric mean over the rows of the ratio of two sides' errors, half an image added to each."""
    found = []
    for side in ("quick", "default"):
        for other in ("logistic", "before"):
            ratios = [
                np.log((1 - row[side]["accuracy"] + half) / (1 - row[other]["accuracy"] + half))
                for row in rows.values()
                if side in row and other in row
                for half in [0.5 / row[side]["n"]]
            ]
            if ratios:
                found.append(
                    f"error of {side} over {other}: {np.exp(np.mean(ratios)):.3f}, {len(ratios)} rows"
                )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suite", description=__doc__)
    parser.add_argument("--logistic", type=Path, help=argparse.SUPPRESS)
    parser.add_argument(
        "--tasks", nargs="+", choices=list(TASKS), help="some of them (all that are not slow)"
    )
    parser.add_argument(
        "--sides", nargs="+", choices=SIDES, default=[side for side in SIDES if side != "notebook"]
    )
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.logistic:
        os.environ.setdefault("DARKROOM_CACHE", f"{arguments.logistic}-cache")
        print(json.dumps(fit_logistic(arguments.logistic)))
        return 0
    rows = read_json(RESULTS) if RESULTS.exists() else {}
    for name in arguments.tasks or [name for name, task in TASKS.items() if not task.is_slow]:
        for seed in range(1, arguments.seeds + 1):
            key = f"{name}, seed {seed}"
            rows[key] = measure(name, seed, arguments.sides, rows.get(key, {}))
            write_json(RESULTS, rows)
    print("\n".join([table(rows), *mean_errors(rows)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
