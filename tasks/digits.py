"""Stage `digits`: writes the 1,797 handwritten digits that scikit-learn ships as PNG files.

They are real images (8 x 8 pixels, 17 grey levels), from the UCI set "Optical Recognition of
Handwritten Digits", so that the pipeline has something to work on before you point `data.images`
at your own. No network is used.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from tasks.core.backbones import catalogue
from tasks.core.backbones.config import Model
from tasks.core.base import cli, console, params
from tasks.core.base.files import replacing
from tasks.core.base.params import Data
from tasks.core.base.paths import DIGITS
from tasks.core.validation import preflight


@dataclass(frozen=True)
class Params(params.Section):
    data: Data
    model: Model


def write_digits(folder: Path) -> int:
    """Writes `folder/<digit>/<number>.png` for every digit and returns how many."""
    bunch = load_digits()
    greys = np.round(bunch.images * 255 / 16).astype(np.uint8)
    with replacing(folder) as temporary:
        for number, (grey, digit) in enumerate(zip(greys, bunch.target, strict=True)):
            file = temporary / str(digit) / f"{number:04d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(grey).save(file, optimize=True)
    return len(greys)


def main() -> None:
    p = params.load(Params)
    preflight.check(Path(p.data.images), Path(p.data.labels), Path(p.data.schema))
    catalogue.check(p.model.backbone)
    count = write_digits(DIGITS)
    console.say(f"digits: {count} images in {DIGITS}")


if __name__ == "__main__":
    cli.stage(main)
