"""What earlier scans found, so that images that haven't changed are not opened again."""

import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import PIL

from tasks.core.base import console
from tasks.core.base.errors import brief
from tasks.core.base.files import sha256
from tasks.core.base.paths import cache_folder

# Of SQLite: the file is none of its own, or not as it left it. All else, as a lock, leaves it sound.
DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)
TIMEOUT = 60.0  # seconds, for another process to end its writing
PRIMARY = 0xFF  # of an error's code; the rest says more of it
RECENT = 2_000_000_000  # ns; FAT keeps times in steps of two seconds

TABLE = """
    CREATE TABLE IF NOT EXISTS images (
        file BLOB PRIMARY KEY, code TEXT NOT NULL, size INTEGER, modified INTEGER, changed INTEGER,
        facts TEXT NOT NULL, sum INTEGER NOT NULL
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
    """A small database in the cache folder; a scan that is killed finds there what it had done.

    What can't be read or written, for whatever reason, costs the time of a new scan and nothing else.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.code = _code()
        self.connection = self._connect()

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Self]:
        """Opens the database, and begins a new one where the old can't be read."""
        cache = cls(cache_folder() / "scan.sqlite")
        try:
            yield cache
        finally:
            cache.connection.close()

    def look_up(self, files: Sequence[str]) -> dict[str, tuple[dict[str, Any], Status]]:
        """For those files that an earlier scan described: what it found, and their state at that time."""
        marks = ",".join("?" * len(files))
        query = f"SELECT * FROM images WHERE code = ? AND file IN ({marks})"  # noqa: S608 (question marks)
        values = [self.code, *map(os.fsencode, files)]
        rows = self._try(lambda: self.connection.execute(query, values).fetchall())
        return {
            os.fsdecode(file): (json.loads(facts), Status(*status))
            for file, code, *status, facts, found in rows
            if _sum(file, code, *status, facts) == found
        }

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

        def write() -> None:
            with self.connection:
                self.connection.executemany(
                    "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [(*row, _sum(*row)) for row in rows],
                )

        self._try(write)

    def _connect(self) -> sqlite3.Connection:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            return _connect(self.file)
        except (OSError, sqlite3.Error) as error:
            return self._renew(error)

    def _try(self, work: Callable[[], Any]) -> Any:
        """Does what needs the database, in a new one if it has to be."""
        try:
            return work()
        except sqlite3.Error as error:
            self.connection.close()
            self.connection = self._renew(error)
            return work()

    def _renew(self, error: Exception) -> sqlite3.Connection:
        """Begins a new database: in place of one that is damaged, else in memory."""
        why = f"{self.file} can't be used ({brief(error)})"
        try:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)  # none where text is no UTF-8
            if code & PRIMARY not in DAMAGE:
                raise error
            for end in ("", "-wal", "-shm"):
                Path(f"{self.file}{end}").unlink(missing_ok=True)
            connection = _connect(self.file)
        except (OSError, sqlite3.Error):
            console.warn(f"{why}: every image is opened, and the next scan will open it again")
            return _connect(":memory:")
        console.warn(f"{why}: a new one is begun, and every image opened")
        return connection


def _connect(file: Path | str) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=TIMEOUT)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(TABLE)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _sum(*row: Any) -> int:
    """A checksum of a row: a disk may give back another bit than it was given."""
    return zlib.crc32(repr(row).encode())


def _code() -> str:
    """What the results depend on besides the files: the code that reads and measures, and the decoder."""
    core = Path(__file__).parents[1]
    own = ("data/image_io", "data/manifest", "validation/image_quality", "validation/scan")
    sources = [sha256(core / f"{name}.py") for name in own]
    return " ".join([*sources, PIL.__version__, np.__version__])
