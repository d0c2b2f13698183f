"""The formats that a classifier can be exported in: one row for each.

To add one, add its name to `Format`, a row here, its writer to `exporter.Exporter` and, where none of the
runtimes reads it, a class and its mark to `runtimes`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tasks.core.artifacts.runtimes import HDF5, ONNX, Runner, SavedModel, TFLite

Format = Literal["saved_model", "h5", "tflite", "tflite_fp16", "tflite_dynamic", "tflite_int8", "onnx"]


@dataclass(frozen=True)
class FormatSpec:
    """One format.

    file: the artifact's name in the folder of the export.
    runtime: what runs it.
    write: has an `Exporter` write it; that class can't be named here, since its module loads TensorFlow.
    """

    file: str
    runtime: type[Runner]
    write: Callable[[Any, Path], None]


# In the order in which two models are compared by them: the fastest of the exact ones first.
FORMATS: dict[Format, FormatSpec] = {
    "onnx": FormatSpec("model.onnx", ONNX, lambda to, path: to.onnx(path)),
    "tflite": FormatSpec("model.tflite", TFLite, lambda to, path: to.tflite(path)),
    "h5": FormatSpec("model.h5", HDF5, lambda to, path: to.hdf5(path)),
    "saved_model": FormatSpec("saved_model", SavedModel, lambda to, path: to.saved_model(path)),
    "tflite_fp16": FormatSpec("model_fp16.tflite", TFLite, lambda to, path: to.tflite(path, "float16")),
    "tflite_dynamic": FormatSpec("model_dynamic.tflite", TFLite, lambda to, path: to.tflite(path, "dynamic")),
    "tflite_int8": FormatSpec("model_int8.tflite", TFLite, lambda to, path: to.tflite(path, "int8")),
}
