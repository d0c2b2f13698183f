"""What a revision ships is what passed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.core.base.errors import DataError, Rejected
from tasks.core.base.files import sha256
from tasks.core.base.paths import EXPORT
from tasks.core.release.shipped import Shipped


def revision(**artifacts: dict[str, Any]) -> Any:
    facts = {"gates": [], "artifacts": artifacts}
    return SimpleNamespace(name="classifier@v1.0.0", json=lambda _path: facts)


ONNX = {"file": "model.onnx", "sha256": "1", "passed": True, "required": False, "why": "it meets all"}
INT8 = {"file": "model_int8.tflite", "passed": False, "required": False, "why": "it agrees too little"}


def test_an_artifact_that_was_left_out_is_neither_fetched_nor_probed_but_named() -> None:
    shipped = Shipped.gated(revision(onnx=ONNX, tflite_int8=INT8))
    assert shipped.digests() == {"model.onnx": "1"}
    assert shipped.quickest() == ONNX
    assert shipped.left_out == ["left out: it agrees too little (export.rules)"]


@pytest.mark.parametrize(
    "artifacts", [{}, {"tflite_int8": INT8}, {"onnx": ONNX, "tflite_int8": INT8 | {"required": True}}]
)
def test_without_artifacts_or_without_a_required_one_it_was_rejected(artifacts: Any) -> None:
    with pytest.raises(Rejected, match=r"classifier@v1\.0\.0 was rejected"):
        Shipped.gated(revision(**artifacts))


def test_an_artifact_is_fetched_once_and_again_where_it_is_damaged(tmp_path: Path) -> None:
    (tmp_path / EXPORT).mkdir()
    (place := tmp_path / EXPORT / "model.onnx").write_text("sound")
    gives = ["sound", "damaged"]
    source = revision(onnx=ONNX | {"sha256": sha256(place)})
    source.fetch = lambda path, folder: (folder / path).write_text(gives.pop(0))
    shipped = Shipped.gated(source)
    assert shipped.fetch_artifact(shipped.artifacts["onnx"], tmp_path) == place
    assert len(gives) == 2, "it is there"
    place.write_text("cut short")
    shipped.fetch_artifact(shipped.artifacts["onnx"], tmp_path)
    assert place.read_text() == "sound"
    place.unlink()
    with pytest.raises(DataError, match=r"model\.onnx of classifier@v1\.0\.0 is not the one"):
        shipped.fetch_artifact(shipped.artifacts["onnx"], tmp_path)
