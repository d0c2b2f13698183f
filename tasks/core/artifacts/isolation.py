"""Runs an artifact in a process of its own that has its runtime and can't import this project."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tasks.core.artifacts import runtimes
from tasks.core.artifacts.config import TIMED
from tasks.core.base.arrays import Array
from tasks.core.base.errors import ModelError, WorkerError, brief, ended_by
from tasks.core.base.files import sha256
from tasks.core.base.paths import cache_folder, folders_of_others

PATIENCE = 2 * 3600  # seconds, for a whole test split
KILLS = (signal.SIGKILL, signal.SIGTERM)  # of somebody else, which say nothing of an artifact
UNTIMED: dict[str, Any] = dict.fromkeys(TIMED)

Kind = TypeVar("Kind", bound=str)


def predict(artifact: Path, images: Path, golden: Path) -> dict[str, Array]:
    """Has an artifact answer to images.

    Args:
        images: a .npy file of uint8 (n, size, size, 3).
        golden: a folder of encoded images.

    Returns:
        Probabilities, float32 (n, classes): of the images under `test`, of the folder's under `golden`, and
        under `encoded` those that a SavedModel gives of the folder's bytes.

    Raises:
        ModelError: it can't be run.
    """
    return _answers("predict", artifact, images, golden)[0]


def probe(artifact: Path, golden: Path, patience: float) -> tuple[dict[str, Array], dict[str, Any]]:
    """Has an artifact answer to golden images, if there are any, and run for a while.

    Returns:
        Answers as of `predict`, without `test`; and what `runtimes.measure_load` measures.

    Raises:
        ModelError: it can't be run, or takes longer than `patience` seconds.
    """
    return _answers("probe", artifact, golden, patience=patience)


def time_artifacts(folder: Path, files: dict[Kind, str]) -> dict[Kind, dict[str, Any]]:
    """What `runtimes.measure_load` measures, and `latency_ratio`, of one image, to the SavedModel's if any.

    Args:
        files: their names in the folder.

    Raises:
        ModelError: one can't be run.
    """
    times: dict[Kind, dict[str, Any]] = {kind: _run("time", folder / name) for kind, name in files.items()}
    base = next((facts["latency_ms"] for kind, facts in times.items() if kind == "saved_model"), None)
    return {
        kind: UNTIMED | facts | {"latency_ratio": round(facts["latency_ms"] / base, 4) if base else None}
        for kind, facts in times.items()
    }


def times_file(artifacts: Path) -> Path:
    """Where this machine's times of artifacts are kept, by the digest of their `artifacts.json`.

    DVC empties the folder of the artifacts before it makes them again, though they may be the same.
    """
    return cache_folder() / "latency" / f"{sha256(artifacts)}.json"


def _answers(what: str, *files: Path, patience: float = PATIENCE) -> tuple[dict[str, Array], Any]:
    with tempfile.TemporaryDirectory() as folder:
        answers = Path(folder) / "answers.npz"
        result = _run(what, *files, answers, patience=patience)
        with np.load(answers) as arrays:
            return dict(arrays), result


def _run(what: str, artifact: Path, *files: Path, patience: float = PATIENCE) -> Any:
    paths = [str(file.resolve()) for file in (artifact, *files)]
    words = [sys.executable, "-I", runtimes.__file__, what, *paths]
    # In this folder, since an HDF5 file may name a backbone's; `-I` keeps Python from importing from it.
    settings = folders_of_others() | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        done = subprocess.run(
            words, env=os.environ | settings, check=False, capture_output=True, text=True, timeout=patience
        )
    except subprocess.TimeoutExpired:
        raise ModelError(f"{artifact.name} had not answered after {patience:g} seconds") from None
    if -done.returncode in KILLS:
        raise WorkerError(ended_by(f"a process that {artifact.name} was run apart in", -done.returncode))
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ModelError(f"{artifact.name} can't be run apart ({brief(last)})")
    return json.loads(done.stdout.splitlines()[-1])
