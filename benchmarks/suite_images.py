"""The tasks of the suite: images of installed packages, each with a split that a seed draws once and for all.

    apt-get install dataset-fashion-mnist tuxpaint-stamps-default mate-backgrounds
    pip install conformal-clip-data

Each task writes a folder of images, and beside it `labels.csv` with the columns path, label and split.
"""

import csv
import importlib.util
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.fashion_mnist import read_idx
from tasks.core.base.errors import DataError

FASHION = Path("/usr/share/datasets/fashion-mnist")
STAMPS = Path("/usr/share/tuxpaint/stamps")
BACKGROUNDS = Path("/usr/share/backgrounds/mate/nature")
STAMP_CLASSES = (
    "animals/birds",
    "animals/mammals",
    "food/fruit",
    "food/vegetables",
    "plants/flowers",
    "vehicles",
)
MIN_COLOURS = 100  # of 32,768 that a stamp must have to count as a photograph
NO_OBJECTS = ("cartoon", "mirror", "police")  # drawings, the same again mirrored, signs to put on a stamp
SIDE = 224  # pixels of a composite
SPLIT = {"train": 0.6, "validation": 0.1, "test": 0.3}


@dataclass(frozen=True)
class Row:
    """An image of a task, by its path in the folder."""

    path: str
    label: str
    split: str


@dataclass(frozen=True)
class Task:
    """A data set of the suite.

    write: fills a folder with images; says which, with label and split.
    cut: of which training and validation images are used, by a seed; all of them without it.
    is_slow: takes hours on two cores.
    """

    name: str
    write: Callable[[Path], list[Row]]
    cut: Callable[[list[Row], int], list[Row]] | None = None
    is_slow: bool = False

    def prepare(self, folder: Path, seed: int) -> None:
        """Writes `folder`/images and `folder`/labels.csv.

        Args:
            seed: of the cut. The test images are the same for each.

        Raises:
            DataError: a package that it is made of isn't installed.
        """
        rows = self.write(folder / "images")
        rows = self.cut(rows, seed) if self.cut else rows
        with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(("path", "label", "split"))
            writer.writerows((row.path, row.label, row.split) for row in rows)


def required(path: Path, package: str) -> Path:
    """Raises: DataError, where a package isn't installed."""
    if not path.exists():
        raise DataError(f"{path} is missing; install {package}")
    return path


def draw_splits(labels: list[str], shares: dict[str, float], seed: int) -> list[str]:
    """Draws the split of each image, so that each class has these shares in all splits, rounded."""
    rng = np.random.default_rng(seed)
    splits = np.empty(len(labels), object)
    for label in sorted(set(labels)):
        places = rng.permutation([place for place, other in enumerate(labels) if other == label])
        ends = np.round(np.cumsum(list(shares.values())) * len(places)).astype(int)
        for name, part in zip(shares, np.split(places, ends[:-1]), strict=True):
            splits[part] = name
    return list(splits)


# The data sets.


def rows_by_folder(folder: Path) -> list[Row]:
    """The images below a folder, by their classes' folders."""
    files = sorted(file for file in folder.rglob("*.*") if file.is_file())
    labels = [file.parent.name for file in files]
    splits = draw_splits(labels, SPLIT, seed=1)
    return [
        Row(file.relative_to(folder).as_posix(), label, split)
        for file, label, split in zip(files, labels, splits, strict=True)
    ]


def write_digits(folder: Path) -> list[Row]:
    from tasks import digits

    digits.write_digits(folder)
    return rows_by_folder(folder)


def write_fashion(train: int, validation: int, test: int) -> Callable[[Path], list[Row]]:
    """So many images of each split, drawn from the 60,000 for training and the 10,000 for tests."""

    def write(folder: Path) -> list[Row]:
        required(FASHION, "Debian's dataset-fashion-mnist")
        rng = np.random.default_rng(1)
        rows = []
        for part, splits in (("train", {"train": train, "validation": validation}), ("t10k", {"test": test})):
            images = read_idx(FASHION / f"{part}-images-idx3-ubyte.gz")
            labels = read_idx(FASHION / f"{part}-labels-idx1-ubyte.gz")
            order = iter(rng.permutation(len(labels)))
            for split, count in splits.items():
                for _, place in zip(range(count), order, strict=False):
                    name = f"{part}-{place:05d}.png"
                    rows.append(Row(name, f"class_{labels[place]}", split))
                    save(Image.fromarray(images[place]), folder / name)
        return rows

    return write


def stamps() -> list[tuple[Path, str, str]]:
    """The stamps that are colour photographs: file, class and split."""
    required(STAMPS, "Debian's tuxpaint-stamps-default")
    found = [
        (file, folder.replace("/", "-"))
        for folder in STAMP_CLASSES
        for file in sorted((STAMPS / folder).rglob("*.png"))
        if not any(word in str(file) for word in NO_OBJECTS) and count_colours(file) >= MIN_COLOURS
    ]
    splits = draw_splits([label for _, label in found], {"train": 0.45, "validation": 0.15, "test": 0.4}, 1)
    return [(file, label, split) for (file, label), split in zip(found, splits, strict=True)]


def count_colours(file: Path) -> int:
    """Of those of 5 bits each that at least one opaque pixel has; drawings have few."""
    with Image.open(file) as image:
        pixels = np.asarray(image.convert("RGBA"))
    opaque = pixels[pixels[..., 3] > 250][:, :3] >> 3
    return len(np.unique(opaque, axis=0))


def write_stamps(folder: Path) -> list[Row]:
    rows = []
    for file, label, split in stamps():
        name = f"{label}-{file.name}"
        save(Image.open(file).convert("RGBA"), folder / name)
        rows.append(Row(name, label, split))
    return rows


def write_composites(folder: Path) -> list[Row]:
    """Stamps over photographs, at random places and sizes; each split has its own of both."""
    backgrounds = sorted(required(BACKGROUNDS, "Debian's mate-backgrounds").glob("*.jpg"))
    order = np.random.default_rng(1).permutation(len(backgrounds))
    opened = [open_photograph(backgrounds[place]) for place in order]
    photographs = {"train": opened[:6], "validation": opened[6:8], "test": opened[8:]}
    objects = defaultdict(list)
    for file, label, split in stamps():
        objects[split, label].append(file)
    rows = []
    for (split, label), files in sorted(objects.items()):
        rng = np.random.default_rng([2, *f"{split} {label}".encode()])
        for number in range({"train": 150, "validation": 30, "test": 60}[split]):
            stamp = files[number % len(files)]
            photograph = photographs[split][rng.integers(len(photographs[split]))]
            name = f"{split}-{label}-{number:03d}.jpg"
            save(compose(stamp, photograph, rng), folder / name, quality=92)
            rows.append(Row(name, label, split))
    return rows


def open_photograph(file: Path) -> Image.Image:
    with Image.open(file) as image:
        photograph = image.convert("RGB")
    photograph.thumbnail((5 * SIDE, 5 * SIDE))
    return photograph


def compose(stamp: Path, photograph: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A stamp of 35 to 80 % of the side, mirrored or not, on a random part of a photograph."""
    part = int(min(photograph.size) * rng.uniform(0.3, 1))
    left, top = (int(rng.integers(size - part + 1)) for size in photograph.size)
    box = (left, top, left + part, top + part)
    scene = photograph.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box)
    with Image.open(stamp) as image:
        cut_out = image.convert("RGBA")
    cut_out = cut_out.crop(cut_out.getbbox())
    scale = SIDE * rng.uniform(0.35, 0.8) / max(cut_out.size)
    width, height = (max(1, round(side * scale)) for side in cut_out.size)
    cut_out = cut_out.resize((width, height), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        cut_out = cut_out.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    place = int(rng.integers(SIDE - width + 1)), int(rng.integers(SIDE - height + 1))
    scene.paste(cut_out, place, cut_out)
    return scene


def write_textiles(folder: Path) -> list[Row]:
    """Simulated textures: sound, with a small defect, or changed as a whole (Megahed et al., 2025)."""
    package = importlib.util.find_spec("conformal_clip_data")
    if package is None or package.origin is None:
        raise DataError("conformal_clip_data is missing; install PyPI's conformal-clip-data")
    source = Path(package.origin).parent / "data/textile_images/simulated"
    shutil.copytree(source, folder)
    return rows_by_folder(folder)


def save(image: Image.Image, file: Path, **options: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, **options)


# The cuts. Test images are left as they are.


def in_random_order(rows: list[Row], seed: int) -> Iterator[Row]:
    return (rows[place] for place in np.random.default_rng(seed).permutation(len(rows)))


def few(count: int) -> Callable[[list[Row], int], list[Row]]:
    """So many images of each class: four fifths of them to train on, the rest to validate."""
    wanted = {"train": count - max(1, count // 5), "validation": max(1, count // 5)}

    def cut(rows: list[Row], seed: int) -> list[Row]:
        return list(at_most(rows, seed, lambda row: wanted.get(row.split)))

    return cut


def imbalanced(rows: list[Row], seed: int) -> list[Row]:
    """Half of the classes keep a twentieth of their images for training and validation."""
    counts = Counter((row.label, row.split) for row in rows)
    rare = sorted({row.label for row in rows})[::2]

    def limit(row: Row) -> int | None:
        if row.split == "test" or row.label not in rare:
            return None
        return max(1, counts[row.label, row.split] // 20)

    return list(at_most(rows, seed, limit))


def at_most(rows: list[Row], seed: int, limit: Callable[[Row], int | None]) -> Iterable[Row]:
    """Those that come first in a random order, by class and split."""
    seen: Counter[tuple[str, str]] = Counter()
    for row in in_random_order(rows, seed):
        seen[row.label, row.split] += 1
        most = limit(row)
        if most is None or seen[row.label, row.split] <= most:
            yield row


def mislabelled(rows: list[Row], seed: int) -> list[Row]:
    """15 % of the training labels are those of another class. Validation and test labels are right."""
    rng = np.random.default_rng(seed)
    labels = sorted({row.label for row in rows})

    def change(row: Row) -> Row:
        if row.split != "train" or rng.random() >= 0.15:
            return row
        others = [label for label in labels if label != row.label]
        return replace(row, label=others[rng.integers(len(others))])

    return [change(row) for row in rows]


fashion = write_fashion(7000, 1000, 2000)
TASKS = {
    task.name: task
    for task in (
        Task("digits", write_digits),
        Task("fashion", fashion),
        Task("stamps", write_stamps),
        Task("composites", write_composites),
        Task("textiles", write_textiles),
        Task("fashion, 5 a class", fashion, few(5)),
        Task("fashion, 20 a class", fashion, few(20)),
        Task("fashion, 100 a class", fashion, few(100)),
        Task("composites, 5 a class", write_composites, few(5)),
        Task("composites, 20 a class", write_composites, few(20)),
        Task("textiles, 20 a class", write_textiles, few(20)),
        Task("textiles, 100 a class", write_textiles, few(100)),
        Task("fashion, 1 : 20", fashion, imbalanced),
        Task("digits, 15 % mislabelled", write_digits, mislabelled),
        Task("composites, 15 % mislabelled", write_composites, mislabelled),
        Task("fashion, all 70,000", write_fashion(54_000, 6_000, 10_000), is_slow=True),
    )
}
