"""Stage `validate`: describes every image in a manifest and holds it against expectations.

Exit 1 if an expectation of severity `error` is not met, with a table of what was found; warnings are shown.
The expectations are those of params.yaml: validate, and of data.schema, where that says something.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from tasks.core.base import cli, console, params
from tasks.core.base.errors import DataError, Rejected, first_of
from tasks.core.base.files import replacing, write_json, write_text
from tasks.core.base.params import Data
from tasks.core.base.paths import DATA_DOCS, MANIFEST, PAGE, VALIDATION
from tasks.core.data import discovery, listing, manifest
from tasks.core.data.config import Processes
from tasks.core.data.last_run import is_another, last_output
from tasks.core.data.parquet import read_parquet, write_parquet
from tasks.core.validation import derived_columns, groups, schema
from tasks.core.validation.config import Validate
from tasks.core.validation.outcome import Outcome
from tasks.core.validation.scan import scan

SHOWN_CLASSES = 5  # that a line names
SHOWN = 3  # images that a line of the table names
BEFORE = ("sha256", "group", "given_group", "error", *manifest.MEASURES)  # columns of the manifest before
SETS = {  # kinds whose images belong together, and the column that says which
    "duplicate": "sha256",
    "label_conflict": "sha256",
    "near_duplicate": "near_set",
    "group_conflict": "near_set",
    "groups_merged": "group",
}


@dataclass(frozen=True)
class Params(params.Section):
    data: Data
    validate: Validate
    compute: Processes


def scan_images(folder: Path, labels: Path, compute: Processes) -> tuple[pd.DataFrame, dict[str, int]]:
    """Describes every image: a manifest, its groups those of the labels file.

    Returns:
        The manifest, and how many files were skipped, since no image is called so, by suffix.

    Raises:
        DataError: no usable folder or labels file.
    """
    entries, skipped = discovery.discover(folder, labels)
    progress = tqdm(entries, "scan", unit=" images", disable=None, leave=False)
    return scan(folder, progress, compute), skipped


def summary(
    frame: pd.DataFrame, outcomes: list[Outcome], merged: list[groups.MergedGroups]
) -> dict[str, Any]:
    """What `validation.json` holds."""
    unread = frame[frame["error"].notna()]
    counts = frame["label"].value_counts().sort_index()
    met = [asdict(outcome) | {"paths": list(outcome.paths[: SHOWN * 4])} for outcome in outcomes]
    return {
        "passed": not _faults(outcomes),
        "pictures": len(frame),
        "classes": {str(label): int(count) for label, count in counts.items()},
        "unreadable": dict(zip(unread["path"], unread["error"], strict=True)),
        "findings": _findings(frame, outcomes),
        "ties": [asdict(one) for one in merged],
        "expectations": met,
    }


def _findings(frame: pd.DataFrame, outcomes: list[Outcome]) -> dict[str, Any]:
    """For each kind that was found: the images; where they belong together, in sets."""
    found: dict[str, Any] = {}
    for outcome in outcomes:
        if not outcome.passed or outcome.paths:
            known = found.setdefault(outcome.kind, {"severity": outcome.severity, "paths": []})
            known["paths"] = sorted({*known["paths"], *outcome.paths})
    for kind, column in SETS.items():
        if kind in found:
            members = frame[frame["path"].isin(found[kind]["paths"])]
            found[kind]["sets"] = sorted(sorted(group) for _, group in members.groupby(column)["path"])
    return found


def _faults(outcomes: list[Outcome]) -> list[Outcome]:
    return [outcome for outcome in outcomes if not outcome.passed and outcome.severity == "error"]


def table(outcomes: list[Outcome]) -> Iterator[str]:
    """What was not met, errors first, in lines of even columns."""
    failed = sorted((o for o in outcomes if not o.passed), key=lambda outcome: outcome.severity)
    width = max((len(outcome.name) for outcome in failed), default=0)
    for outcome in failed:
        row = f"{outcome.severity:7}  {outcome.name:{width}}  {_found(outcome):>7}  {_examples(outcome)}"
        yield row.rstrip()


def _found(outcome: Outcome) -> str:
    return f"{outcome.observed:.4g}" if isinstance(outcome.observed, float) else str(outcome.observed)


def _examples(outcome: Outcome) -> str:
    return outcome.details or first_of(outcome.paths, SHOWN)


def line(faults: list[Outcome]) -> str:
    """What stopped the run, in one line: the first few faults, and what to do if it is one alone."""
    texts = [
        f"{fault.name}: {_examples(fault) or _found(fault)}; asked for: {fault.expected}" for fault in faults
    ]
    if len(faults) == 1:
        return f"{texts[0]}; {faults[0].remedy}"
    more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    return f"{len(faults)} errors: {'; '.join(texts[:SHOWN])}{more}; {VALIDATION} says what to do"


def validate(
    folder: Path,
    labels: Path,
    expected: schema.Schema,
    accepted: Path | None,
    p: Validate,
    compute: Processes,
) -> None:
    """Scans the images and writes the manifest, the summary and the Data Docs.

    Args:
        accepted: the manifest that was accepted last, whose groups keep their names.

    Raises:
        DataError: no usable folder or labels file.
        Rejected: an expectation of severity `error` is not met; the findings are written before.
    """
    images, skipped = scan_images(folder, labels, compute)
    names = sorted(images["label"].unique())
    console.say(f"validate: {len(images)} images, {len(names)} classes: {first_of(names, SHOWN_CLASSES)}")
    if skipped:
        counts = listing.describe_suffixes(skipped)
        console.say(f"validate: passed over, since no image is called so: {counts}")
    unread = images["error"].notna()
    left_out = images.loc[unread, "path"].tolist()
    readable = images[~unread] if left_out else images
    before = manifest.readable(read_parquet(accepted, BEFORE)) if accepted else None
    near_set = derived_columns.number_near_sets(readable, p)
    known = groups.KnownGroups.of(before) if before is not None else groups.KnownGroups()
    own, merged = groups.assign(readable, near_set, known)
    images["group"] = own.reindex(images.index)
    write_parquet(MANIFEST, images, manifest.SCHEMA)
    frame = derived_columns.with_derived_columns(images, near_set, merged)
    del images, readable
    from tasks.core.validation import checks, expectations  # seconds and 100 MB, by Great Expectations

    with replacing(DATA_DOCS) as site:
        asked, prevalent = checks.checks(frame, p, expected, before)
        outcomes = expectations.run(frame, asked, site)
    for kind, share in prevalent.items():
        console.say(
            f"validate: {kind.replace('_', ' ')}: {share:.0%} of the images, so that it is no finding"
        )
    seen = {"passed_over": skipped, "prevalent": prevalent}
    write_json(VALIDATION, summary(frame, outcomes, merged) | seen)
    for row in table(outcomes):
        console.say(f"validate: {row}")
    faults = _faults(outcomes)
    if left_out and not any(fault.kind == "unreadable" for fault in faults):
        console.say(f"validate: unreadable and left out: {first_of(left_out, SHOWN)}")
    if faults:
        old = f"; {PAGE} is still that of an earlier run" if PAGE.exists() else ""
        raise Rejected(f"{line(faults)}; {DATA_DOCS}/index.html shows all{old}")


def main() -> None:
    p = params.load(Params)
    images, labels, expected = Path(p.data.images), Path(p.data.labels), schema.load(Path(p.data.schema))
    accepted = last_output(MANIFEST)
    validate(images, labels, expected, accepted, p.validate, p.compute)
    if accepted is None and is_another(MANIFEST):
        console.say(
            "validate: warning, dvc.lock names another manifest, which is not in DVC's cache, so that "
            "near-duplicates may have changed their split; to keep them, "
            f"git checkout dvc.lock, dvc pull {MANIFEST}, and run again"
        )


def suggest() -> int:
    """write data.schema, for you to edit, from the images there are; no stage is run"""
    p = params.load(Params)
    file = Path(p.data.schema)
    if file.exists() and schema.load(file) != schema.Schema():
        raise DataError(f"data.schema: {file} says something already; delete it to have a new one suggested")
    scanned, _ = scan_images(Path(p.data.images), Path(p.data.labels), p.compute)
    images = manifest.readable(scanned)
    write_text(file, schema.text(schema.suggest(images)))
    console.say(f"validate: {file} is suggested from {len(images)} images; edit it, then run the pipeline")
    return 0


if __name__ == "__main__":
    cli.stage(main, suggest=suggest)
