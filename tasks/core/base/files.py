"""Files that appear whole or not at all, and come out the same bytes each time."""

import glob
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.core.base import process

CODE = (".py", ".tsv", ".html")  # suffixes of what a room of tasks/core holds
HOST = re.sub(r"\W", "-", socket.gethostname())  # a pid says nothing where machines share a folder


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`, and renames it into place when the block ends well.

    The block makes a file or a folder there. If it fails, `path` is as it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (_temporary(path, kind) for kind in ("new", "old"))
    _remove_left_overs(path)
    try:
        yield temporary
        if temporary.is_file():
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())  # or a power cut may leave the new name with nothing in it
        if temporary.is_dir() and path.is_dir():
            path.replace(old)  # a folder can't be renamed over one that holds files
        temporary.replace(path)
    finally:
        remove(temporary)
        remove(old)


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Gives a folder beside `path` for what is needed for a while; those of killed processes are removed."""
    folder = _temporary(path, "new")
    _remove_left_overs(path)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        remove(folder)


def _temporary(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{HOST}.{os.getpid()}.{kind}.tmp")


def _remove_left_overs(path: Path) -> None:
    """Removes what killed processes of this machine began to write here, and what this one did before."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.{HOST}.*.tmp"):
        pid = left.name.split(".")[-3]
        if not pid.isdigit() or int(pid) == os.getpid() or not process.is_alive(int(pid)):
            remove(left)


def remove(path: Path) -> None:
    """Removes a file, a link or a whole folder; nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON for people and machines: indented, keys in the order given, no NaN."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def is_json(file: Path) -> bool:
    """Whether a file can be read as JSON at all."""
    try:
        read_json(file)
    except ValueError:
        return False
    return True


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested dicts by their dotted paths."""
    result: dict[str, Any] = {}
    for key, value in tree.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return result


def sha256(path: Path) -> str:
    """Digests a file; of a folder, the names and digests of all its files in order."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        lines = (f"{sha256(file)}  {file.relative_to(path).as_posix()}\n" for file in files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def code_files(path: Path) -> list[Path]:
    """A file of code, or those of a folder; not what .dvcignore skips, such as the bytecode of an import."""
    if path.is_dir():
        found = (file for file in path.rglob("*") if file.suffix in CODE and file.is_file())
        return sorted(file for file in found if "/." not in file.relative_to(path.parent).as_posix())
    return [path] if path.exists() else []


def is_hidden(name: str) -> bool:
    """Whether a file or folder, by its name alone, is passed over where images are looked for."""
    return name.startswith((".", "__MACOSX", "@eaDir"))  # what macOS and Synology leave behind


def fingerprint(facts: Any, *files: Path) -> str:
    """Digests plain values and files together: what a result depends on, as a name to keep it by."""
    text = json.dumps([facts, *map(sha256, files)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
