"""The files of a commit: what git keeps of it, and what DVC keeps in its cache or else its remote.

Each is held against the digest in that commit's dvc.lock, so that what was altered on the way is not used.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.core.base.errors import DataError, Unreachable, brief


class Revision:
    """A commit of this repository.

    Args:
        name: a tag, a commit, or a name that moves, such as HEAD or a branch's.
        published: read what others would get, from DVC's remote, if there is one; else the cache goes first.

    Attributes:
        commit: its digest.
        stays: whether the name is one that doesn't move.

    Raises:
        DataError: git knows no such thing; or DVC has a slip in its configuration, or several remotes and no
            default.
        Unreachable: it is of a partial clone, and can't be fetched.
    """

    def __init__(self, name: str, published: bool = False) -> None:
        from tasks.core.release import dvc_api  # half a second

        self.name = name
        found = dvc_api.commit(name, published)
        self.commit, self.stays, self.cache = found.digest, found.stays, found.cache
        self._files, self._has_remote, self._remote = found.files, found.has_remote, found.remote
        self._known: dict[Path, bytes] = {}  # of the small files, which are asked for again and again

    @contextmanager
    def _having(self, path: Path) -> Iterator[None]:
        """Says which file it was that can't be had."""
        from tasks.core.release import dvc_api

        try:
            yield
        except DataError:
            raise
        except Exception as error:  # of any package; `is_of_a_store` says which of them are a remote's
            if not dvc_api.is_of_a_store(error):
                raise
            if absent := dvc_api.absent_remote():
                raise DataError(f"{path} of {self.name} can't be had: {absent}") from None
            missing = "" if self._has_remote else "add DVC's remote, as there is none here; "
            remedy = f"{missing}see that DVC's remote is there"
            text = f"{path} of {self.name} can't be had ({brief(error)}); {remedy}"
            if isinstance(error, (FileNotFoundError, dvc_api.DvcError)):
                raise DataError(f"{text}, and `dvc push` where it was made") from None
            raise Unreachable(f"{text}, and that it lets you in") from None

    def holds(self, path: Path) -> bool:
        """Whether there is such a file or folder, be it here or not."""
        with self._having(path):
            return bool(self._files.exists(path.as_posix()))

    def read(self, path: Path) -> bytes:
        """The bytes of a file, which are remembered.

        Raises:
            DataError: it is not there, can't be had, or is not what was recorded.
            Unreachable: the remote can't be asked.
        """
        if path not in self._known:
            self._known[path] = self._read(path)
        return self._known[path]

    def _read(self, path: Path) -> bytes:
        name = path.as_posix()
        with self._having(path):
            recorded = self._files.info(name).get("md5")
            if recorded and self._remote:
                return self._published(path, recorded)
            with self._files.open(name, "rb") as file:
                data: bytes = file.read()
        if not recorded or _md5(data) == recorded:
            return data
        kept = self.cache / recorded[:2] / recorded[2:]
        if self._has_remote and not kept.exists():  # which is then what was read
            return Revision(self.name, published=True)._read(path)
        raise DataError(
            f"{path} of {self.name} is not what dvc.lock says: it was altered in DVC's cache; "
            f"remove {kept}, and {'run it again' if self._has_remote else '`dvc repro` there'}"
        )

    def _published(self, path: Path, recorded: str) -> bytes:
        """The bytes that the remote has of a file whose MD5 is recorded."""
        from tasks.core.release import dvc_api

        remote, missing = self._remote, False
        place = remote.oid_to_path(recorded)
        try:
            data: bytes = remote.fs.cat_file(place)  # to `open`, a web server that fails has no such file
            if _md5(data) == recorded:
                return data
        except FileNotFoundError:
            if dvc_api.absent_remote():
                raise
            missing = True
        dvc_api.forget(remote)
        # DVC takes a folder for complete whose list of files is there, and would push nothing.
        digests = (self._files.info(str(one)).get("md5", "") for one in path.parents if one.name)
        lists = [remote.oid_to_path(digest) for digest in digests if digest.endswith(".dir")]
        wrong = " and ".join(lists if missing else [place, *lists])
        raise DataError(
            f"{path} of {self.name} is not what dvc.lock says: in DVC's remote {place} "
            + ("is missing; " if missing else "was altered; ")
            + (f"remove {wrong} there, and " if wrong else "")
            + "`dvc push` where it was made"
        )

    def fetch(self, path: Path, target: Path) -> Path:
        """Writes a file, or a folder with all that is in it, below `target`; returns where it then is.

        Raises:
            DataError: as `read`, or there is no such thing.
        """
        whole = path.as_posix()
        with self._having(path):
            names = [whole] if self._files.isfile(whole) else sorted(self._files.find(whole))
        if not names:
            raise DataError(f"{self.name} holds no {path}; take a commit with the dvc.lock of a whole run")
        for name in names:
            file = target / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(self._read(Path(name)))
        return target / path

    def json(self, path: Path) -> Any:
        return json.loads(self.read(path))

    def parquet(self, path: Path) -> pd.DataFrame:
        return pd.read_parquet(BytesIO(self.read(path)))

    def digest(self, path: Path) -> str:
        """SHA-256 of a file."""
        return hashlib.sha256(self.read(path)).hexdigest()


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
