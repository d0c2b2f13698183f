"""SavedModels as files."""

from __future__ import annotations

from pathlib import Path

import tasks.core.runtime  # noqa: F401, sets up TensorFlow, which the import below would load bare


def settle_fingerprint(folder: Path) -> None:
    """Replaces the random id in a SavedModel's fingerprint by one that hangs on its content."""
    from tensorflow.core.protobuf import fingerprint_pb2

    path = folder / "fingerprint.pb"
    fingerprint = fingerprint_pb2.FingerprintDef.FromString(path.read_bytes())
    fingerprint.uuid = str(fingerprint.saved_model_checksum)
    path.write_bytes(fingerprint.SerializeToString(deterministic=True))
