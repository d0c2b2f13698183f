"""What may happen to a run, and what a person would mend after it."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import psutil

Mend = Callable[[], None]
Strike = Callable[["Target"], tuple[str, Mend]]
DAY = 86400


@dataclass(frozen=True)
class Target:
    """A run at work: its project, its process, and what chance there is.

    start: begins another command in the project, and gives what waits for its end.
    """

    folder: Path
    pid: int
    random: Random
    start: Callable[[list[str]], Mend]


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    strike: does it; says what it has done, and gives what mends it.
    edits: whether inputs are edited too, in the same moment.
    clock: days by which the time is wrong.
    small: whether the project lies on a small disk.
    beside: whether two are at work at once, of which one may be turned away.
    """

    strike: Strike
    edits: bool = False
    clock: float = 0
    small: bool = False
    beside: bool = False


def nothing() -> None:
    """Nothing has to be mended."""


def _quiet(_target: Target) -> tuple[str, Mend]:
    return "nothing more", nothing


def _signal(number: signal.Signals, whom: str) -> Strike:
    def strike(target: Target) -> tuple[str, Mend]:
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if whom == "all":
                os.killpg(target.pid, number)
            else:
                found = [psutil.Process(target.pid)]
                for _ in range({"dvc": 0, "stage": 1, "worker": 2}[whom]):
                    found = found[0].children() or found
                target.random.choice(found).send_signal(number)
        return f"{number.name} to {whom}", nothing

    return strike


def _fill(target: Target) -> tuple[str, Mend]:
    """Leaves a little room, or none, until it is mended."""
    filler = target.folder.parent / "filler"
    free = shutil.disk_usage(target.folder).free
    left = target.random.choice([0, 4096, 65536, 1 << 20])
    with suppress(OSError), filler.open("wb") as file:
        file.write(b"\0" * max(free - left, 0))
    return f"the disk has {left} bytes left", lambda: filler.unlink(missing_ok=True)


PLACES = (".dvc/cache/files/md5", ".dvc/tmp", ".cache", "data", "reports", "export", "models", "pictures/red")
RIGHTS = (*PLACES, ".", "pictures/red/001.png", "data/labels.csv", "dvc.lock", "params.yaml")


def _forbid(target: Target) -> tuple[str, Mend]:
    path = target.folder / target.random.choice([name for name in RIGHTS if (target.folder / name).exists()])
    mode = path.stat().st_mode
    left = target.random.choice([0o000, 0o555 & mode])
    path.chmod(left)

    def mend() -> None:
        if path.exists():
            path.chmod(mode)

    return f"{path.relative_to(target.folder)} is {left & 0o777:o}", mend


def _damage(*folders: str, mended: bool = False) -> Strike:
    """Cuts a file short, or turns a byte of it."""

    def strike(target: Target) -> tuple[str, Mend]:
        random = target.random
        files: list[Path] = []
        for name in folders:
            path = target.folder / name
            files += (
                [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]
            )
        with suppress(OSError, IndexError):  # none there, or gone by now
            file = random.choice(files)
            content = file.read_bytes()
            place = random.randrange(len(content)) if content else 0
            flipped = (
                content[:place] + bytes([content[place] ^ (1 << random.randrange(8))]) + content[place + 1 :]
            )
            done = random.choice([content[:place], flipped])
            mode = file.stat().st_mode
            file.chmod(0o644)
            file.write_bytes(done)
            file.chmod(mode)
            what = "cut short" if len(done) < len(content) else "another bit"
            told = f"{file.relative_to(target.folder)}, byte {place}: {what}"
            return told, partial(_put_back, file, content) if mended else nothing
        return "nothing was there to damage", nothing

    return strike


def _damage_database(target: Target) -> tuple[str, Mend]:
    """Which DVC can't do without, and says so; its user removes it, as docs/decisions.md has it."""
    told, _ = _damage(".dvc/site")(target)
    return told, lambda: shutil.rmtree(target.folder / ".dvc/site", ignore_errors=True)


def _beside(*words: str) -> Strike:
    """Another command in the same project, of the same user."""

    def strike(target: Target) -> tuple[str, Mend]:
        return f"beside it: {' '.join(words)}", target.start(list(words))

    return strike


def _put_back(file: Path, content: bytes) -> None:
    file.write_bytes(content)


def _set_back(target: Target) -> tuple[str, Mend]:
    """Inputs that are older than what was made of them, as from a camera or an archive."""
    for file in (target.folder / "pictures").rglob("*.png"):
        os.utime(file, (0, 0))
    return "pictures of 1970", nothing


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """Mounts a disk of so many bytes on a folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def can_mount(folder: Path) -> bool:
    try:
        with small_disk(folder, 1 << 20):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


INTERMEDIATE = ("data/manifest.parquet", "data/dataset", "models", "reports", "export")
FAULTS: dict[str, Fault] = {
    "all killed": Fault(_signal(signal.SIGKILL, "all")),
    "the stage killed": Fault(_signal(signal.SIGKILL, "stage")),
    "DVC killed": Fault(_signal(signal.SIGKILL, "dvc")),
    "a worker killed": Fault(_signal(signal.SIGKILL, "worker")),
    "interrupted": Fault(_signal(signal.SIGINT, "all")),
    "terminated": Fault(_signal(signal.SIGTERM, "all")),
    "an input edited": Fault(_quiet, edits=True),
    "killed and edited": Fault(_signal(signal.SIGKILL, "all"), edits=True),
    "a full disk": Fault(_fill, small=True),
    "a right taken away": Fault(_forbid),
    "an input damaged": Fault(_damage("pictures", "data/labels.csv", "data/schema.yaml", mended=True)),
    "an output damaged": Fault(_damage(*INTERMEDIATE)),
    "a cache damaged": Fault(_damage(".cache")),
    "DVC's cache damaged": Fault(_damage(".dvc/cache")),
    "DVC's records damaged": Fault(_damage(".dvc/tmp")),
    "DVC's database damaged": Fault(_damage_database),
    "a clock set back": Fault(_signal(signal.SIGKILL, "all"), clock=-3),
    "a clock ahead": Fault(_quiet, edits=True, clock=30),
    "old files": Fault(_set_back, edits=True),
    "another run beside it": Fault(_beside("dvc", "repro"), beside=True),
    "another run of an edit": Fault(_beside("dvc", "repro"), edits=True, beside=True),
    "prune beside it": Fault(_beside("tasks.prune", "--runs", "1"), beside=True),
    "a prediction beside it": Fault(_beside("tasks.predict", "export/model.onnx", "pictures/red")),
}
