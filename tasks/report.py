"""Stage `report`: one page for a person, with no need of a network or a server."""

import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.core.base import cli, console, params, paths
from tasks.core.base.files import read_json, write_text
from tasks.core.base.params import Data
from tasks.core.data import splits
from tasks.core.data.last_run import last_inputs
from tasks.core.data.manifest import MEASURES, readable
from tasks.core.data.parquet import read_parquet
from tasks.core.evaluation.config import Evaluate
from tasks.core.evaluation.metrics import METRICS
from tasks.core.evaluation.predictions import answers as answers_of
from tasks.core.evaluation.rejection import left_out, rejection_reasons
from tasks.core.reporting import charts, html, thumbnails
from tasks.core.reporting.config import Report
from tasks.core.reporting.parameters import changed, shown

TEMPLATE = html.TEMPLATES / "report.html"
COLUMNS = ("path", "label", "sha256", "error", *MEASURES)  # of the manifest
MAX_MATRIX_CLASSES = 30  # classes from which on what is long is folded, and there is no matrix
MAX_MISTAKE_KINDS = 100  # of mistakes that are shown at most
MAX_MISTAKE_IMAGES = 600  # of all of them together, but for one of each kind


def curves(history: pd.DataFrame) -> list[charts.Chart]:
    """Loss and accuracy of the last phase, from the head's on; none where that was solved, and is all."""
    phases = [history["phase"].iloc[-1], "head"]
    last = history[history["phase"].isin(phases) & np.isfinite(history["val_loss"])]
    if len(last) <= 1:
        return []
    first = "head" if last["phase"].iloc[0] == "head" else "epoch 1"
    return [
        charts.chart("Loss", last, {"loss": "training", "val_loss": "validation"}, first),
        charts.chart("Accuracy", last, {"accuracy": "training", "val_accuracy": "validation"}, first),
    ]


def best_epoch(history: pd.DataFrame, best: dict[str, Any]) -> str:
    """Says which epoch the model is of."""
    last = history["phase"].iloc[-1]
    if last == "head":
        return (
            "The head was solved on the features of the backbone as it came: validation loss "
            f"{best['val_loss']:.4f}, accuracy {best['val_accuracy']:.4f}."
        )
    phases = {"augmented": "the head, on augmented images", "fine_tune": "fine-tuning"}
    text = f"Epochs of {phases[last]}. Kept:"
    if best["phase"] == last:
        head = history.loc[history["phase"] == "head", "val_loss"].min()
        is_above = "val_loss_error" in best and best["val_loss"] > head  # without it, none that is is taken
        doubt = ", above the head's by less than half its standard error" if is_above else ""
        return f"{text} epoch {best['epoch']}, of the lowest validation loss among them{doubt}."
    if not np.isfinite(history["val_loss"].iloc[-1]):
        return f"{text} the head, as the loss of these became no number (lower train.learning_rate)."
    return f"{text} the head, as what these came to had a higher validation loss."


def confusion(predictions: pd.DataFrame, names: list[str]) -> list[dict[str, Any]]:
    """Rows of the confusion matrix: true class, and for each predicted class count, share and `anchor`.

    The anchor leads to the images of a mistake; right answers have none.
    """
    counts = pd.crosstab(predictions["label"], predictions["predicted"])
    matrix = counts.reindex(index=names, columns=names, fill_value=0).to_numpy()
    shares = matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)

    def cell(row: int, column: int) -> dict[str, Any]:
        n, share = int(matrix[row, column]), float(shares[row, column])
        link = anchor(row, column) if n and row != column else None
        return {"count": n, "share": share, "to": names[column], "anchor": link}

    places = range(len(names))
    return [{"label": names[row], "cells": [cell(row, column) for column in places]} for row in places]


def anchor(row: int, column: int) -> str:
    """What the images of the one class that are taken for the other are found by on the page."""
    return f"mistake-{row}-{column}"


def mistakes(
    answers: pd.DataFrame, names: list[str], album: thumbnails.Album, count: int
) -> list[dict[str, Any]]:
    """The images of the most frequent mistakes, each kind by its most confident first.

    Args:
        answers: as `with_confidence` gives them.
        count: images shown of each kind at most.
    """
    wrong = answers[~answers["right"]].sort_values(
        ["confidence", "path"], ascending=[False, True], kind="stable"
    )
    of_kind = wrong.groupby(["label", "predicted"])
    kinds = Counter(zip(wrong["label"], wrong["predicted"], strict=True)).most_common(MAX_MISTAKE_KINDS)
    count = min(count, max(1, MAX_MISTAKE_IMAGES // max(1, len(kinds))))
    return [
        {
            "label": label,
            "predicted": predicted,
            "count": n,
            "anchor": anchor(names.index(label), names.index(predicted)),
            "rows": with_images(of_kind.get_group((label, predicted)).head(count).to_dict("records"), album),
        }
        for (label, predicted), n in kinds
    ]


def least_confident(answers: pd.DataFrame, album: thumbnails.Album, count: int) -> list[dict[str, Any]]:
    """The right answers of the lowest confidence, of those that `with_confidence` gives."""
    chosen = answers[answers["right"]].sort_values(["confidence", "path"], kind="stable").head(count)
    return with_images(chosen.to_dict("records"), album)


def with_confidence(table: pd.DataFrame) -> pd.DataFrame:
    """`path`, `label` and `predicted`, with the `confidence` of the answer, and whether it is `right`."""
    given = answers_of(table)
    return table[["path", "label", "predicted"]].assign(confidence=given.confidence, right=given.right)


def with_images(rows: list[dict[Any, Any]], album: thumbnails.Album) -> list[dict[Any, Any]]:
    """Rows that have a `path`, with the `image` to show for it."""
    return [row | {"image": album.image(row["path"])} for row in rows]


@dataclass(frozen=True)
class Change:
    """A number or a parameter that is another than in the last run; numbers have a `difference`."""

    name: str
    before: str
    now: str
    difference: str = ""


def changes(
    metrics: dict[str, Any], validation: dict[str, Any], parameters: dict[str, str]
) -> list[Change] | None:
    """What is new since this stage last ended well; none where it never did."""
    files, values = last_inputs("report", [paths.METRICS, paths.VALIDATION])
    if not values:
        return None
    found = []
    if paths.VALIDATION in files:
        before = read_json(files[paths.VALIDATION])
        found.append(_moved("pictures", before["pictures"], validation["pictures"], "d"))
        found.append(_moved("classes", len(before["classes"]), len(validation["classes"]), "d"))
    if paths.METRICS in files:
        old = read_json(files[paths.METRICS])["test"]
        found += [
            _moved(f"test.{name}", old[name], metrics["test"][name], ".4f")
            for name in metrics["test"]["interval_95"]
            if name in old
        ]
    had = {_present_name(key): value for key, value in shown(values).items()}
    found += [Change(*change) for change in changed(had, parameters)]
    return [change for change in found if change.before != change.now]


def _present_name(key: str) -> str:
    """What a parameter is called now, or one of its entries."""
    for old, new in params.RENAMED.items():
        if f"{key}.".startswith(f"{old}."):
            return new + key.removeprefix(old)
    return key


def _moved(name: str, before: float, now: float, form: str) -> Change:
    return Change(name, format(before, form), format(now, form), format(now - before, f"+{form}"))


SECTIONS = {
    "changes": "Since the last run",
    "gates": "Gates",
    "artifacts": "Artifacts",
    "confusion": "Confusion",
    "mistakes": "Mistakes",
    "calibration": "Calibration",
    "slices": "Slices",
    "robustness": "Robustness",
    "labels": "Label errors",
    "auto": "Chosen",
    "learning": "Learning",
    "classes": "Classes",
    "findings": "Findings",
    "measures": "Measures",
    "pictures": "Images",
    "card": "Model card",
    "how": "How it was made",
}


def weakest(metrics: dict[str, Any]) -> dict[str, Any] | None:
    """The slice that is judged and has the lowest accuracy, by `name`; none if there is no such slice."""
    judged = [
        cell | {"name": f"{kind} is {name}"}
        for kind, cells in metrics["slices"].items()
        for name, cell in cells.items()
        if cell["judged"]
    ]
    return min(judged, key=lambda cell: cell["accuracy"], default=None)


def first_of_each(label_errors: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The first of held-out images, and of training images, whose confidence is another's."""
    parts = ([row for row in label_errors if (row["split"] == "train") == seen] for seen in (False, True))
    return [row for part in parts for row in part[:count]]


def page(folder: Path, p: Report, min_slice: int, parameters: dict[str, str]) -> str:
    """Renders the page from what the stages before have written; `parameters` are shown by dotted key."""
    artifacts, gates = read_json(paths.EXPORT / paths.ARTIFACT_FACTS), read_json(paths.GATES)
    dataset, validation = read_json(paths.DATASET / paths.DATASET_FACTS), read_json(paths.VALIDATION)
    label_errors, predictions = read_json(paths.LABEL_ERRORS), read_parquet(paths.PREDICTIONS)
    metrics = read_json(paths.METRICS)
    images = readable(read_parquet(paths.MANIFEST, COLUMNS))
    names, album = dataset["class_names"], thumbnails.Album(folder, images.set_index("path")["sha256"])
    history, model = pd.read_csv(paths.MODELS / "history.csv"), read_json(paths.MODELS / paths.MODEL_FACTS)
    robustness = charts.robustness_curves(metrics["robustness"]) if "robustness" in metrics else []
    answers = with_confidence(predictions)
    wrong = mistakes(answers, names, album, p.mistakes)
    lowest = min(
        (c["interval_95"][0] for cells in metrics["slices"].values() for c in cells.values()), default=0.0
    )
    lowest = math.floor(lowest * 10) / 10
    own_split = splits.read(paths.DATASET, images["path"])
    return html.render(
        TEMPLATE,
        album=album,
        anchors={kind["anchor"] for kind in wrong},
        artifacts=artifacts["artifacts"],
        proved_on=artifacts.get("proved_on"),
        augmented=thumbnails.embed(paths.TRAINING / paths.AUGMENTED),
        bars=charts.bars(dataset["counts"]),
        cards=[m for m in METRICS.values() if m.title and len(names) >= m.min_classes],
        calibrated=parameters.get("export.calibrate") == "true",
        chart_size=charts.SIZE,
        class_sheets=thumbnails.of_classes(images, album, p.thumbnails),
        changes=changes(metrics, validation, parameters),
        class_columns=[
            name for name in next(iter(metrics["per_class"].values())) if name not in ("n", "why")
        ],
        confusion=confusion(predictions, names) if len(names) <= MAX_MATRIX_CLASSES else [],
        curves=curves(history),
        dataset=dataset,
        curve_size=charts.CURVE_SIZE,
        robustness=robustness,
        findings=thumbnails.of_findings(validation, album, p.thumbnails),
        folder=folder,
        gauge=lambda share: round((share - lowest) / (1 - lowest) * 100, 1) if lowest < 1 else 100,
        gates=gates["gates"],
        groups={"Split": splits.SPLITS, "Class": names},
        best_epoch=best_epoch(history, model["best_epoch"]),
        label_errors=label_errors,
        many=len(names) > MAX_MATRIX_CLASSES,
        measures=charts.measures(images, {"Split": own_split, "Class": images["label"]}),
        metrics=metrics,
        min_slice=min_slice,
        mistakes=wrong,
        mislabelled=with_images(first_of_each(label_errors, p.thumbnails), album),
        model=model,
        parameters=parameters,
        p=p,
        absent=[name for name, row in metrics["per_class"].items() if not row["n"]],
        rare=[name for name, row in metrics["per_class"].items() if 0 < row["n"] < min_slice],
        left_out=left_out(artifacts["artifacts"]),
        reasons=rejection_reasons(gates["gates"], artifacts["artifacts"]),
        reliability=charts.reliability(pd.read_csv(paths.EVALUATION / "reliability.csv")),
        sections=SECTIONS.items(),
        slices_from=lowest,
        splits=splits.SPLITS,
        square=charts.SQUARE,
        least_confident=least_confident(answers, album, p.mistakes),
        validation=validation,
        weakest=weakest(metrics),
        worst_corruption=min(robustness, key=lambda curve: curve.values[-1], default=None),
    )


@dataclass(frozen=True)
class Params(params.Section):
    data: Data
    gate: dict[str, Any]
    validate: dict[str, Any]
    build: dict[str, Any]
    model: dict[str, Any]
    train: dict[str, Any]
    evaluate: Evaluate
    export: dict[str, Any]
    report: Report


def main() -> None:
    p = params.load(Params)
    parameters = shown(asdict(p))
    write_text(paths.PAGE, page(Path(p.data.images), p.report, p.evaluate.min_slice, parameters))
    console.say(f"report: {paths.PAGE}")


if __name__ == "__main__":
    cli.stage(main)
