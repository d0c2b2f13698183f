"""Stage `latency`: times each artifact on this machine, one picture at a time.

It writes `export/export.json`: what `artifacts.json` says, and the times. Times differ from run to
run, so DVC neither hashes nor caches that file; `python -m tasks.latency` makes it again anywhere.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from tasks.core import cli, predictors
from tasks.core.paths import EXPORT, LATENCIES
from tasks.core.serialize import read_json, write_json

WARM_UP = 5
RUNS = 50


def median_ms(path: Path) -> float:
    """Median time of `RUNS` predictions of one picture, in milliseconds, after a warm-up."""
    predictor = predictors.load(path)
    side = predictor.contract.image_size
    picture = np.random.default_rng(0).random((1, side, side, 3), dtype=np.float32)
    times = []
    for run in range(WARM_UP + RUNS):
        start = time.perf_counter()
        predictor.predict(picture)
        if run >= WARM_UP:
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


def timed(folder: Path, artifacts: dict[str, Any]) -> dict[str, Any]:
    """Adds `latency_ms`, and its ratio to the SavedModel's where there is one, to each artifact."""
    times = {kind: median_ms(folder / facts["file"]) for kind, facts in artifacts.items() if facts["passed"]}
    base = times.get("saved_model")
    result = {}
    for kind, facts in artifacts.items():
        result[kind] = facts | {"latency_ms": None, "latency_ratio": None}
        if kind in times:
            result[kind]["latency_ms"] = round(times[kind], 3)
            result[kind]["latency_ratio"] = round(times[kind] / base, 4) if base else None
    return result


def main() -> None:
    facts = read_json(EXPORT / "artifacts.json")
    artifacts = timed(EXPORT, facts["artifacts"])
    write_json(LATENCIES, facts | {"artifacts": artifacts})
    for fact in artifacts.values():
        if fact["latency_ms"] is not None:
            cli.say(f"latency: {fact['file']} {fact['latency_ms']:.2f} ms a picture")


if __name__ == "__main__":
    cli.stage(main)
