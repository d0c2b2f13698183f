"""What a page draws, reduced to places and percents that its template puts into SVG and CSS."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tasks.core.data.manifest import MEASURES

SIZE = (460, 190)  # pixels of a chart of curves
SQUARE = 220  # of a reliability curve
CURVE_SIZE = (120, 60)  # of a curve of robustness
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


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
    first: str


def chart(title: str, history: pd.DataFrame, columns: dict[str, str], first: str) -> Chart:
    """Draws columns of the history over its rows; `columns` gives each its name in the legend.

    Args:
        first: what the first row is.
    """
    width, height = SIZE
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
    return Chart(title, lines, ticks, int(history["epoch"].iloc[-1]), first)


def reliability(curves: pd.DataFrame) -> dict[str, list[tuple[float, float, float, str]]]:
    """Confidence to the right, accuracy upwards, areas by the number of images; a curve for each `when`.

    Returns:
        Of each curve for each bin (x, y, radius, label), in pixels of a square of `SQUARE`.
    """
    most = curves.groupby("when")["n"].sum().max()

    def dot(row: Any) -> tuple[float, float, float, str]:
        radius = max(2.0, 16 * (row.n / most) ** 0.5)
        text = f"{row.n} images: confidence {row.confidence:.3f}, accuracy {row.accuracy:.3f}"
        x, y = row.confidence * SQUARE, (1 - row.accuracy) * SQUARE
        return round(x, 1), round(y, 1), round(radius, 1), text

    return {
        str(when): [dot(row) for row in curves[curves["when"] == when].itertuples()]
        for when in sorted(curves["when"].unique(), reverse=True)
    }


@dataclass(frozen=True)
class RobustnessCurve:
    """Accuracy on clean images and at each severity of a corruption, and its points in `CURVE_SIZE`."""

    name: str
    values: list[float]
    points: list[tuple[float, float]]


def robustness_curves(robustness: dict[str, Any]) -> list[RobustnessCurve]:
    """A small curve for each corruption, all on one axis from the worst value, in tenths, to 1."""
    corruptions = robustness["corruptions"].items()
    values = {name: [robustness["unharmed"], *severities.values()] for name, severities in corruptions}
    low = min(0.9, math.floor(min(map(min, values.values())) * 10) / 10)
    width, height = CURVE_SIZE

    def points(each: list[float]) -> list[tuple[float, float]]:
        step = width / (len(each) - 1)
        return [
            (round(place * step, 1), round((1 - value) / (1 - low) * height, 1))
            for place, value in enumerate(each)
        ]

    return [RobustnessCurve(name, each, points(each)) for name, each in values.items()]


@dataclass(frozen=True)
class Box:
    """A distribution: its 5th, 25th, 50th, 75th and 95th percentiles, and their places on the axis, 0-100."""

    values: tuple[float, ...]
    places: tuple[float, ...]


@dataclass(frozen=True)
class Measure:
    """A measure's axis, from lowest to highest percentile drawn, and the box of each (kind, group)."""

    name: str
    low: float
    high: float
    boxes: dict[tuple[str, str], Box]


def measures(images: pd.DataFrame, kinds: dict[str, pd.Series]) -> list[Measure]:
    """How the quality measures are distributed, on axes that all groups share.

    Args:
        images: the readable ones, with a column for each measure.
        kinds: for each kind of group the group that each image is in, by the same index.
    """
    values, shares = images[list(MEASURES)], pd.Index(QUANTILES)
    parts: dict[str, pd.DataFrame] = {kind: values.groupby(of).quantile(shares) for kind, of in kinds.items()}
    quantiles = pd.concat(parts)
    return [_measure(name, quantiles[name].unstack()) for name in MEASURES]


def _measure(name: str, quantiles: pd.DataFrame) -> Measure:
    low, high = float(quantiles.min().min()), float(quantiles.max().max())
    span = high - low

    def box(values: Sequence[float]) -> Box:
        places = (round((value - low) / span * 100, 1) if span else 50.0 for value in values)
        return Box(tuple(values), tuple(places))

    groups = zip(quantiles.index, quantiles.to_numpy().tolist(), strict=True)
    return Measure(name, low, high, {group: box(values) for group, values in groups})


@dataclass(frozen=True)
class Bar:
    """A class's images in each split, and the widths of its bar's parts in percent of the longest bar."""

    counts: dict[str, int]
    widths: dict[str, float]


def bars(counts: dict[str, dict[str, int]]) -> dict[str, Bar]:
    """The balance of the classes: `counts` are images by split and class, and so in `dataset.json`."""
    table = pd.DataFrame(counts)
    widths = (table / table.sum(axis=1).max() * 100).round(2)
    return {str(name): Bar(table.loc[name].to_dict(), widths.loc[name].to_dict()) for name in table.index}
