"""Images that a small network can tell apart."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageColor

from tasks.core.data import discovery
from tasks.core.data.config import Processes
from tasks.core.validation.scan import scan

ALONE = Processes(workers=1, scheduler="none")


def write_classes(
    folder: Path,
    classes: Sequence[str] = ("blue", "green", "red"),
    count: int = 12,
    size: tuple[int, int] = (40, 32),
) -> None:
    """Writes `count` noisy PNG images of each class's own colour; a class is a colour's name."""
    rng = np.random.default_rng(1)
    for label in classes:
        (folder / label).mkdir(parents=True)
        for number in range(count):
            noise = rng.integers(-40, 40, (size[1], size[0], 3))
            pixels = (np.array(ImageColor.getrgb(label)) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number:03d}.png")


def scanned(folder: Path, labels: Path, compute: Processes = ALONE) -> pd.DataFrame:
    """The manifest of a folder, as the stage `validate` has it before it looks for groups."""
    entries, _ = discovery.discover(folder, labels)
    return scan(folder, entries, compute)
