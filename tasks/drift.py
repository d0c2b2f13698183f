"""Compares scored images with those that the model was made with, and says whether they have drifted.

  python -m tasks.score export/model.onnx folder/
  python -m tasks.drift

It writes reports/monitor/drift.json and index.html, and ends with exit code 1 if there is drift: in a measure
of quality, in how sure the model is, or in the mix of classes that it sees. params.yaml has the limits, under
`monitor`.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.core.base import cli, console, params
from tasks.core.base.errors import DataError, Rejected
from tasks.core.base.files import write_json, write_text
from tasks.core.base.paths import MANIFEST
from tasks.core.data.manifest import MEASURES, readable
from tasks.core.data.parquet import read_parquet
from tasks.core.inference import drift, scoring
from tasks.core.inference.config import DriftLimits
from tasks.core.inference.drift import Check
from tasks.core.inference.scoring import MONITORED, REFERENCE, TABLE
from tasks.core.release.revision import Revision
from tasks.core.reporting import html

TEMPLATE = html.TEMPLATES / "drift.html"
RESULT, PAGE = "drift.json", "index.html"
MIN_REFERENCE_SHARE = 0.5  # share of the test images that must be left, to stand for them
MAX_LEAST_CONFIDENT = 12  # answers to name that the model is least sure of
MAX_UNREADABLE = 50  # images to name that can't be read


@dataclass(frozen=True)
class Params(params.Section):
    monitor: DriftLimits


def compare(folder: Path, limits: DriftLimits) -> dict[str, Any]:
    """Compares the table in a folder with the manifest and the test images, and writes what it finds there.

    Returns:
        `drifted`, the `folder`, the `model` and when it was `scored`, `pictures`, `unreadable`, of the
        `reference` how many `pictures` are left of those `tested`, and `checks`, each as `drift.Check` with
        its `why`.

    Raises:
        DataError: a table is missing or damaged, or no image could be read, or less than half of the test
            images are left; if there is a table of new images, earlier findings are then gone.
    """
    table = _table(folder / TABLE)
    for name in (RESULT, PAGE):
        (folder / name).unlink(missing_ok=True)
    answered = _table(folder / REFERENCE)
    source = scoring.facts(folder / TABLE)
    old = readable(_table(MANIFEST, source.get("version", "")))
    unread = table[table["predicted"].isna()]
    tested = len(answered)
    new, answered = (frame[frame["predicted"].notna()] for frame in (table, answered))
    if len(answered) < MIN_REFERENCE_SHARE * tested:
        place = scoring.facts(folder / REFERENCE).get("folder", "their folder")
        whose = source.get("model", "the model")
        raise DataError(
            f"{place} has {len(answered)} of the {tested} test images of {whose} as they were, "
            "too few to compare with; bring them back (`dvc pull`)"
        )
    for path, frame in ((folder / TABLE, new), (MANIFEST, old), (folder / REFERENCE, answered)):
        if frame.empty:
            raise DataError(f"{path} names no image that could be read; score some that can")
    found = drift.checks(old, answered, new, limits)
    result = {
        "drifted": any(check.drifted for check in found),
        **{name: source.get(name, "") for name in ("folder", "model", "scored")},
        "pictures": len(table),
        "unreadable": len(unread),
        "reference": {"pictures": len(answered), "tested": tested},
        "checks": [asdict(check) | {"why": check.why} for check in found],
    }
    write_json(folder / RESULT, result)
    write_text(folder / PAGE, page(result, found, new.nsmallest(MAX_LEAST_CONFIDENT, "confidence"), unread))
    return result


def _table(path: Path, version: str = "") -> pd.DataFrame:
    where = "" if path.parent in (MONITORED, MANIFEST.parent) else f" --output {path.parent}"
    way = f"`make run`, then `python -m tasks.score MODEL FOLDER{where}`"
    try:
        table = Revision(version).parquet(path) if version else read_parquet(path)
    except FileNotFoundError:
        raise DataError(f"{path} is not there; {way}") from None
    needed = {*MEASURES, "error"} if path == MANIFEST else {*MEASURES, "predicted", "confidence"}
    if missing := sorted(needed - set(table)):
        scored = "give a folder that `python -m tasks.score` has written"
        remedy = way if path == MANIFEST else scored
        raise DataError(f"{path} has no column {missing[0]}, so it is another table; {remedy}")
    return table


def page(result: dict[str, Any], found: list[Check], unsure: pd.DataFrame, unread: pd.DataFrame) -> str:
    """The page a person reads."""
    return html.render(
        TEMPLATE,
        result=result,
        checks=found,
        drawn={check.name: check for check in found}.values(),
        unsure=unsure[["path", "predicted", "confidence"]].to_dict("records"),
        unread=unread[["path", "error"]].head(MAX_UNREADABLE).to_dict("records"),
    )


def summary(result: dict[str, Any]) -> str:
    """What came out, in a line."""
    names = dict.fromkeys(check["name"] for check in result["checks"] if check["drifted"])
    unread = f", {result['unreadable']} of them unreadable" if result["unreadable"] else ""
    few = "compared with {pictures} of {tested} test images".format(**result["reference"])
    left = result["reference"]["pictures"] < result["reference"]["tested"]
    verdict = f"drift of {', '.join(names)}" if names else "no drift"
    return f"{verdict} ({result['pictures']} images{unread}{f'; {few}' if left else ''})"


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "folder", type=cli.path, nargs="?", default=MONITORED, metavar="FOLDER", help=f"default {MONITORED}"
    )
    folder = parser.parse_args().folder
    p = params.load(Params)
    result = compare(folder, p.monitor)
    if result["drifted"]:
        raise Rejected(f"{summary(result)}; {folder / PAGE} shows it")
    console.say(f"drift: {summary(result)}; {folder / PAGE} shows it")
    return 0


if __name__ == "__main__":
    cli.command(main)
