"""The latencies in export/export.json are those of the artifacts beside it."""

from pathlib import Path
from typing import Any

import pytest

from tasks import latency
from tasks.core.artifacts import isolation
from tasks.core.base.files import write_json
from tasks.core.base.paths import ARTIFACT_FACTS, EXPORT, TIMED_ARTIFACTS


def test_what_a_checkout_leaves_of_another_model_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC doesn't know of the file; its digests, and what was asked of an artifact, were those of another."""
    monkeypatch.chdir(tmp_path)
    assert latency.check() == 1, "where there is none"
    onnx: dict[str, Any] = {"sha256": "a" * 64, "passed": True}
    artifacts = {"onnx": onnx, "h5": {"error": "model.h5 can't be written"}}
    facts = {"exported": True, "artifacts": artifacts}
    times = dict.fromkeys(isolation.UNTIMED, 1.5)
    write_json(EXPORT / ARTIFACT_FACTS, facts)
    write_json(
        TIMED_ARTIFACTS, facts | {"artifacts": {kind: fact | times for kind, fact in artifacts.items()}}
    )
    assert latency.check() == 0
    for change in ({"sha256": "b" * 64}, {"passed": False}):
        write_json(EXPORT / ARTIFACT_FACTS, facts | {"artifacts": artifacts | {"onnx": onnx | change}})
        assert latency.check() == 1
