"""The results of a run as Prefect shows them: metrics, gates, the confusion matrix, a link to the report."""

import base64
from pathlib import Path
from typing import Any

import pandas as pd
from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from flows.events import address
from tasks.core.base.files import flat, read_json
from tasks.core.base.paths import EVALUATION, GATES, METRICS, PAGE
from tasks.core.release import dvc_api
from tasks.core.reporting import html
from tasks.core.reporting.markdown import MARKS

CELL, MARGIN = 28, 90  # pixels of the drawing
MAX_CLASSES = 40  # that it can still show
HEADLINES = ("test", "validation")
TEMPLATE = Path(__file__).parent / "templates/confusion.svg"


def make() -> None:
    """Makes an artifact of each result that is there; Prefect keeps those of earlier runs beside it."""
    if METRICS.exists():
        table = metrics(read_json(METRICS), dvc_api.committed_metrics())
        create_table_artifact(table, key="metrics", description="Change since the last commit")
    if GATES.exists():
        create_markdown_artifact(gates(read_json(GATES)), key="gates")
    if (EVALUATION / "confusion.csv").exists():
        drawing = confusion(pd.read_csv(EVALUATION / "confusion.csv", dtype=str, keep_default_na=False))
        create_image_artifact(drawing, key="confusion-matrix", description="Test images by true class")
    if PAGE.exists():
        create_link_artifact(address(PAGE), key="report", link_text="Report", description="The whole report")


def metrics(now: dict[str, Any], earlier: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each headline: its value, that of the last commit, and the difference."""
    rows = []
    for name, value in flat({split: now.get(split, {}) for split in HEADLINES}).items():
        if not isinstance(value, (int, float)):
            continue
        row = {"metric": name, "value": value, "before": "", "change": ""}
        if isinstance(old := earlier.get(name), (int, float)):
            row |= {"before": old, "change": f"{value - old:+.6g}"}
        rows.append(row)
    return rows


def gates(found: dict[str, Any]) -> str:
    """A Markdown list of the gates, in their own words."""
    head = "**passed**" if found["passed"] else "**rejected**"
    return "\n".join([head, "", *(f"- {MARKS[gate['verdict']]} {gate['why']}" for gate in found["gates"])])


def confusion(answers: pd.DataFrame) -> str:
    """Draws the confusion matrix; a `data:` address of an SVG, which an artifact shows as it is.

    Args:
        answers: a row for each test image, with its `label` and what was `predicted`. Of many classes the
            most frequent are drawn.
    """
    names = sorted(answers["label"].value_counts().index[:MAX_CLASSES])
    counts = pd.crosstab(answers["label"], answers["predicted"]).reindex(
        index=names, columns=names, fill_value=0
    )
    text = html.render(
        TEMPLATE,
        names=names,
        counts=counts.to_numpy().tolist(),
        cell=CELL,
        margin=MARGIN,
        side=MARGIN + CELL * len(names) + 10,
    )
    return f"data:image/svg+xml;base64,{base64.b64encode(text.encode()).decode()}"
