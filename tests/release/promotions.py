"""What the tests of promotions do again and again."""

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

from dvc.repo import Repo

from flows import outcome, promote
from tasks.core.release.registry import Registry


def commit(variants: Path, name: str, note: str = "") -> None:
    """Makes a variant by DVC, pushes it, and commits."""
    Path("variant").write_text(f"{variants / name}\n")
    Path("note").write_text(note or name)
    with Repo(".") as repo:  # in this process: no command of DVC's is under test
        repo.reproduce()
        repo.push()
    for words in (["add", "-A"], ["commit", "-q", "-m", f"Make it {name}"]):
        subprocess.run(["git", *words], check=True)


def promoted(to: str = "production", **more: Any) -> tuple[int, str]:
    """Promotes; returns the exit code and what is said."""
    state = promote.promote(to, **more, return_state=True)
    return 0 if state.is_completed() else outcome.code_of(state) or 70, state.message or ""


def tags() -> list[str]:
    listed = subprocess.run(["git", "tag"], check=True, capture_output=True, text=True)
    return listed.stdout.split()


def champion() -> str:
    found = Registry.read().champion("production")
    assert found
    return found.name


def flipped(file: Path) -> None:
    """Changes a bit of a file as a bad disk does: with no trace of it."""
    data, before = bytearray(file.read_bytes()), file.stat()
    data[len(data) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)
    file.chmod(before.st_mode)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def cached(path: Path, store: Path = Path(".dvc/cache")) -> Path:
    """Where DVC keeps what a file of the working copy holds."""
    digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    return store / "files/md5" / digest[:2] / digest[2:]


def by_hand(name: str, **facts: str) -> None:
    """Makes a tag of HEAD, as anybody can."""
    words = ["git", "tag", "--annotate", "--message", facts.pop("message", "mine"), name]
    subprocess.run(words, check=True, env=os.environ | facts)
