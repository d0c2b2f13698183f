"""Images in archives, tar or ZIP, beside those in folders: one file to hash, to push and to pull for many.

A path goes on into an archive: `train-00.tar/cat/1.jpg`. Nothing is unpacked. A tar may not be compressed as
a whole, so that each image is found by its place in it; WebDataset's aren't.
"""

import os
import re
import stat
import tarfile
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from tasks.core.base.errors import DataError, brief
from tasks.core.base.presence import tell_pointer

SUFFIXES = (".tar", ".zip")
INTO = re.compile(r"\.(?:tar|zip)/", re.IGNORECASE)  # where a path may go on into an archive
# What the two modules raise of a damaged file; RuntimeError: one that asks for a password.
DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    LookupError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)
ENCRYPTED, IS_UTF_8 = 0x1, 0x800  # flags of a file in a ZIP
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
MAX_BYTES = 1 << 29  # of a file in an archive, as long as it is unpacked
OPEN = 128  # archives whose lists of files a process keeps in mind
END = 1024  # bytes of zeros that end a tar
LABEL = ".cls"  # of WebDataset: the class of the files beside it whose names are the same up to the first dot


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive: bytes, unpacked; and where they begin, in a tar."""

    size: int
    begin: int = 0


@dataclass(frozen=True)
class Archive:
    """An archive as it was when its times, in ns, were these."""

    file: str
    modified: int
    changed: int

    @classmethod
    def of(cls, file: str) -> "Archive":
        found = os.stat(file)  # noqa: PTH116, a third of Path's time
        return _remember(cls(file, found.st_mtime_ns, found.st_ctime_ns))

    @cached_property
    def members(self) -> dict[str, Member]:
        """The files in it, by their names, with slashes.

        Raises:
            DataError: it is damaged, or a name climbs out of it or is there twice.
        """
        try:
            listed = list(self._list_zip() if self._is_zip else self._list_tar())
        except DAMAGED as error:
            kind = "a ZIP file" if self._is_zip else "an uncompressed tar file"
            broken = f"{self.file} can't be read as {kind} ({brief(error)}); make it anew"
            raise DataError(tell_pointer(self.file) or broken) from None
        members: dict[str, Member] = {}
        for name, member in listed:
            path = os.path.normpath(name)
            if path.startswith(("/", "../")) or path == "..":
                raise DataError(f"{self.file} holds {name!r}, which leads out of it; make it anew")
            if "\0" in path:
                raise DataError(f"{self.file} holds {name!r}, as no file can be called; make it anew")
            if path in members:
                raise DataError(f"{self.file} holds {path!r} twice; make it anew with one of them")
            members[path] = member
        return members

    @property
    def _is_zip(self) -> bool:
        return self.file.lower().endswith(".zip")

    @cached_property
    def _zip(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.file)

    def _list_zip(self) -> list[tuple[str, Member]]:
        files = [info for info in self._zip.infolist() if not info.is_dir()]
        if files and all(info.flag_bits & ENCRYPTED for info in files):
            raise ValueError("it is encrypted")
        if files and all(info.compress_type not in METHODS for info in files):
            raise ValueError(f"it is compressed by method {files[0].compress_type}, not by deflate")
        return [(_name(info), Member(info.file_size)) for info in files]

    def _list_tar(self) -> list[tuple[str, Member]]:
        listed: list[tuple[str, Member]] = []
        known: dict[str, Member] = {}
        with tarfile.open(self.file, "r:") as tar:
            for info in tar:
                if info.issym() or info.issparse():
                    raise ValueError(
                        f"{info.name} is a link or sparse; tar's --dereference stores what it is of"
                    )
                if info.islnk():
                    if info.linkname not in known:
                        raise ValueError(
                            f"{info.name} is a hard link to {info.linkname}, which is not before it"
                        )
                    listed.append((info.name, known[info.linkname]))
                elif info.isreg():
                    known[info.name] = Member(info.size, info.offset_data)
                    listed.append((info.name, known[info.name]))
            self._check_end(tar.offset)
        return listed

    def _check_end(self, begin: int) -> None:
        """Looks whether a tar ends where its list does: one of its headers, damaged, ends that too."""
        with open(self.file, "rb") as tar:  # noqa: PTH123
            tar.seek(begin)
            length = 0
            while part := tar.read(1 << 20):
                if part.strip(b"\0"):
                    raise ValueError("a header in it is damaged, or more lies after its end")
                length += len(part)
        if length < END:
            raise ValueError("it ends early")

    def read(self, name: str) -> bytes:
        """The bytes of a file in it.

        Raises:
            DataError: there is none of this name, or it is too large or damaged; says so without its name.
        """
        member = self.members.get(name)
        if member is None:
            raise DataError("is not there")
        if member.size > MAX_BYTES:
            raise DataError(f"is too large: {member.size:,} bytes")
        try:
            if self._is_zip:
                return self._zip.read(self._names[name])
            with open(self.file, "rb") as tar:  # noqa: PTH123, a tenth of Path's time
                tar.seek(member.begin)
                return tar.read(member.size)
        except DAMAGED as error:
            raise DataError(f"can't be read from the archive ({brief(error)})") from None

    @cached_property
    def _names(self) -> dict[str, str]:
        """What the ZIP itself calls its files."""
        return {os.path.normpath(_name(info)): info.filename for info in self._zip.infolist()}

    @cached_property
    def labels(self) -> dict[str, str]:
        """The classes that WebDataset's `.cls` files give, by name up to the first dot."""
        labels: dict[str, str] = {}
        for name in filter(is_label, self.members):
            label = self._read_label(name)
            if labels.setdefault(_key(name), label) != label:
                raise DataError(
                    f"{self.file}/{name} says another class than the file before it for the same images: "
                    "WebDataset's names are told apart by what is before their first dot"
                )
        return labels

    def _read_label(self, name: str) -> str:
        try:
            label = self.read(name).decode("utf-8", "backslashreplace").strip()
        except DataError as error:
            raise DataError(f"{self.file}/{name} {error}; make it anew") from None
        if not label:
            raise DataError(f"{self.file}/{name} is empty; it must hold the class of the image beside it")
        return label

    def label(self, name: str) -> str | None:
        """The class that a `.cls` file gives to a file, if there is one."""
        return self.labels.get(_key(name))


def _name(info: zipfile.ZipInfo) -> str:
    """What a file in a ZIP is called. Many programs write UTF-8 without the flag that says so."""
    if not info.flag_bits & IS_UTF_8:
        with suppress(UnicodeError):
            return info.filename.encode("cp437").decode("utf-8")
    return info.filename


def is_label(name: str) -> bool:
    return name.lower().endswith(LABEL)


@lru_cache(OPEN)
def _remember(archive: Archive) -> Archive:
    """The same archive again, with its list of files, as long as it hasn't changed."""
    return archive


def _key(name: str) -> str:
    folder, base = os.path.split(name)
    return os.path.join(folder, base.partition(".")[0])  # noqa: PTH118


def find(path: Path | str) -> tuple[Archive, str] | None:
    """The archive that a path goes into, and the path within; none if it goes into none."""
    text = os.fspath(path)
    for found in INTO.finditer(text):
        file = text[: found.end() - 1]
        if os.path.isfile(file):  # noqa: PTH113
            return Archive.of(file), text[found.end() :]
    return None


def is_there(path: Path) -> bool:
    """Whether a file is there, in a folder or in an archive.

    Raises:
        PermissionError: nobody may look into its folder.
    """
    try:
        if stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116, a third of Path's time
            return True
    except PermissionError:
        raise
    except (OSError, ValueError):  # a name that no file can have
        pass
    inner = find(path)
    return inner is not None and inner[1] in inner[0].members
