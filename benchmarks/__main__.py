"""Measures Darkroom beside what it is held against, and prints one table: `make bench`.

Both sides of a comparison run in turn, several times, and the least of each counts: a busy machine is busy
for both, and noise only ever adds. Writes benchmarks/results.json.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from benchmarks import memory
from benchmarks.data import link_copies, write_photographs, write_tiny
from benchmarks.sides import Bare, Work, arithmetic, cleanvision, notebook, reading
from tasks.core.base.files import write_json

RESULTS = Path(__file__).with_name("results.json")
Unit = Literal["s", "pictures/s", "loops/s", "MB"]


@dataclass(frozen=True)
class Sizes:
    """How much is measured: images, how often, and small images for the peak of memory."""

    photographs: int = 2000
    copies: int = 4  # of each photograph where two processes are compared with one: their start takes seconds
    rounds: int = 5
    long_rounds: int = 3  # of what takes long
    few: int = 5_000
    many: int = 50_000


QUICK = Sizes(photographs=200, copies=2, rounds=1, long_rounds=1, few=500, many=5_000)


@dataclass(frozen=True)
class Comparison:
    """Two figures of one kind, and what their ratio is to be."""

    name: str
    ours: float
    theirs: float
    unit: Unit
    at_most: float | None = None
    at_least: float | None = None

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs

    @property
    def aim(self) -> str | None:
        limits = {"at most": self.at_most, "at least": self.at_least}
        return next((f"{words} {limit:g}" for words, limit in limits.items() if limit is not None), None)

    @property
    def met(self) -> bool | None:
        if self.aim is None:
            return None
        return self.ratio <= (self.at_most or float("inf")) and self.ratio >= (self.at_least or 0)

    def facts(self) -> dict[str, Any]:
        """What results.json says."""
        figures = {"ours": self.ours, "theirs": self.theirs, "ratio": self.ratio}
        rounded = {name: float(f"{figure:.3g}") for name, figure in figures.items()}
        return {"name": self.name, **rounded, "unit": self.unit, "aim": self.aim, "met": self.met}

    def row(self) -> str:
        verdict = {True: "met", False: "missed", None: ""}[self.met]
        figures = "".join(f"{figure:>10.4g}" for figure in (self.ours, self.theirs, self.ratio))
        return f"{self.name:58}{figures}  {self.unit:11}{self.aim or '':14}{verdict}".rstrip()


def _seconds(work: Callable[[], object], before: Callable[[], object]) -> float:
    before()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turn(
    rounds: int,
    *works: Callable[[], object],
    before: Callable[[], object] = lambda: None,
) -> list[float]:
    """The least seconds of each work; `before` makes ready for each and isn't measured."""
    taken = [[_seconds(work, before) for work in works] for _ in range(rounds)]
    return [min(times) for times in zip(*taken, strict=True)]


def comparisons(top: Path, sizes: Sizes) -> Iterator[Comparison]:
    """Measures one after another, in a folder that is empty at first."""
    yield from _alone(top / "photographs", sizes)
    yield from _two_workers(top, sizes)
    for work in ("scan", "validate"):
        yield _peak(top, work, sizes)
    yield _reading(top / "photographs", sizes)  # last: TensorFlow's threads stay in this process


def _alone(top: Path, sizes: Sizes) -> Iterator[Comparison]:
    """What one process does, with the same photographs each time."""
    work = Work(top)
    write_photographs(work.images, sizes.photographs)
    bare = Bare(tuple(sorted(work.images.rglob("*.jpg"))))

    ours, theirs = in_turn(sizes.rounds, work.scan, bare.decode, before=work.forget)
    yield Comparison("scan | bare decode", ours, theirs, "s", at_most=1.5)

    them = partial(cleanvision, work.images)
    ours, theirs = in_turn(sizes.long_rounds, work.scan_and_compare, them, before=work.forget)
    yield Comparison("scan and near-duplicates | CleanVision", ours, theirs, "s")

    first, again = in_turn(sizes.rounds, work.scan_afresh, work.scan)
    yield Comparison("scan with nothing changed | first scan", again, first, "s", at_most=1 / 20)

    ours, theirs = in_turn(sizes.rounds, work.build, bare.decode_and_resize, before=work.forget)
    yield Comparison("build of raw records | bare decode and resize", ours, theirs, "s", at_most=1.25)


def _two_workers(top: Path, sizes: Sizes) -> Iterator[Comparison]:
    """Two processes, their start included, against one; and what a second core gives at that time at best."""
    alone, pair = Work(top / "copies"), Work(top / "copies", workers=2)
    link_copies(Work(top / "photographs").images, alone.images, sizes.copies)
    images = sizes.photographs * sizes.copies
    for name in ("scan", "build"):
        ours, theirs, both, one = in_turn(
            sizes.long_rounds,
            getattr(pair, name),
            getattr(alone, name),
            partial(arithmetic, 2),
            partial(arithmetic, 1),
            before=alone.forget,
        )
        title = f"{name} with 2 workers | 1 worker, {images} images"
        yield Comparison(title, images / ours, images / theirs, "pictures/s", at_least=1.8)
        yield Comparison("  beside it: arithmetic in 2 processes | 1", 2 / both, 1 / one, "loops/s")


def _reading(top: Path, sizes: Sizes) -> Comparison:
    work = Work(top)
    work.forget()
    work.build()
    ours, theirs = in_turn(sizes.rounds, reading(work.dataset), notebook(work.images))
    speeds = sizes.photographs / ours, sizes.photographs / theirs
    return Comparison("reading raw records | the notebook's pipeline", *speeds, "pictures/s", at_least=6)


def _peak(top: Path, work: str, sizes: Sizes) -> Comparison:
    few, many = (_peak_at(top, work, count) for count in (sizes.few, sizes.many))
    name = f"peak memory of {work}, {sizes.many} images | {sizes.few}"
    return Comparison(name, many, few, "MB", at_most=1.1 if work == "scan" else None)


def _peak_at(top: Path, work: str, images: int) -> float:
    folder = top / f"tiny-{images}"
    if not folder.exists():
        write_tiny(folder / "pictures", images)
    return memory.measured(work, folder)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few images, once: to see that it works")
    quick = parser.parse_args().quick
    found = []
    print(f"{'':58}{'ours':>10}{'theirs':>10}{'ratio':>10}")
    with tempfile.TemporaryDirectory(prefix="darkroom-bench-") as top:
        for comparison in comparisons(Path(top), QUICK if quick else Sizes()):
            print(comparison.row(), flush=True)
            found.append(comparison.facts())
    if not quick:
        machine = {"cores": os.cpu_count(), "python": sys.version.split()[0], **asdict(Sizes())}
        write_json(RESULTS, {"machine": machine, "comparisons": found})


if __name__ == "__main__":
    main()
