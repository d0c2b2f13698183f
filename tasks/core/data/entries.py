"""An image as folders or a labels file name it, and what such names may be."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from tasks.core.base.errors import DataError

HINTS = (  # what people call the splits, in lower case
    dict.fromkeys(("train", "training"), "train")
    | dict.fromkeys(("validation", "val", "valid", "dev"), "validation")
    | dict.fromkeys(("test", "testing"), "test")
)
# Characters of no width that are no part of a letter, for `str.translate` to remove.
UNSEEN = dict.fromkeys((0x200B, 0x2060, 0xFEFF, 0x00AD, 0x200E, 0x200F))
BREAKING = ("Cc", "Zl", "Zp")  # categories of Unicode: what ends a line, or does something else but show
# Bidirectional classes of Unicode: what has the text after it shown in another order.
REORDERING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


@dataclass(frozen=True, slots=True)
class Entry:
    """An image as the folders or the labels file name it, not yet opened."""

    path: str  # from the images' folder, with slashes
    label: str
    group: str | None
    split_hint: str | None


def check_names(classes: Iterable[str]) -> None:
    """Refuses classes that nobody can tell from one another, and those that are more than one line."""
    known: dict[str, str] = {}
    for label in sorted(classes):
        if any(
            unicodedata.category(character) in BREAKING or unicodedata.bidirectional(character) in REORDERING
            for character in label
        ):
            raise DataError(f"the class {label!a} holds a line end or another control character; take it out")
        twin = known.setdefault(appearance(label), label)
        if twin != label:
            raise DataError(
                f"the classes {twin!a} and {label!a} look alike, but for blanks or for how Unicode "
                "writes a letter; give them one name"
            )


def appearance(text: str) -> str:
    """What is seen of a text: its letters, each composed in one way, and single blanks between words."""
    return " ".join(unicodedata.normalize("NFC", text.translate(UNSEEN)).split())
