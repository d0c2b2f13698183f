"""What anyone must know to use a classifier."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

Resize = Literal["stretch", "crop", "pad"]  # of an image into a square
Packing = Literal["jpeg", "png", "raw"]  # of a record


@dataclass(frozen=True)
class Contract:
    """Stored in every artifact as JSON.

    Images go in as RGB, upright, transparency on white, fitted into a square of `image_size`
    pixels as `resize` says (bilinear, antialiased), float32 in [0, 1], shape (n, size, size, 3).
    A softmax over `class_names` comes out, shape (n, classes).
    """

    class_names: tuple[str, ...]
    image_size: int
    resize: Resize

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Self:
        """Takes the contract out of a dict that may say more."""
        return cls(tuple(facts["class_names"]), facts["image_size"], facts["resize"])

    def facts(self) -> dict[str, Any]:
        return asdict(self) | {"class_names": list(self.class_names)}

    def text(self) -> str:
        side = self.image_size
        said = {
            "reading": "first frame, upright by EXIF, transparency on white, RGB",
            "resampling": "bilinear, antialiased (Pillow's BILINEAR), on 8 bits a colour",
            "input": {"shape": [None, side, side, 3], "dtype": "float32", "range": [0, 1]},
            "output": "softmax over class_names",
        }
        return json.dumps(self.facts() | said, ensure_ascii=False)
