"""What a revision ships is what passed."""

from types import SimpleNamespace
from typing import Any

import pytest

from tasks.core.base.errors import Rejected
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
