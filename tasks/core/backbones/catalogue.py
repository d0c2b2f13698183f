"""What `model.backbone` may say: a name of the catalogue, an address, or a folder."""

import csv
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from tasks.core.base.errors import ParamError

BUILT_IN = "efficientnet_lite0"  # of those that come with the installation, the one that is the default
CATALOGUE = Path(__file__).with_name("catalogue.tsv")
PACKAGE = "package:"  # in the place of an address: an installed package holds the weights
SAVED_MODEL = "saved_model.pb"  # what makes a folder a SavedModel
UNPINNED = "none"  # the model.sha256 that takes any content


@dataclass(frozen=True)
class Entry:
    """A row of the catalogue: a name, the side of its images in pixels, and where it comes from."""

    name: str
    size: int
    handle: str

    @property
    def package(self) -> str | None:
        """The package that holds the weights of one that is built in."""
        return self.handle.removeprefix(PACKAGE) if self.handle.startswith(PACKAGE) else None


@cache
def catalogue() -> dict[str, Entry]:
    """Every backbone that has a name, in the order of the table."""
    with CATALOGUE.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        return {row["name"]: Entry(row["name"], int(row["size"]), row["handle"]) for row in rows}


def entry(name: str) -> Entry | None:
    """Finds the catalogue's row by its name or by its address; none for other addresses and folders."""
    return catalogue().get(name) or next((row for row in catalogue().values() if row.handle == name), None)


def package(name: str) -> str | None:
    """The package that holds a built-in backbone's weights; none for one that is not built in."""
    row = catalogue().get(name)
    return row.package if row else None


def check(name: str, given: str = "model.backbone") -> None:
    """Refuses a name that can't be a backbone.

    Args:
        given: where the name came from, for the message.

    Raises:
        ParamError: says what it may be, and which names are near it.
    """
    if name in catalogue() or is_address(name) or (Path(name) / SAVED_MODEL).is_file():
        return
    near = get_close_matches(name, catalogue())
    raise ParamError(
        f"{given} is {name!r}; it must be {BUILT_IN} or another name that `python -m tasks.backbones` "
        "lists, the URL of a TF Hub or Kaggle feature vector, or a folder that holds a SavedModel"
        + (f"; did you mean {' or '.join(near)}?" if near else "")
    )


def is_address(name: str) -> bool:
    return name.startswith(("https://", "http://"))
