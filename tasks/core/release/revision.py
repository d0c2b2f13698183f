"""The files of a commit: what git keeps of it, and what DVC keeps in its cache or else its remote.

Each is held against the digest in that commit's dvc.lock, so that what was altered on the way is not used.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.core.base.errors import DataError, Unreachable, brief

# Packages of what a remote of DVC's may raise; all else is an OSError.
STORES = {"aiohttp", "asyncssh", "azure", "botocore", "dvc", "dvc_data", "dvc_objects", "fsspec", "gcsfs"}
STORES |= {"google", "oss2", "paramiko", "scmrepo", "sshfs", "webdav4"}


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
    """

    def __init__(self, name: str, published: bool = False) -> None:
        from dvc.api import DVCFileSystem  # half a second
        from dvc.exceptions import DvcException
        from dvc.repo import Repo
        from dvc.scm import SCMError, resolve_rev

        self.name = name
        try:
            with Repo(".") as repo:
                self.commit: str = resolve_rev(repo.scm, name)
                is_tag = repo.scm.get_ref(f"refs/tags/{name}") is not None
                self.stays = is_tag or re.fullmatch("[0-9a-f]{7,40}", name) is not None
                self.cache = Path(repo.cache.local.path)
                self._has_remote = bool(repo.config["remote"])
                self._remote: Any = published and self._has_remote and repo.cloud.get_remote_odb()
        except SCMError:
            raise DataError(
                f"{name} is nothing that git knows here; `git fetch --tags` brings the tags of a remote"
            ) from None
        except DvcException as error:
            raise DataError(f"DVC: {brief(error)}") from None
        self._files = DVCFileSystem(".", rev=self.commit)
        self._known: dict[Path, bytes] = {}  # of the small files, which are asked for again and again

    @contextmanager
    def _having(self, path: Path) -> Iterator[None]:
        """Says which file it was that can't be had.

        Raises:
            DataError: it is in no cache and no remote.
            Unreachable: the remote can't be asked.
        """
        from dvc.exceptions import DvcException

        try:
            yield
        except DataError:
            raise
        except Exception as error:
            if not is_of_a_store(error):
                raise
            if absent := self._away():
                raise DataError(f"{path} of {self.name} can't be had: {absent}") from None
            missing = "" if self._has_remote else "add DVC's remote, as there is none here; "
            remedy = f"{missing}see that DVC's remote is there"
            text = f"{path} of {self.name} can't be had ({brief(error)}); {remedy}"
            if isinstance(error, (FileNotFoundError, DvcException)):
                raise DataError(f"{text}, and `dvc push` where it was made") from None
            raise Unreachable(f"{text}, and that it lets you in") from None

    def _away(self) -> str | None:
        """Says so if DVC's remote is a folder that isn't there."""
        from dvc.repo import Repo

        with Repo(".") as repo:
            return away(repo.cloud.get_remote()) if repo.config["core"].get("remote") else None

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
        remote, missing = self._remote, False
        place = remote.oid_to_path(recorded)
        try:
            data: bytes = remote.fs.cat_file(place)  # to `open`, a web server that fails has no such file
            if _md5(data) == recorded:
                return data
        except FileNotFoundError:
            if self._away():
                raise
            missing = True
        forget(remote)
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

    def files(self, folder: Path) -> Iterator[Path]:
        """The files below a folder; the file itself, if it is one."""
        name = folder.as_posix()
        with self._having(folder):
            found = [name] if self._files.isfile(name) else sorted(self._files.find(name))
        yield from (Path(one) for one in found)

    def fetch(self, path: Path, target: Path) -> Path:
        """Writes a file, or a folder with all that is in it, below `target`; returns where it then is.

        Raises:
            DataError: as `read`, or there is no such thing.
        """
        names = list(self.files(path))
        if not names:
            raise DataError(f"{self.name} holds no {path}; take a commit with the dvc.lock of a whole run")
        for name in names:
            file = target / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(self._read(name))
        return target / path

    def json(self, path: Path) -> Any:
        return json.loads(self.read(path))

    def parquet(self, path: Path) -> pd.DataFrame:
        return pd.read_parquet(BytesIO(self.read(path)))

    def digest(self, path: Path) -> str:
        """SHA-256 of a file."""
        return hashlib.sha256(self.read(path)).hexdigest()


def is_of_a_store(error: Exception) -> bool:
    """Whether DVC's remote has failed, and not the code that asks it: by the package of the exception."""
    packages = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return isinstance(error, OSError) or not packages.isdisjoint(STORES)


def away(remote: Any) -> str | None:
    """Says so if a remote of DVC's is a folder that isn't there."""
    if remote.fs.protocol != "local" or remote.fs.exists(remote.path):
        return None
    return f"DVC's remote, {remote.path}, is not there: mount it, or `dvc push` makes it"


def forget(remote: Any) -> None:
    """Clears what DVC remembers of a remote's content, so that `dvc push` and `dvc status` look again."""
    from dvc_data.hashfile.db import get_index

    if remote:
        get_index(remote).clear()


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
