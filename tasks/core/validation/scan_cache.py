"""What earlier scans found, so that images that haven't changed are not opened again."""

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import PIL

from tasks.core.base.files import sha256
from tasks.core.base.paths import cache_folder

RECENT = 2_000_000_000  # ns; FAT keeps times in steps of two seconds

TABLE = """
    CREATE TABLE IF NOT EXISTS files (
        file BLOB PRIMARY KEY, code TEXT NOT NULL, size INTEGER, modified INTEGER, changed INTEGER,
        facts TEXT NOT NULL
    ) WITHOUT ROWID
"""


class Status(NamedTuple):
    """What tells a file from the one that was there: bytes, and times in ns.

    `changed` is ctime, which goes on also where a file of the same size and mtime takes another's place.
    """

    size: int
    modified: int
    changed: int


class ScanCache:
    """A small database in the cache folder; a scan that is killed finds there what it had done."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.code = _code()

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Self]:
        """Opens the database, and begins a new one where the old can't be read."""
        file = cache_folder() / "scan.sqlite"
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            connection = _connect(file)
        except sqlite3.DatabaseError:
            file.unlink(missing_ok=True)
            connection = _connect(file)
        with closing(connection):
            yield cls(connection)

    def look_up(self, files: Sequence[str]) -> dict[str, tuple[dict[str, Any], Status]]:
        """For those files that an earlier scan described: what it found, and their state at that time."""
        marks = ",".join("?" * len(files))
        rows = self.connection.execute(
            f"SELECT file, facts, size, modified, changed FROM files WHERE code = ? AND file IN ({marks})",
            [self.code, *map(os.fsencode, files)],
        )
        return {os.fsdecode(file): (json.loads(facts), Status(*status)) for file, facts, *status in rows}

    def add(self, found: Sequence[tuple[str, Status | None, dict[str, Any] | None]], start: int) -> None:
        """Keeps what a scan that began at `start` (ns) has found: of each file its state and description.

        A file that changed just before may change again without a later time to show for it; its time is not
        kept, so that the next scan looks at its content.
        """
        rows = [
            (
                os.fsencode(file),
                self.code,
                status.size,
                status.modified if status.modified < start - RECENT else None,
                status.changed,
                json.dumps(facts),
            )
            for file, status, facts in found
            if status and facts and "sha256" in facts
        ]
        with self.connection:
            self.connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", rows)


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=60)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(TABLE)
    return connection


def _code() -> str:
    """What the results depend on besides the files: the code that reads and measures, and the decoder."""
    core = Path(__file__).parents[1]
    own = ("data/image_io", "data/manifest", "validation/image_quality", "validation/scan")
    sources = [sha256(core / f"{name}.py") for name in own]
    return " ".join([*sources, PIL.__version__, np.__version__])
