"""Writes what a reviewer wants to see of a change: verdict, gates, what differs, confusions, artifacts.

  python -m tasks.ci_report --base origin/main

It is Markdown, for a comment on a pull request on any CI, in reports/ci.md. Run it after `dvc repro`, also if
that ended with a no.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from tasks.core.base import cli, console
from tasks.core.base.errors import DarkroomError, DataError
from tasks.core.base.files import flat, read_json, write_text
from tasks.core.base.paths import EVALUATION, EXPORT, GATES, METRICS
from tasks.core.evaluation.rejection import left_out, rejection_reasons
from tasks.core.release import dvc_api
from tasks.core.release.shipped import ARTIFACTS
from tasks.core.reporting.markdown import MARKS, bullets, section, table
from tasks.core.reporting.parameters import text

TARGET = Path("reports/ci.md")
SPLITS = ("test", "validation")
MAX_MATRIX_CLASSES = 12
MAX_CONFUSIONS = 10  # named where there are more classes


def report(base: str) -> str:
    """The whole text.

    Args:
        base: the git revision to compare with.

    Raises:
        DataError: there is nothing to report, or git doesn't know the base.
    """
    for file in (GATES, METRICS):
        if not file.is_file():
            raise DataError(f"{file} is not there; run `dvc repro` first")
    gates = read_json(GATES)
    artifacts = read_json(ARTIFACTS)["artifacts"] if ARTIFACTS.exists() else {}
    found = rejection_reasons(gates["gates"], artifacts)
    verdict = "✗ rejected" if found else "✓ passed"
    if undone := unfinished():  # what is here was made by another commit
        verdict = f"✗ did not finish: {', '.join(undone)}"
    parts = [
        f"## Darkroom: {verdict}",
        *([bullets(listed)] if (listed := found or left_out(artifacts)) else []),
        section("Gates", of_gates(gates["gates"])),
        section(f"Metrics, beside {base}", of_metrics(base)),
        section(f"Parameters, beside {base}", of_params(base)),
        section("Confusions of the test images", of_confusion(EVALUATION / "confusion.csv")),
        section("Artifacts", of_artifacts(artifacts)),
    ]
    return "\n\n".join(parts) + "\n"


def unfinished() -> list[str]:
    """Stages that would run again, or have left nothing; `verdict` would after each no."""
    try:
        pending = sorted(dvc_api.changed_stages() - {"verdict"})
    except (dvc_api.DvcError, dvc_api.Locked) as error:
        raise DarkroomError(f"DVC can't tell what is done: {dvc_api.words(error)}") from None
    return pending if pending or ARTIFACTS.exists() else [EXPORT.name]


def of_gates(gates: list[dict[str, Any]]) -> str:
    rows = ((MARKS[gate["verdict"]], gate["why"]) for gate in gates)
    return table(("", "gate"), rows) if gates else "None."


def of_metrics(base: str) -> str:
    """The headlines of both splits, with those of the base and the change."""
    difference, is_known = dvc_api.difference("metrics", base)
    here = flat({split: read_json(METRICS)[split] for split in SPLITS})
    if not is_known:  # the first model of all, or a store that lets nobody in who makes a fork
        scalars = ((name, value) for name, value in here.items() if isinstance(value, (int, float)))
        return f"{base} has none that can be had.\n\n{table(('metric', 'here'), scalars)}"
    found, rows = difference.get(METRICS.as_posix(), {}), []
    for name in here:
        new, old = (found.get(name, {}).get(side) for side in ("new", "old"))
        if isinstance(new, (int, float)):
            known = isinstance(old, (int, float))
            rows.append((name, old if known else "", new, f"{new - old:+.4g}" if known else ""))
    return table(("metric", "base", "here", "change"), rows) if rows else "No metric has changed."


def of_params(base: str) -> str:
    difference, is_known = dvc_api.difference("params", base)
    if not is_known:
        return f"{base} has none."
    rows = [
        (name, _value(values.get("old")), _value(values.get("new")))
        for found in difference.values()
        for name, values in found.items()
        if values.get("old") != values.get("new")
    ]
    return table(("parameter", "base", "here"), rows) if rows else "No parameter has changed."


def _value(value: Any) -> str:
    return "" if value is None else text(value)


def of_confusion(file: Path) -> str:
    """The matrix, rows by true class; of many classes, the confusions that are most frequent."""
    answers = pd.read_csv(file, dtype=str, keep_default_na=False)
    names = sorted({*answers["label"], *answers["predicted"]})
    counts = pd.crosstab(answers["label"], answers["predicted"]).reindex(
        index=names, columns=names, fill_value=0
    )
    if len(names) <= MAX_MATRIX_CLASSES:
        rows = ([name, *(count or "·" for count in counts.loc[name])] for name in names)
        return table(("true \\ predicted", *names), rows)
    wrong = answers[answers["label"] != answers["predicted"]]
    most = wrong.groupby(["label", "predicted"]).size().sort_values(ascending=False).head(MAX_CONFUSIONS)
    rows = ((*pair, count) for pair, count in most.items())  # type: ignore[misc]
    return table(("true", "predicted", "images"), rows) if len(most) else "No image was mistaken."


def of_artifacts(artifacts: dict[str, dict[str, Any]]) -> str:
    rows = (
        ("✓" if fact["passed"] else "✗", fact["file"], f"{fact.get('bytes', 0) / 1e6:.1f}", fact["why"])
        for fact in artifacts.values()
    )
    return table(("", "file", "MB", ""), rows) if artifacts else "None: a gate said no."


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--base", type=cli.given, default="HEAD", metavar="REVISION", help="to compare with; default HEAD"
    )
    base = parser.parse_args().base
    write_text(TARGET, report(base))
    console.say(f"ci_report: {TARGET} shows what differs from {base}")
    return 0


if __name__ == "__main__":
    cli.command(main)
