"""Fetches models into TF Hub's own cache: with an end to waiting, second tries, and a look at what came."""

import os
import shutil
import socket
import tarfile
import time
from http.client import HTTPException, IncompleteRead
from pathlib import Path
from ssl import SSLCertVerificationError
from tempfile import NamedTemporaryFile
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from tqdm import tqdm

from tasks.core.backbones import saved_model
from tasks.core.backbones.catalogue import BUILT_IN
from tasks.core.backbones.tensorflow_setup import hub
from tasks.core.base import console, process
from tasks.core.base.errors import BackboneError, Unreachable, brief
from tasks.core.base.files import remove
from tasks.core.base.paths import hub_folder

TIMEOUT = 30  # seconds without a byte, after which a server is given up
TRIES = 4
PAUSE = 1  # seconds before the second try, and twice as long before each further one
HUB = "https://tfhub.dev/"
SMALL = 1 << 30  # bytes when it is unpacked; of a larger archive
UNPACKED = 20  # times its own size are allowed, as weights hardly shrink

_NETWORK = (URLError, HTTPException, ConnectionError, TimeoutError)


def download(handle: str, timeout: float = TIMEOUT, tries: int = TRIES, pause: float = PAUSE) -> Path:
    """Gives the folder in TF Hub's cache that holds the model of an address, fetching it the first time.

    It appears there whole or not at all.

    Args:
        timeout: seconds without a byte, after which a try has failed.
        pause: seconds before the second try; twice as long before each further one.

    Raises:
        BackboneError: the model can't be fetched, or what came is none.
    """
    folder = hub_folder(handle)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _release(folder)
    resolver = Resolver(timeout, tries, pause)
    try:
        hub.resolver.atomic_download(handle, resolver.download, str(folder))
    except (tarfile.TarError, ValueError, EOFError) as error:  # ValueError: a link, or a path that leads out
        raise BackboneError(
            f"model.backbone: what {handle} gives is no archive of a model ({_text(error)}); it must be the "
            "address of a TF Hub or Kaggle model, or of a .tar.gz of a SavedModel"
        ) from None
    except _NETWORK as error:
        raise _unreachable(handle, error, timeout) from None
    except hub.resolver.tf.errors.OpError as error:
        raise BackboneError(
            f"model.backbone: {handle} can't be kept in {folder.parent} ({_text(error)}); "
            "see that there is room and that you may write there"
        ) from None
    return folder


class Resolver(hub.compressed_module_resolver.HttpCompressedFileResolver):  # type: ignore[misc]
    """TF Hub's own, which waits for ever, tries once, and takes what comes for a model."""

    def __init__(self, timeout: float, tries: int, pause: float) -> None:
        super().__init__()
        self.timeout, self.tries, self.pause = timeout, tries, pause

    def download(self, handle: str, folder: str) -> None:
        """Fetches and unpacks a model into a folder that TF Hub renames when it is whole."""
        with NamedTemporaryFile(dir=folder) as archive:  # in there, where who waits for us sees it grow
            self._fetch(handle, archive)
            _refuse_bomb(archive)
            hub.file_utils.extract_tarfile_to_destination(archive, folder)
        saved_model.inspect(Path(folder))

    def _fetch(self, handle: str, archive: IO[bytes]) -> None:
        url = self._append_compressed_format_query(_mirrored(handle))
        console.say(f"fetch: {url}")
        for pause in [self.pause * 2**place for place in range(self.tries - 1)]:
            try:
                return self._try(url, archive)
            except _NETWORK as error:
                if not _passes(error):
                    raise
                console.say(
                    f"fetch: {urlsplit(url).netloc}: {_reason(error, self.timeout)}; once more in {pause:g} s"
                )
                time.sleep(pause)
        return self._try(url, archive)

    def _try(self, url: str, archive: IO[bytes]) -> None:
        """Saves what an address gives. A proxy or a server may end early; the length tells."""
        archive.seek(0)
        archive.truncate()
        with self._open(url) as response:
            length = response.length  # none where it comes in chunks, which tell for themselves
            bar: dict[str, Any] = {"total": length, "desc": "fetch", "disable": None, "leave": False}
            with tqdm.wrapattr(response, "read", **bar) as stream:
                shutil.copyfileobj(stream, archive)
        if length is not None and archive.tell() != length:
            raise IncompleteRead(b"", length - archive.tell())
        archive.seek(0)

    def _open(self, url: str) -> Any:
        try:
            return urlopen(url, timeout=self.timeout, context=self._context)
        except HTTPError as error:
            error.close()  # it is an answer too, and holds its connection
            raise


def _refuse_bomb(archive: IO[bytes]) -> None:
    """Looks what an archive unpacks to, before anything of it is on the disk.

    Raises:
        ValueError: that is far more than a model's.
    """
    left = max(SMALL, UNPACKED * os.fstat(archive.fileno()).st_size)
    with tarfile.open(fileobj=archive, mode="r|*") as members:
        for member in members:
            left -= member.size
            if left < 0:
                raise ValueError(f"it unpacks to more than {UNPACKED} times its size")
    archive.seek(0)


def _mirrored(handle: str) -> str:
    """The address to ask instead: a mirror stands in for TF Hub where `DARKROOM_HUB` names one."""
    mirror = os.environ.get("DARKROOM_HUB")
    if mirror and handle.startswith(HUB):
        return f"{mirror.rstrip('/')}/{handle.removeprefix(HUB)}"
    return handle


def _release(folder: Path) -> None:
    """Removes the lock of a killed process, for which TF Hub waits ten minutes, and what that had begun."""
    lock = folder.with_name(f"{folder.name}.lock")
    try:
        host, number, task = lock.read_text().rsplit(".", 2)
    except (FileNotFoundError, ValueError):
        return
    if host != socket.gethostname() or (int(number) != os.getpid() and process.is_alive(int(number))):
        console.say(f"fetch: process {number} of {host} is at it; waiting for it to end")
        return
    remove(folder.with_name(f"{folder.name}.{task}.tmp"))
    remove(lock)


def _passes(error: Exception) -> bool:
    """Whether another try may do better."""
    if isinstance(error, HTTPError):
        return error.code in (408, 429) or error.code >= 500
    return not isinstance(getattr(error, "reason", None), SSLCertVerificationError)


def _unreachable(handle: str, error: Exception, timeout: float) -> BackboneError:
    remedy = (
        f"with no network use {BUILT_IN}, which is built in, or bring the model by hand: "
        f"`python -m tasks.backbones fetch` it on another machine and copy {hub_folder(handle).parent}, "
        "or unpack it anywhere and give that folder"
    )
    if isinstance(error, HTTPError) and not _passes(error):
        remedy = "check the address, and that anyone may fetch it"
    kind = Unreachable if _passes(error) else BackboneError
    return kind(f"model.backbone: {handle} can't be fetched: {_reason(error, timeout)}; {remedy}")


def _reason(error: Exception, timeout: float) -> str:
    match error:
        case HTTPError():
            return f"the server answers {error.code} {error.reason}"
        case IncompleteRead():
            return f"the answer ended {error.expected or 'some'} bytes early"
        case TimeoutError() | URLError(reason=TimeoutError()):
            return f"nothing came for {timeout:g} seconds"
        case URLError():
            return _text(error.reason)
    return _text(error)


def _text(error: Any) -> str:
    return brief(getattr(error, "strerror", None) or error)
