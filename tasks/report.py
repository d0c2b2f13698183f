"""Stage `report`: one page for a person, with no need of a network or a server."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from sklearn.metrics import confusion_matrix

from tasks.core import charts, cli, params, paths, sheets
from tasks.core.manifest import readable
from tasks.core.serialize import read_json, write_text
from tasks.core.splits import SPLITS, Shares, split
from tasks.core.tables import read_parquet

TEMPLATE = Path(__file__).parent / "templates/report.html"
MANY = 30  # classes from which on what is long is folded, and the matrix becomes the most confused pairs


def curves(history: pd.DataFrame) -> list[charts.Chart]:
    """Loss and accuracy of the last phase."""
    last = history[history["phase"] == history["phase"].iloc[-1]]
    return [
        charts.chart("Loss", last, {"loss": "training", "val_loss": "validation"}),
        charts.chart("Accuracy", last, {"accuracy": "training", "val_accuracy": "validation"}),
    ]


def kept(history: pd.DataFrame, best: dict[str, Any]) -> str:
    """Says which epoch the model is of, and, where that isn't on the curves, why."""
    last = history["phase"].iloc[-1]
    phases = {
        "head": "the head, on the backbone as it came",
        "augmented": "the head, on augmented pictures",
        "fine_tune": "fine-tuning of every weight",
    }
    text = f"Epochs of {phases[last]}. Kept: epoch {best['epoch']}"
    if best["phase"] == last:
        return f"{text}, of the lowest validation loss."
    return f"{text} of the head before, since none of these had a lower validation loss."


def flat(values: dict[str, Any], prefix: str) -> dict[str, str]:
    """Parameters by their dotted keys, with values as params.yaml may write them."""
    result: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}.{name}")
        else:
            result[f"{prefix}.{name}"] = value if isinstance(value, str) else json.dumps(value)
    return result


def confusion(predictions: pd.DataFrame, names: list[str]) -> list[dict[str, Any]]:
    """Rows of the confusion matrix: true class, and counts of each predicted class."""
    matrix = confusion_matrix(predictions["label"], predictions["predicted"], labels=names)
    shares = matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)
    return [
        {"label": name, "cells": [{"count": n, "share": s} for n, s in zip(counts, row, strict=True)]}
        for name, counts, row in zip(names, matrix.tolist(), shares.tolist(), strict=True)
    ]


def confused_pairs(predictions: pd.DataFrame) -> list[dict[str, Any]]:
    """The most frequent mistakes, for when there are too many classes for a matrix."""
    wrong = predictions[predictions["label"] != predictions["predicted"]]
    counts = Counter(zip(wrong["label"], wrong["predicted"], strict=True)).most_common(MANY)
    return [{"label": label, "predicted": predicted, "count": n} for (label, predicted), n in counts]


def doubtful(predictions: pd.DataFrame, album: sheets.Album, count: int) -> list[dict[str, Any]]:
    """The pictures to look at: the surest mistakes first, then the least sure right answers."""
    columns = [column for column in predictions.columns if column.startswith("p_")]
    frame = predictions[["path", "label", "predicted"]].copy()
    frame["confidence"] = predictions[columns].max(axis=1)
    frame["right"] = frame["label"] == frame["predicted"]
    frame["order"] = frame["confidence"].where(frame["right"], -frame["confidence"])
    frame = frame.sort_values(["right", "order", "path"], kind="stable").head(count)
    return pictured(frame.to_dict("records"), album)  # type: ignore[arg-type]


def pictured(rows: list[dict[str, Any]], album: sheets.Album) -> list[dict[str, Any]]:
    """Rows that have a `path`, with the `picture` to show for it."""
    return [row | {"picture": album.picture(row["path"])} for row in rows]


def page(folder: Path, build: params.Build, p: params.Report, parameters: dict[str, str]) -> str:
    """Renders the page from what the stages before have written; `parameters` are shown by dotted key."""
    artifacts, gates = read_json(paths.EXPORT / "artifacts.json"), read_json(paths.GATES)
    dataset, validation = read_json(paths.DATASET / "dataset.json"), read_json(paths.VALIDATION)
    label_errors, predictions = read_json(paths.LABEL_ERRORS), read_parquet(paths.PREDICTIONS)
    pictures = readable(read_parquet(paths.MANIFEST))
    names, album = dataset["class_names"], sheets.Album(folder)
    history, model = pd.read_csv(paths.MODELS / "history.csv"), read_json(paths.MODELS / "classifier.json")
    own_split = split(pictures, Shares(build.validation_split, build.test_split, build.seed))
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(
        album=album,
        artifacts=artifacts["artifacts"],
        augmented=sheets.embedded(paths.TRAINING / paths.AUGMENTED),
        bars=charts.bars(dataset["counts"]),
        chart_size=charts.SIZE,
        class_sheets=sheets.of_classes(pictures, album, p.thumbnails),
        confusion=confusion(predictions, names) if len(names) <= MANY else [],
        curves=curves(history),
        dataset=dataset,
        doubtful=doubtful(predictions, album, p.mistakes),
        findings=sheets.of_findings(validation, album, p.thumbnails),
        folder=folder,
        gates=gates["gates"],
        groups={"Split": SPLITS, "Class": names},
        kept=kept(history, model["best_epoch"]),
        label_errors=label_errors,
        many=len(names) > MANY,
        measures=charts.measures(pictures, {"Split": own_split, "Class": pictures["label"]}),
        metrics=read_json(paths.METRICS),
        mislabelled=pictured(label_errors[: p.thumbnails], album),
        model=model,
        pairs=confused_pairs(predictions),
        parameters=parameters,
        passed=gates["passed"] and all(fact["passed"] for fact in artifacts["artifacts"].values()),
        splits=SPLITS,
        validation=validation,
    )


def main() -> None:
    p = params.load()
    sections = {
        "validate": asdict(p.validate),
        "build": asdict(p.build),
        "model": asdict(p.model),
        "train": asdict(p.train),
        "evaluate": asdict(p.evaluate),
        "export": asdict(p.export),
    }
    parameters = {key: text for name, values in sections.items() for key, text in flat(values, name).items()}
    write_text(paths.PAGE, page(Path(p.data.images), p.build, p.report, parameters))
    cli.say(f"report: {paths.PAGE}")


if __name__ == "__main__":
    cli.stage(main)
