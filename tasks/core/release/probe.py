"""Whether artifacts can be loaded where they will run, answer as they did when they were made, and go on so.

As TFX's InfraValidator asks it of a SavedModel.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from tasks.core.artifacts import isolation, verification
from tasks.core.artifacts.config import ArtifactRule
from tasks.core.artifacts.formats import Format
from tasks.core.base.arrays import rounded
from tasks.core.base.errors import ModelError, Rejected
from tasks.core.base.files import read_json
from tasks.core.base.paths import EXPORT
from tasks.core.release.shipped import GOLDEN, Shipped

MAX_DIFFERENCE = 0.05  # of probabilities of golden images, where no rule says it
PATIENCE = 120.0  # seconds for one of them: to load, to answer and to bear a load of at most ten


def probe(shipped: Shipped, folder: Path, rules: tuple[ArtifactRule, ...]) -> dict[str, Any]:
    """Has each artifact answer in a process of its own, and go on doing so for a while.

    Args:
        folder: that `Shipped.fetch` has filled.
        rules: `export.rules`, which say how far answers to golden images may be from what is expected.

    Returns:
        For each file `golden_difference`, none without golden images, and what `isolation.probe` measures.

    Raises:
        Rejected: one answers otherwise.
        ModelError: one can't be run, or is not done within PATIENCE.
    """
    try:  # one after the other: two at once would slow each other down, and their times would say so
        return {
            fact["file"]: _probe_one(folder, kind, fact["file"], rules)
            for kind, fact in shipped.artifacts.items()
        }
    except ModelError as error:  # of a folder that nobody will find any more
        raise ModelError(str(error).replace(f"{folder}{os.sep}", "")) from None


def _probe_one(folder: Path, kind: Format, file: str, rules: tuple[ArtifactRule, ...]) -> dict[str, Any]:
    golden = folder / GOLDEN
    answers, times = isolation.probe(folder / EXPORT / file, golden, PATIENCE)
    if not golden.is_dir():
        return {"golden_difference": None} | times
    expected = np.array([row["probabilities"] for row in read_json(golden / "golden.json")])
    difference = max((float(np.abs(one - expected).max()) for one in answers.values()), default=np.nan)
    limits = [one.max for one in verification.rules_for(kind, rules) if one.metric == "golden_difference"]
    limit = next((one for one in limits if one is not None), MAX_DIFFERENCE)
    if not difference <= limit:  # also where it is no number
        raise Rejected(
            f"{file} answers otherwise than it did: probabilities of golden images differ by "
            f"{difference:.3g}, above {limit:g}"
        )
    return {"golden_difference": rounded(difference)} | times
