"""Where a backbone comes from: built in, an address, or a folder; and the picture sizes it takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

from tasks.core.errors import BackboneError, ParamError
from tasks.core.handles import BUILT_IN, catalogue, check, package
from tasks.core.paths import cache_folder
from tasks.core.serialize import replacing, sha256

BUILT_IN_SMALLEST = 64  # pixels, two cells of the last feature map; below that it sees too little


def image_size(name: str, setting: int | Literal["auto"], typical_side: float) -> int:
    """Decides the side, in pixels, of the squares that a backbone is fed.

    Args:
        setting: `model.image_size`; a number is taken as it is.
        typical_side: the shorter side of a typical picture. With `auto` a built-in backbone takes
            pictures that are smaller than its own size at their size, in steps of 32 and no smaller
            than 64: enlarging them adds time and no information.

    Raises:
        ParamError: `auto`, and the backbone's size is not known.
    """
    check(name)
    if setting != "auto":
        return setting
    if not package(name):
        raise ParamError(
            f"model.image_size is 'auto', but the size that {name} takes is not known; give it in pixels"
        )
    rounded = -(-int(typical_side) // 32) * 32
    return min(max(rounded, BUILT_IN_SMALLEST), catalogue()[name].size)


def located(name: str) -> str:
    """Gives the handle that `hub.load` takes, converting the built-in weights the first time.

    Raises:
        ParamError: no such backbone.
        BackboneError: the built-in weights can't be read.
    """
    check(name)
    return str(_built_in(name)) if package(name) else name


def _built_in(name: str) -> Path:
    # Named after the converter's own text, so that a changed converter is not served old results.
    version = sha256(Path(__file__).with_name("efficientnet_lite.py"))[:12]
    folder = cache_folder() / f"{name}-{version}"
    if not folder.is_dir():
        with replacing(folder) as temporary:
            _convert(name, temporary)
    return folder


def _convert(name: str, folder: Path) -> None:
    """Converts in a process of its own: the names in a SavedModel hang on what a process did before."""
    words = [sys.executable, "-m", "tasks.core.efficientnet_lite", name, str(folder)]
    done = subprocess.run(words, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BackboneError(f"model.backbone: {name} can't be made from its weights ({last})")


def unreadable(name: str, error: Exception) -> BackboneError:
    """The error for a backbone that was named well but can't be fetched or loaded."""
    text = " ".join(str(error).split())[:200]
    return BackboneError(
        f"model.backbone: {name} can't be loaded ({type(error).__name__}: {text}); "
        f"with no network, use {BUILT_IN} or a folder that holds a SavedModel"
    )
