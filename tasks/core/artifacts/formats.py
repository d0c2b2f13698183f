"""The formats that a classifier can be exported in: one row for each.

To add one, add its name to `Format`, a row here, its writer to `exporter.Exporter` and, where none of the
runtimes reads it, a class to `runtimes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tasks.core.artifacts import runtimes

Format = Literal["saved_model", "h5", "tflite", "tflite_fp16", "tflite_dynamic", "tflite_int8", "onnx"]


@dataclass(frozen=True)
class FormatSpec:
    """One format.

    file: the artifact's name in the folder of the export.
    runtime: what runs it, and recognizes it by its content.
    write: has an `Exporter` write it; that class can't be named here, since its module loads TensorFlow.
    """

    file: str
    runtime: type[runtimes.Runner]
    write: Callable[[Any, Path], None]


# In the order in which two models are compared by them: the fastest of the exact ones first.
FORMATS: dict[Format, FormatSpec] = {
    "onnx": FormatSpec("model.onnx", runtimes.ONNX, lambda exporter, path: exporter.onnx(path)),
    "tflite": FormatSpec("model.tflite", runtimes.TFLite, lambda exporter, path: exporter.tflite(path)),
    "h5": FormatSpec("model.h5", runtimes.HDF5, lambda exporter, path: exporter.hdf5(path)),
    "saved_model": FormatSpec(
        "saved_model", runtimes.SavedModel, lambda exporter, path: exporter.saved_model(path)
    ),
    "tflite_fp16": FormatSpec(
        "model_fp16.tflite", runtimes.TFLite, lambda exporter, path: exporter.tflite(path, "float16")
    ),
    "tflite_dynamic": FormatSpec(
        "model_dynamic.tflite", runtimes.TFLite, lambda exporter, path: exporter.tflite(path, "dynamic")
    ),
    "tflite_int8": FormatSpec(
        "model_int8.tflite", runtimes.TFLite, lambda exporter, path: exporter.tflite(path, "int8")
    ),
}
