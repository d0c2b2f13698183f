"""What `model.backbone` may say: a built-in name, an address, or a folder."""

from __future__ import annotations

from pathlib import Path

from tasks.core.errors import ParamError

BUILT_IN = "efficientnet_lite0"


def check(name: str) -> None:
    """Refuses a name that can't be a backbone.

    Raises:
        ParamError: says what it may be.
    """
    if name != BUILT_IN and not is_address(name) and not (Path(name) / "saved_model.pb").is_file():
        raise ParamError(
            f"model.backbone is {name!r}; it must be {BUILT_IN}, the URL of a TF Hub or Kaggle "
            "feature vector, or a folder that holds a SavedModel"
        )


def is_address(name: str) -> bool:
    return name.startswith(("https://", "http://"))
