"""Where a backbone comes from: built in, an address, or a folder; and the image sizes it takes."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tasks.core.backbones import catalogue
from tasks.core.backbones.catalogue import SAVED_MODEL, UNPINNED
from tasks.core.base import files
from tasks.core.base.errors import BackboneError, ParamError
from tasks.core.base.files import read_json, remove, replacing, write_json
from tasks.core.base.paths import cache_folder, hub_folder

SMALLEST = 64  # pixels, two cells of a built-in one's last feature map; below that it sees too little
LEAST_STEP = 1.5  # from one size to the next
ENLARGED = 4  # times their own side, at most, that images are enlarged to beyond that


@dataclass(frozen=True)
class Facts:
    """What is known of a backbone that is here."""

    sha256: str  # of the SavedModel folder's content
    image_size: int | None  # side in pixels of the only squares it takes
    features: int | None  # numbers that it gives for an image
    is_stochastic: bool  # whether it may draw random numbers of its own in training
    has_endpoints: bool  # whether it gives what its inner layers say, too


@dataclass(frozen=True)
class Listed:
    """A row of the list for people and machines."""

    name: str
    image_size: int
    features: int | None
    cached: bool
    source: str

    @property
    def is_built_in(self) -> bool:
        return catalogue.package(self.name) is not None


def image_sizes(
    name: str, setting: int | Literal["auto"], typical_side: float, sha256: str = UNPINNED
) -> list[int]:
    """Gives the sides, in pixels, of the squares that a backbone may be fed, the smallest first.

    There is one, but with `auto` where images are smaller than what a built-in backbone is made for. These
    may be taken at their size, in steps of 32 and no smaller than 64; twice as large; and so on, up to the
    backbone's size and to four times their own, since more adds time and no information.

    What the model itself says comes before the catalogue, so that one which isn't built in is fetched.

    Args:
        setting: `model.image_size`; a number is taken as it is where the model takes it.
        typical_side: the shorter side of a typical image.
        sha256: `model.sha256`, for a model that is looked at.

    Raises:
        ParamError: the model takes another size alone; or `auto`, and its size is not known.
        BackboneError: the model can't be fetched or read, or is not the one that was pinned.
    """
    catalogue.check(name)
    row = catalogue.entry(name)
    if row and row.package:
        return _up_to(row.size, typical_side) if setting == "auto" else [setting]
    fixed = facts(name, sha256).image_size
    if setting == "auto":
        if size := fixed or (row and row.size):
            return [size]
        raise ParamError(
            f"model.image_size is 'auto', but {name} declares no size of its own, and none is known; "
            "give it in pixels"
        )
    if fixed and setting != fixed:
        raise ParamError(
            f"model.image_size is {setting}, but {name} takes images of {fixed} pixels alone; "
            f"set it to {fixed} or to auto"
        )
    return [setting]


def _up_to(size: int, typical_side: float) -> list[int]:
    largest = min(_step(ENLARGED * typical_side), size)
    sizes = [min(_step(typical_side), size)]
    while sizes[-1] < largest:
        twice = 2 * sizes[-1]
        sizes.append(twice if twice * LEAST_STEP <= largest else largest)
    return sizes


def _step(side: float) -> int:
    return max(-(-int(side) // 32) * 32, SMALLEST)


def locate(name: str, sha256: str = UNPINNED) -> str:
    """Gives the handle that `hub.load` takes, once the model is here: fetched or converted the first time.

    Args:
        sha256: `model.sha256`, the digest that the model must have.

    Raises:
        ParamError: no such backbone.
        BackboneError: it can't be fetched, made or read, or has another digest.
    """
    facts(name, sha256)
    handle = _handle(name)
    return handle if catalogue.is_address(handle) else str(folder(name))


def facts(name: str, sha256: str = UNPINNED) -> Facts:
    """What is known of a backbone, once it is here: fetched or converted the first time.

    For a model in the cache it is noted beside it; a user's own folder is read each time.

    Raises:
        ParamError: no such backbone.
        BackboneError: it can't be fetched, made or read, or has another digest than `sha256`.
    """
    cached = _cache_path(name)
    was_here = cached is None or _is_here(cached)
    place = folder(name)
    found = _read_note(place) if cached else None
    if not found:
        found = _read(place)
        if cached:
            write_json(_note(place), asdict(found) | {"files": _files(place)})
    if sha256 not in (UNPINNED, found.sha256):
        for left in () if was_here else place.parent.glob(f"{place.name}*"):
            remove(left)
        raise BackboneError(
            f"model.sha256 is {sha256}, but {name} has {found.sha256}; "
            + ("" if was_here else "it was removed again: ")
            + "set model.sha256 to that only if it is the model that you mean"
        )
    return found


def folder(name: str) -> Path:
    """Gives the folder that holds a backbone's SavedModel, which is fetched or converted the first time.

    Raises:
        ParamError: no such backbone.
        BackboneError: it can't be fetched or made.
    """
    catalogue.check(name)
    place = _cache_path(name)
    if not place:
        return Path(name)
    if not _is_here(place):
        if catalogue.package(name):
            with replacing(place) as temporary:
                _convert(name, temporary)
        else:
            # Here, as it brings TensorFlow along, seconds that a model in the cache saves.
            from tasks.core.backbones import download

            download.download(_handle(name))
    return place


def list_backbones() -> Iterator[Listed]:
    """The catalogue, with what can be said of each without the network and without TensorFlow."""
    for row in catalogue.catalogue().values():
        place = _cache_path(row.name)
        here = place is not None and _is_here(place)
        found = _read_note(place) if place else None
        source = f"built in, {row.package}" if row.package else row.handle
        yield Listed(row.name, row.size, found.features if found else None, here, source)


def _handle(name: str) -> str:
    """The address or the folder that a name stands for."""
    row = catalogue.entry(name)
    return row.handle if row else name


def _cache_path(name: str) -> Path | None:
    """Where in the cache a backbone lies, or will; none for a folder of the user's."""
    if catalogue.package(name):
        # Named after the converter's own text, so that a changed converter is not served old results.
        version = files.sha256(Path(__file__).with_name("efficientnet_lite.py"))[:12]
        return cache_folder() / f"{name}-{version}"
    handle = _handle(name)
    return hub_folder(handle) if catalogue.is_address(handle) else None


def _is_here(place: Path) -> bool:
    return (place / SAVED_MODEL).is_file()


def _note(place: Path) -> Path:
    return place.with_name(f"{place.name}.json")


def _read_note(place: Path) -> Facts | None:
    """What was noted beside a model; none where it was not, or where its files are others by now."""
    try:
        note = read_json(_note(place))
        return Facts(**note) if note.pop("files") == _files(place) else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _files(place: Path) -> list[list[Any]]:
    """Name, size and time of change of each file of a model, which tell whether it is still the same."""
    found = ((file, file.stat()) for file in sorted(place.rglob("*")) if file.is_file())
    return [[file.relative_to(place).as_posix(), stat.st_size, stat.st_mtime_ns] for file, stat in found]


def _read(place: Path) -> Facts:
    from tasks.core.backbones import saved_model  # brings TensorFlow along

    try:
        declared = saved_model.inspect(place)
    except ValueError as error:
        raise BackboneError(f"model.backbone: {place} can't be loaded: {error}; fetch it again") from None
    return Facts(sha256=files.sha256(place), **asdict(declared))


def _convert(name: str, folder: Path) -> None:
    """Converts in a process of its own: the names in a SavedModel depend on what a process did before."""
    words = [sys.executable, "-m", "tasks.core.backbones.efficientnet_lite", name, str(folder)]
    done = subprocess.run(words, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BackboneError(f"model.backbone: {name} can't be made from its weights ({last})")
