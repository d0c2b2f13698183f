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
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from benchmarks.orchestration import clone, environment, seconds
from benchmarks.suite_images import TASKS
from tasks.core.base import cli
from tasks.core.base.files import read_json, write_json
from tasks.core.evaluation.intervals import wilson

RESULTS = Path(__file__).with_suffix(".json")
BEFORE = "2aa05b8"
Rows = dict[str, dict[str, Any]]  # by task and seed, of each side
SIDES = ("before", "notebook", "quick", "default")
AIMS = {("quick", "logistic"): 0.85, ("default", "before"): 0.7}  # of the one's mean error over the other's


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
    row, unknown = dict(known), [side for side in sides if side not in known]
    if not unknown:
        return row
    with tempfile.TemporaryDirectory(prefix="darkroom-suite-") as folder:
        top = Path(folder)
        task = top / "task"
        task.mkdir()
        TASKS[name].prepare(task, seed)
        for side in unknown:
            row[side] = run(top, task, side, seed)
            row |= row[side].pop("baselines")
            if side != "before" and "logistic" not in row:
                row["logistic"] = logistic(top / side)
            print(f"{name}, seed {seed}, {side}: {row[side]['accuracy']:.4f}", flush=True)
    return row


def table(rows: Rows) -> str:
    """Mean accuracy of each task and side over its seeds, and the interval and passes of the default."""
    columns = ["majority", "colours", "logistic", *SIDES]
    head = ["task", "seeds", "test images", *columns, "95 %, means of its ends", "passes"]
    lines = [head, ["---"] * len(head)]
    for name in TASKS:
        seeds = of_task(rows, name)
        default = [row["default"] for row in seeds if "default" in row]
        if default:
            low, high = np.mean([side["interval_95"]["accuracy"] for side in default], axis=0)
            means = [mean(row[side]["accuracy"] for row in seeds if side in row) for side in columns]
            facts = [name, str(len(default)), f"{default[0]['n']:,}", *means]
            passes = np.mean([side["passes"] for side in default])
            lines.append([*facts, f"{low:.1%} to {high:.1%}", f"{passes:.1f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def of_task(rows: Rows, name: str) -> list[dict[str, Any]]:
    return [row for key, row in rows.items() if key.rpartition(", seed ")[0] == name]


def mean(values: Iterable[float]) -> str:
    found = list(values)
    return f"{np.mean(found):.1%}" if found else ""


def mean_errors(rows: Rows) -> list[str]:
    """The mean error of a side over that of another, and the geometric mean of the tasks' ratios.

    Of each task it is the mean over the seeds that have both; for the ratio half an image is added to it.
    """
    found = []
    for side in ("quick", "default"):
        for other in ("logistic", "before"):
            errors, halves = [], []
            for name in TASKS:
                both = [row for row in of_task(rows, name) if side in row and other in row]
                if both:
                    errors.append(
                        [1 - np.mean([row[each]["accuracy"] for row in both]) for each in (side, other)]
                    )
                    halves.append([0.5 / both[0][side]["n"]])
            if errors:
                first, second = np.mean(errors, axis=0)
                ratio = np.exp(-np.diff(np.log(np.add(errors, halves))).mean())
                aim = AIMS.get((side, other), np.inf)
                met = (
                    f"; aim {aim} {'met' if first / second <= aim else 'missed'}" if np.isfinite(aim) else ""
                )
                found.append(
                    f"error of {side} over {other}: {first / second:.3f}, as a geometric mean {ratio:.3f}, "
                    f"{len(errors)} tasks{met}"
                )
    return found


def below(rows: Rows) -> list[str]:
    """Rows whose default is below the logistic regression, and whether that is beyond its interval."""
    return [
        f"{key}: {row['default']['accuracy']:.1%}, logistic {row['logistic']['accuracy']:.1%}"
        + (
            ", beyond the interval"
            if row["default"]["interval_95"]["accuracy"][1] < row["logistic"]["accuracy"]
            else ""
        )
        for key, row in rows.items()
        if "default" in row and "logistic" in row
        if row["default"]["accuracy"] < row["logistic"]["accuracy"]
    ]


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
    print("\n".join([table(rows), *mean_errors(rows), *below(rows)]))
    return 0


if __name__ == "__main__":
    cli.command(main)
