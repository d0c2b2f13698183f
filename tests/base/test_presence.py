"""What git or DVC has yet to bring is told from what is broken."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.core.backbones import saved_model
from tasks.core.base import params
from tasks.core.base.errors import DarkroomError
from tasks.core.base.params import Data
from tasks.core.data import image_io, labels_file
from tasks.core.data.archives import Archive
from tasks.core.inference.predictor import load_predictor

READERS: dict[str, Callable[[Path], Any]] = {
    "image.jpg": lambda file: image_io.read(file, 32, "stretch"),
    "images.tar": lambda file: Archive.of(str(file)).members,
    "images.zip": lambda file: Archive.of(str(file)).members,
    "labels.csv": labels_file.own_columns,
    "labels.parquet": labels_file.own_columns,
    "model.onnx": load_predictor,
    "saved_model/saved_model.pb": lambda file: load_predictor(file.parent),
    "params.yaml": lambda file: params.read(file, Data),
    "saved_model.pb": lambda file: saved_model.inspect(file.parent),
}


@pytest.mark.parametrize("name", READERS)
def test_a_pointer_of_git_lfs_says_what_brings_the_file(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n")
    with pytest.raises((DarkroomError, ValueError), match="is a pointer of Git LFS; `git lfs pull`"):
        READERS[name](file)
