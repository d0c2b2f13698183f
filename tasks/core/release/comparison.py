"""Whether a model may take another's place: the same pictures, the same rules, and artifacts that answer."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from tasks.core.artifacts import isolation, verification
from tasks.core.artifacts.config import ArtifactRule
from tasks.core.artifacts.formats import FORMATS, Format
from tasks.core.base import params, paths
from tasks.core.base.arrays import rounded
from tasks.core.base.errors import DataError, ModelError, Rejected
from tasks.core.base.files import read_json, remove, sha256
from tasks.core.base.paths import EXPORT, GATES, MANIFEST, METRICS, PREDICTIONS
from tasks.core.data.config import Processes
from tasks.core.data.manifest import readable
from tasks.core.evaluation import metrics, predictions
from tasks.core.evaluation.rejection import rejection_reasons
from tasks.core.inference import scoring
from tasks.core.release import registry
from tasks.core.release.revision import Revision

ARTIFACTS, CONTRACT, GOLDEN = EXPORT / paths.ARTIFACT_FACTS, EXPORT / paths.CONTRACT, EXPORT / "golden"
LOCK = Path("dvc.lock")
PROVEN = (LOCK, params.FILE, MANIFEST, METRICS, PREDICTIONS, GATES, ARTIFACTS)
LOOSE = 0.05  # by which probabilities of golden pictures may differ where no rule says it
PATIENCE = 120.0  # seconds for one of them: to load, to answer and to bear a load of at most ten

Artifacts = dict[Format, dict[str, Any]]


@dataclass(frozen=True)
class Comparison:
    """What two models say of the same pictures.

    file: the artifact that was asked.
    ours, theirs: tables as `predictions.parquet`, of challenger and champion.
    notes: what one must know to read it.
    """

    file: str
    ours: pd.DataFrame
    theirs: pd.DataFrame
    notes: list[str]


def shipped(revision: Revision) -> Artifacts:
    """The artifacts of a revision whose gates have all passed.

    Raises:
        Rejected: they have not, or no artifact passed.
        DataError: they can't be had.
    """
    verdict, facts = revision.json(GATES), revision.json(ARTIFACTS)
    found = rejection_reasons(verdict["gates"], facts["artifacts"])
    if found or not facts["artifacts"]:
        raise Rejected(f"{revision.name} was rejected: {'; '.join(found) or 'it has no artifact'}")
    return cast("Artifacts", facts["artifacts"])


def fetched(revision: Revision, artifacts: Artifacts, folder: Path) -> None:
    """Brings all that users get of a revision below a folder, and holds it against its digests.

    Raises:
        DataError: something can't be had, or is not what was proven.
    """
    revision.fetch(EXPORT, folder)
    for fact in artifacts.values():
        _check(revision, folder / EXPORT, fact)


def artifact(revision: Revision, fact: dict[str, Any], folder: Path) -> Path:
    """Brings one artifact of a revision below a folder, unless it is there; returns where it is.

    Raises:
        DataError: it can't be had, or is not what was proven.
    """
    place: Path = folder / EXPORT / fact["file"]
    if not place.exists() or sha256(place) != fact["sha256"]:
        remove(place)
        revision.fetch(EXPORT / fact["file"], folder)
        _check(revision, folder / EXPORT, fact)
    return place


def _check(revision: Revision, export: Path, fact: dict[str, Any]) -> None:
    if sha256(export / fact["file"]) != fact["sha256"]:
        raise DataError(
            f"{EXPORT / fact['file']} of {revision.name} is not the one that was proven; run `dvc repro`"
        )


def about(revision: Revision) -> dict[str, Any]:
    """What kind of model a revision has, as `Evidence` holds it."""
    contract, values = revision.json(CONTRACT), registry.parameters(revision.commit)
    return {
        "classes": contract["class_names"],
        "image_size": contract["image_size"],
        "resize": contract["resize"],
        "backbone": values["model"]["backbone"],
        "intended_use": values["report"]["intended_use"],
        "pictures": len(readable(revision.parquet(MANIFEST))),
        "tested": len(revision.parquet(PREDICTIONS)),
    }


def calibrated(revision: Revision) -> dict[str, float] | None:
    """Log loss and calibration error of the test pictures by artifacts that are calibrated, if these are."""
    if not registry.parameters(revision.commit)["export"]["calibrate"]:
        return None
    found: dict[str, float] = revision.json(METRICS)["calibration"]["after"]
    return found


def digests(revision: Revision) -> dict[str, str]:
    """SHA-256 of everything that speaks for a revision, by path."""
    return {path.as_posix(): revision.digest(path) for path in PROVEN}


def probed(folder: Path, artifacts: Artifacts, rules: tuple[ArtifactRule, ...]) -> dict[str, Any]:
    """Has each artifact answer in a process of its own, and go on doing so for a while.

    As TFX's InfraValidator does it for a SavedModel: that a file can be loaded where it will run, answers as
    it did when it was made, and does not fall over at the hundredth picture.

    Args:
        folder: that `fetched` has filled.
        rules: `export.rules`, which say how far answers to golden pictures may be from what is expected.

    Returns:
        For each file `golden_difference`, none without golden pictures, and its times and memory.

    Raises:
        Rejected: one answers otherwise.
        ModelError: one can't be run, or is not done within PATIENCE.
    """
    try:  # one after the other: two at once would slow each other down, and their times would say so
        return {fact["file"]: _probed(folder, kind, fact["file"], rules) for kind, fact in artifacts.items()}
    except ModelError as error:  # of a folder that nobody will find any more
        raise ModelError(str(error).replace(f"{folder}{os.sep}", "")) from None


def _probed(folder: Path, kind: Format, file: str, rules: tuple[ArtifactRule, ...]) -> dict[str, Any]:
    golden = folder / GOLDEN
    answers, times = isolation.probe(folder / EXPORT / file, golden, PATIENCE)
    if not golden.is_dir():
        return {"golden_difference": None} | times
    expected = np.array([row["probabilities"] for row in read_json(golden / "golden.json")])
    difference = max((float(np.abs(one - expected).max()) for one in answers.values()), default=np.nan)
    limits = [one.max for one in verification.rules_for(kind, rules) if one.metric == "golden_difference"]
    limit = next((one for one in limits if one is not None), LOOSE)
    if not difference <= limit:  # also where it is no number
        raise Rejected(
            f"{file} answers otherwise than it did: probabilities of golden pictures differ by "
            f"{difference:.3g}, above {limit:g}"
        )
    return {"golden_difference": rounded(difference)} | times


def same(artifacts: Artifacts, other: Revision) -> bool:
    """Whether another revision has the same artifacts, byte by byte."""
    try:
        theirs = shipped(other)
    except (DataError, Rejected):
        return False
    ours, others = ({fact["file"]: fact["sha256"] for fact in one.values()} for one in (artifacts, theirs))
    return ours == others


def compared(
    challenger: Revision,
    champion: Revision,
    artifacts: Artifacts,
    folder: Path,
    images: Path,
    batch_size: int,
    compute: Processes,
) -> Comparison:
    """Has an artifact of each answer to the challenger's test pictures.

    Args:
        artifacts: the challenger's.
        folder: that `fetched` has filled with the challenger's; the champion's goes into one beside it.
        images: the folder that paths of pictures are relative to.

    Raises:
        DataError: the champion can't be asked.
        ModelError: the challenger can't be.
    """
    tested = challenger.parquet(PREDICTIONS)
    try:
        notes, learned = _since(champion, tested)
        mine, theirs = alike(artifacts, shipped(champion))
        file = artifact(champion, theirs, folder.with_name("champion"))
    except (DataError, Rejected) as error:
        raise _unasked(champion, error) from None
    tested = tested[~tested["sha256"].isin(learned)].reset_index(drop=True)
    rows = readable(challenger.parquet(MANIFEST))
    rows = rows.loc[rows["path"].isin(tested["path"]), list(scoring.DESCRIBED)].reset_index(drop=True)
    ask = partial(_answers, images=images, rows=rows, batch_size=batch_size, compute=compute)
    ours = ask(folder / EXPORT / mine["file"])
    try:
        answers = ask(file)
    except ModelError as error:
        raise _unasked(champion, error) from None
    apart_from = [
        name for name in map(str, tested) if name.startswith((predictions.SLICE, predictions.BASELINE))
    ]
    table = predictions.another(ours, tested).merge(
        tested[["path", *apart_from]], on="path", validate="one_to_one"
    )
    files = " and ".join(dict.fromkeys([mine["file"], theirs["file"]]))
    return Comparison(files, table, predictions.another(answers, tested), notes)


def _unasked(champion: Revision, error: Exception) -> DataError:
    return DataError(f"{champion.name} can't be asked: {error}; --no-champion does without")


def _answers(
    artifact: Path, images: Path, rows: pd.DataFrame, batch_size: int, compute: Processes
) -> pd.DataFrame:
    """What it says of the pictures, as `scoring.score`; of each of them."""
    table = scoring.score(artifact, images, rows, batch_size, compute)
    lost = table[table["error"].notna()]
    if len(lost):
        raise DataError(f"{images}/{lost['path'].iloc[0]} {lost['error'].iloc[0]}; run `dvc repro`")
    return table


def by_what(file: str, calibrated: bool) -> str:
    """Says what was asked, and why log loss and calibration error aren't those of `metrics.json`."""
    apart_from = ", with the calibration that the metrics are without" if calibrated else ""
    return f"compared by {file}{apart_from}"


def _since(champion: Revision, tested: pd.DataFrame) -> tuple[list[str], set[str]]:
    """What has changed since the champion was tested, and digests of pictures that it has learned from."""
    known = set(readable(champion.parquet(MANIFEST))["sha256"])
    then, now = set(champion.parquet(PREDICTIONS)["sha256"]), set(tested["sha256"])
    notes, learned = [], (known - then) & now
    if now != then:
        notes.append(
            f"the test pictures have changed since {champion.name}, from {len(then)} to {len(now)}, with "
            f"{len(now & then)} in both: both models are judged on those of now"
        )
    if learned:
        notes.append(f"{len(learned)} of them are left out, as {champion.name} has learned from them")
    return notes, learned


def alike(ours: Artifacts, theirs: Artifacts) -> tuple[dict[str, Any], dict[str, Any]]:
    """The artifacts to compare two models by: of the same format, if there is one that both have.

    Raises:
        DataError: the champion has none that is known.
    """
    both = next((kind for kind in FORMATS if kind in ours and kind in theirs), None)
    if both:
        return ours[both], theirs[both]
    return quickest(ours), quickest(theirs)


def quickest(artifacts: Artifacts) -> dict[str, Any]:
    """The artifact that answers soonest, an exact one if there is one.

    Raises:
        DataError: there is none of a format that is known.
    """
    found = next((kind for kind in FORMATS if kind in artifacts), None)
    if not found:
        raise DataError(f"it has {', '.join(artifacts) or 'no artifact'}, no format that is known")
    return artifacts[found]


def recounted_slices(measured: dict[str, Any], ours: pd.DataFrame, least: int) -> dict[str, Any]:
    """What `metrics.json` says, with the slices as large as they are in a table that may have fewer pictures.

    Args:
        least: pictures that a slice needs to be judged.
    """
    slices = {
        kind: {
            cell: fact | {"n": n, "judged": fact["judged"] and n >= least}
            for cell, fact in cells.items()
            for n in [int((ours[predictions.SLICE + kind] == cell).sum())]
        }
        for kind, cells in measured["slices"].items()
    }
    return measured | {"slices": slices}


def measured(table: pd.DataFrame, bins: int) -> dict[str, float]:
    """The metrics of a table as `predictions.parquet`, by name, rounded as in `metrics.json`.

    Args:
        bins: of the calibration error.
    """
    return metrics.measure(predictions.answers(table), bins)
