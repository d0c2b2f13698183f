"""The answers of a candidate and of a champion to the same images."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.core.artifacts.formats import FORMATS
from tasks.core.base.errors import DataError, ModelError, Rejected
from tasks.core.base.paths import EXPORT, MANIFEST, PREDICTIONS
from tasks.core.data.config import Processes
from tasks.core.data.manifest import readable
from tasks.core.evaluation import predictions
from tasks.core.inference import scoring
from tasks.core.release.revision import Revision
from tasks.core.release.shipped import Shipped


@dataclass(frozen=True)
class Comparison:
    """What two models say of the same images.

    files: the artifacts that were asked.
    candidate, champion: tables as `predictions.parquet`.
    notes: what one must know to read it.
    """

    files: str
    candidate: pd.DataFrame
    champion: pd.DataFrame
    notes: list[str]


def is_same(candidate: Shipped, other: Revision) -> bool:
    """Whether another revision has the same artifacts, byte by byte."""
    try:
        return candidate.digests() == Shipped.gated(other).digests()
    except (DataError, Rejected):
        return False


def compare(
    candidate: Shipped, champion: Revision, folder: Path, images: Path, batch_size: int, compute: Processes
) -> Comparison:
    """Has an artifact of each answer to the candidate's test images.

    Args:
        folder: that `Shipped.fetch` has filled with the candidate's; the champion's goes into one beside it.
        images: the folder that paths of images are relative to.

    Raises:
        DataError: the champion can't be asked.
        ModelError: the candidate can't be.
    """
    tested = candidate.revision.parquet(PREDICTIONS)
    try:
        notes, learned = _changes_since(champion, tested)
        before = Shipped.gated(champion)
        fact, fact_before = choose_artifacts(candidate, before)
        file_before = before.fetch_artifact(fact_before, folder.with_name("champion"))
    except (DataError, Rejected) as error:
        raise _not_asked(champion, error) from None
    tested = tested[~tested["sha256"].isin(learned)].reset_index(drop=True)
    rows = readable(candidate.revision.parquet(MANIFEST))
    rows = rows.loc[rows["path"].isin(tested["path"]), list(scoring.DESCRIBED)].reset_index(drop=True)
    ask = partial(_answers, images=images, rows=rows, batch_size=batch_size, compute=compute)
    answers = ask(folder / EXPORT / fact["file"])
    try:
        answers_before = ask(file_before)
    except ModelError as error:
        raise _not_asked(champion, error) from None
    others = [name for name in map(str, tested) if name.startswith((predictions.SLICE, predictions.BASELINE))]
    table = predictions.another(answers, tested).merge(
        tested[["path", *others]], on="path", validate="one_to_one"
    )
    files = " and ".join(dict.fromkeys([fact["file"], fact_before["file"]]))
    return Comparison(files, table, predictions.another(answers_before, tested), notes)


def _not_asked(champion: Revision, error: Exception) -> DataError:
    return DataError(f"{champion.name} can't be asked: {error}; --no-champion does without")


def _answers(
    artifact: Path, images: Path, rows: pd.DataFrame, batch_size: int, compute: Processes
) -> pd.DataFrame:
    """What it says of the images, as `scoring.score`; of each of them."""
    table = scoring.score(artifact, images, rows, batch_size, compute)
    lost = table[table["error"].notna()]
    if len(lost):
        raise DataError(f"{images}/{lost['path'].iloc[0]} {lost['error'].iloc[0]}; run `dvc repro`")
    return table


def _changes_since(champion: Revision, tested: pd.DataFrame) -> tuple[list[str], set[str]]:
    """What has changed since the champion was tested, and digests of images that it has learned from."""
    known = set(readable(champion.parquet(MANIFEST))["sha256"])
    then, now = set(champion.parquet(PREDICTIONS)["sha256"]), set(tested["sha256"])
    notes, learned = [], (known - then) & now
    if now != then:
        notes.append(
            f"the test images have changed since {champion.name}, from {len(then)} to {len(now)}, with "
            f"{len(now & then)} in both: both models are judged on those of now"
        )
    if learned:
        notes.append(f"{len(learned)} of them are left out, as {champion.name} has learned from them")
    return notes, learned


def choose_artifacts(candidate: Shipped, champion: Shipped) -> tuple[dict[str, Any], dict[str, Any]]:
    """The artifacts to compare two models by: of the same format, if there is one that both have.

    Raises:
        DataError: one has none that is known.
    """
    for kind in FORMATS:
        if kind in candidate.artifacts and kind in champion.artifacts:
            return candidate.artifacts[kind], champion.artifacts[kind]
    return candidate.quickest(), champion.quickest()


def recount_slices(facts: dict[str, Any], answers: pd.DataFrame, min_slice: int) -> dict[str, Any]:
    """What `metrics.json` says, with the slices as large as they are in a table that may have fewer images.

    Args:
        min_slice: images that a slice needs to be judged.
    """
    slices = {
        kind: {
            cell: fact | {"n": n, "judged": fact["judged"] and n >= min_slice}
            for cell, fact in cells.items()
            for n in [int((answers[predictions.SLICE + kind] == cell).sum())]
        }
        for kind, cells in facts["slices"].items()
    }
    return facts | {"slices": slices}
