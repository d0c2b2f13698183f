"""Starts trainings in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.structure import ROOT
from tests.tiny import Tiny


def start(
    tiny: Tiny,
    target: Path,
    *,
    backbone: str = "backbone",
    strategy: str = "one",
    devices: int = 1,
    environment: dict[str, str] | None = None,
    **train: Any,
) -> subprocess.Popen[str]:
    """Starts a training into `target`, with a cache of its own beside it."""
    facts = {"folder": str(tiny.folder), "target": str(target), "backbone": backbone, "strategy": strategy}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.trainer", json.dumps(facts | {"devices": devices, "train": train})],
        cwd=ROOT,
        env=os.environ | {"DARKROOM_CACHE": str(target.with_name("cache"))} | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes: subprocess.Popen[str]) -> list[str]:
    """Waits for their end, which must be a good one; gives what they printed."""
    printed = [process.communicate(timeout=300)[0] for process in processes]
    assert all(process.returncode == 0 for process in processes), "\n".join(printed)
    return printed
