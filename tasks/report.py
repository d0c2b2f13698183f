"""Stage `report`: one page for a person, with no need of a network or a server."""

from __future__ import annotations

import base64
from collections import Counter
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from PIL import Image
from sklearn.metrics import confusion_matrix

from tasks.core import cli, images, params
from tasks.core.paths import DATASET, EXPORT, GATES, METRICS, MODELS, PAGE, PREDICTIONS, VALIDATION
from tasks.core.serialize import read_json, read_parquet, write_text
from tasks.core.splits import SPLITS

TEMPLATE = Path("tasks/templates/report.html")
THUMBNAIL = 96  # pixels
CHART = (460, 190)  # pixels
MANY = 30  # classes from which on the confusion matrix shows the most confused pairs instead


@dataclass(frozen=True)
class Line:
    """A curve of a chart, as the points of an SVG polyline."""

    name: str
    points: str
    last: float


@dataclass(frozen=True)
class Chart:
    """Two curves over epochs; `ticks` are (y in pixels, label)."""

    title: str
    lines: list[Line]
    ticks: list[tuple[float, str]]
    epochs: int


def chart(title: str, history: pd.DataFrame, columns: dict[str, str]) -> Chart:
    """Draws columns of the history over its rows; `columns` gives each its name in the legend."""
    width, height = CHART
    values = history[list(columns)]
    low, high = float(values.min().min()), float(values.max().max())
    span = (high - low) or 1.0
    step = width / max(1, len(history) - 1)

    def y(value: float) -> float:
        return round(height - (value - low) / span * height, 1)

    def line(column: str, name: str) -> Line:
        points = " ".join(f"{place * step:.1f},{y(value)}" for place, value in enumerate(history[column]))
        return Line(name, points, float(history[column].iloc[-1]))

    lines = [line(column, name) for column, name in columns.items()]
    ticks = [(y(value), f"{value:.2f}") for value in (low, (low + high) / 2, high)]
    return Chart(title, lines, ticks, len(history))


def charts(history: pd.DataFrame) -> list[Chart]:
    """Loss and accuracy of the last phase."""
    last = history[history["phase"] == history["phase"].iloc[-1]]
    return [
        chart("Loss", last, {"loss": "training", "val_loss": "validation"}),
        chart("Accuracy", last, {"accuracy": "training", "val_accuracy": "validation"}),
    ]


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


def doubtful(predictions: pd.DataFrame, folder: Path, count: int) -> list[dict[str, Any]]:
    """The pictures to look at: the surest mistakes first, then the least sure right answers."""
    columns = [column for column in predictions.columns if column.startswith("p_")]
    frame = predictions[["path", "label", "predicted"]].copy()
    frame["confidence"] = predictions[columns].max(axis=1)
    frame["right"] = frame["label"] == frame["predicted"]
    frame["order"] = frame["confidence"].where(frame["right"], -frame["confidence"])
    frame = frame.sort_values(["right", "order", "path"], kind="stable").head(count)
    rows: list[dict[str, Any]] = frame.to_dict("records")  # type: ignore[assignment]
    return [row | {"thumbnail": thumbnail(folder / row["path"])} for row in rows]


def thumbnail(path: Path) -> str:
    """A picture as a data URI of a small PNG."""
    picture = Image.fromarray(images.read(path, THUMBNAIL, "pad"))
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def page(folder: Path, shown: int, parameters: dict[str, dict[str, Any]]) -> str:
    """Renders the page from what the stages before have written."""
    dataset = read_json(DATASET / "dataset.json")
    predictions = read_parquet(PREDICTIONS)
    names = dataset["class_names"]
    artifacts = read_json(EXPORT / "artifacts.json")
    gates = read_json(GATES)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(
        artifacts=artifacts["artifacts"],
        chart_size=CHART,
        charts=charts(pd.read_csv(MODELS / "history.csv")),
        confusion=confusion(predictions, names) if len(names) <= MANY else [],
        dataset=dataset,
        doubtful=doubtful(predictions, folder, shown),
        folder=folder,
        gates=gates["gates"],
        metrics=read_json(METRICS),
        model=read_json(MODELS / "classifier.json"),
        pairs=confused_pairs(predictions),
        parameters=parameters,
        passed=gates["passed"] and all(fact["passed"] for fact in artifacts["artifacts"].values()),
        splits=SPLITS,
        validation=read_json(VALIDATION),
    )


def main() -> None:
    p = params.load()
    parameters = {"build": asdict(p.build), "model": asdict(p.model), "train": asdict(p.train)}
    write_text(PAGE, page(Path(p.data.images), p.report.mistakes, parameters))
    cli.say(f"report: {PAGE}")


if __name__ == "__main__":
    cli.stage(main)
