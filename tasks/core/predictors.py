"""Any exported artifact as one thing: pictures in, probabilities out, by its own runtime."""

from __future__ import annotations

import os
import zipfile
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tasks.core.cli import quiet
from tasks.core.contract import Contract
from tasks.core.errors import ModelError

Probabilities = npt.NDArray[np.float32]


class Predictor(ABC):
    """A loaded artifact."""

    contract: Contract

    @abstractmethod
    def __init__(self, path: Path) -> None:
        """Opens the file or folder."""

    @abstractmethod
    def predict(self, images: npt.NDArray[np.float32]) -> Probabilities:
        """Gives (n, classes) for pictures of (n, size, size, 3) in [0, 1]."""


class SavedModel(Predictor):
    """A TensorFlow SavedModel, through its default signature."""

    def __init__(self, path: Path) -> None:
        from tasks.core.runtime import tf

        self.contract = Contract.parse((path / "assets.extra" / "classifier.json").read_text("utf-8"))
        self.model = tf.saved_model.load(str(path))  # the signature lives as long as its model
        self.signature = self.model.signatures["serving_default"]
        self.tensor = tf.constant

    def predict(self, images: npt.NDArray[np.float32]) -> Probabilities:
        answer: Probabilities = self.signature(image=self.tensor(images))["probabilities"].numpy()
        return answer


class HDF5(Predictor):
    """A Keras HDF5 file."""

    def __init__(self, path: Path) -> None:
        import h5py

        from tasks.core.runtime import hub, keras, tf

        with h5py.File(path) as file:
            self.contract = Contract.parse(file.attrs["classifier"])
        model = keras.models.load_model(path, {"KerasLayer": hub.KerasLayer}, compile=False)
        self.infer = tf.function(lambda images: model(images, training=False))

    def predict(self, images: npt.NDArray[np.float32]) -> Probabilities:
        answer: Probabilities = self.infer(images).numpy()
        return answer


class TFLite(Predictor):
    """A TFLite file, by LiteRT on at most two threads."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with zipfile.ZipFile(path) as extra:
            self.contract = Contract.parse(extra.read("classifier.json").decode())
        with quiet():
            self.interpreter = Interpreter(str(path), num_threads=min(2, os.cpu_count() or 1))
            self.signature = self.interpreter.get_signature_runner("serving_default")
            side = self.contract.image_size
            self.predict(np.zeros((1, side, side, 3), np.float32))  # the first run talks

    def predict(self, images: npt.NDArray[np.float32]) -> Probabilities:
        answers = [self.signature(image=image[None])["probabilities"] for image in images]
        return np.concatenate(answers)


class ONNX(Predictor):
    """An ONNX file, by onnxruntime on the CPU."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = min(2, os.cpu_count() or 1)
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.contract = Contract.parse(self.session.get_modelmeta().custom_metadata_map["classifier"])

    def predict(self, images: npt.NDArray[np.float32]) -> Probabilities:
        answer: Probabilities = self.session.run(["probabilities"], {"image": images})[0]
        return answer


def load(path: Path) -> Predictor:
    """Opens an artifact of any format, told apart by what is in it and not by its name.

    Raises:
        ModelError: not there, of no known format, or broken.
    """
    kind = _kind(path)
    try:
        return kind(path)
    except (Exception, SystemExit) as error:  # each runtime has exceptions of its own
        text = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ModelError(
            f"{path} can't be loaded as {kind.__name__} ({text}); give one of the artifacts of export/"
        ) from None


def _kind(path: Path) -> type[Predictor]:
    if (path / "saved_model.pb").is_file():
        return SavedModel
    if not path.is_file():
        raise ModelError(f"{path} is not there, or is no SavedModel; `dvc repro` makes export/")
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"\x89HDF"):
        return HDF5
    if head[4:] == b"TFL3":
        return TFLite
    return ONNX  # protocol buffers have no mark of their own
