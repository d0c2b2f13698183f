"""Stage `validate`: describes every picture in a manifest and holds it against expectations.

Exit 1 if an expectation of severity `error` is not met, with one line for each; warnings are shown.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.core import cli, params
from tasks.core.errors import Rejected
from tasks.core.expectations import Check, Outcome, gxe, readable_of, run, tolerating
from tasks.core.manifest import SCHEMA, discover, scan
from tasks.core.paths import DATA_DOCS, MANIFEST, VALIDATION
from tasks.core.serialize import replacing, write_json, write_parquet


def checks(frame: pd.DataFrame, p: params.Validate) -> list[Check]:
    """The expectations that params.yaml asks for."""
    unreadable = Check(
        "readable",
        f"at most {p.max_unreadable} unreadable pictures (validate.max_unreadable)",
        gxe.ExpectColumnValuesToBeNull(column="error", mostly=tolerating(p.max_unreadable, len(frame))),
        "replace them, take them out, or raise validate.max_unreadable to leave them out",
    )
    return [
        unreadable,
        *(_enough(label, p.min_per_class) for label in sorted(frame["label"].unique())),
        *(_large(side, p.min_side) for side in ("width", "height")),
        Check(
            "no exact duplicates",
            "each picture once",
            gxe.ExpectColumnValuesToBeUnique(column="sha256", severity="warning"),
            "keep one of them; copies of one class are never split between training and test",
        ),
    ]


def _enough(label: str, floor: int) -> Check:
    return Check(
        f"enough of class {label}",
        f"at least {floor} readable pictures of each class (validate.min_per_class)",
        gxe.ExpectTableRowCountToBeBetween(min_value=floor, row_condition=readable_of(label)),
        "add pictures to the class, take the class out, or lower validate.min_per_class",
    )


def _large(side: str, pixels: int) -> Check:
    return Check(
        f"{side} of pictures",
        f"at least {pixels} pixels (validate.min_side)",
        gxe.ExpectColumnValuesToBeBetween(column=side, min_value=pixels),
        "replace them, take them out, or lower validate.min_side",
    )


def summary(frame: pd.DataFrame, outcomes: list[Outcome]) -> dict[str, Any]:
    """What `validation.json` holds."""
    unread = frame[frame["error"].notna()]
    counts = frame["label"].value_counts().sort_index()
    return {
        "passed": not _faults(outcomes),
        "pictures": len(frame),
        "classes": {str(label): int(count) for label, count in counts.items()},
        "unreadable": dict(zip(unread["path"], unread["error"], strict=True)),
        "expectations": [asdict(outcome) | {"paths": list(outcome.paths)} for outcome in outcomes],
    }


def _faults(outcomes: list[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if not outcome.passed and outcome.severity == "error"]


def line(outcome: Outcome) -> str:
    """One outcome that was not met, in one line."""
    shown = f": {', '.join(outcome.paths[:3])}" if outcome.paths else ""
    more = ", ..." if outcome.count > 3 else ""
    return f"{outcome.name}: {outcome.observed} found, {outcome.expected}{shown}{more}; {outcome.remedy}"


def validate(folder: Path, labels: Path, p: params.Validate, workers: int) -> None:
    """Scans the pictures and writes the manifest, the summary and the Data Docs.

    Raises:
        DataError: no usable folder or labels file.
        Rejected: an expectation of severity `error` is not met; the findings are written before.
    """
    frame = scan(folder, discover(folder, labels), workers)
    cli.say(f"validate: {len(frame)} pictures, {frame['label'].nunique()} classes")
    write_parquet(MANIFEST, frame, SCHEMA)
    with replacing(DATA_DOCS) as site:
        outcomes = run(frame, checks(frame, p), site)
    write_json(VALIDATION, summary(frame, outcomes))
    faults = _faults(outcomes)
    for outcome in outcomes:
        if not outcome.passed and outcome not in faults:
            cli.say(f"validate: warning, {line(outcome)}")
    if faults:
        raise Rejected("; ".join(line(fault) for fault in faults))


def main() -> None:
    p = params.load()
    validate(Path(p.data.images), Path(p.data.labels), p.validate, p.compute.workers)


if __name__ == "__main__":
    cli.stage(main)
