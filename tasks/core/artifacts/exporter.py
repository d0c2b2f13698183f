"""Writing one classifier in every format, with class names and preprocessing inside each."""

import math
import tempfile
import zipfile
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import onnx

from tasks.core.artifacts import bias_correction, decode_graph, onnx_graph
from tasks.core.artifacts.formats import FORMATS, Format
from tasks.core.backbones import catalogue, efficientnet_lite, pooling
from tasks.core.backbones.saved_model import canonicalize_fingerprint
from tasks.core.backbones.tensorflow_setup import keras, tf
from tasks.core.base import console
from tasks.core.base.arrays import Array
from tasks.core.base.contract import Contract
from tasks.core.base.files import write_text
from tasks.core.base.paths import CONTRACT

OPSET = 18
BATCH = 32
CORRECTED_BY = 100  # images at most; the mean of their logits' noise is then known to a tenth of it


class Exporter:
    """Writes one classifier in any format.

    Args:
        model: from images to logits.
        backbone: its name.
        images: float32 (n, size, size, 3), for measuring the ranges of int8, and what 8 bits move logits by.
    """

    def __init__(self, model: Any, contract: Contract, backbone: str, images: Array) -> None:
        self.model, self.contract, self.backbone, self.images = model, contract, backbone, images
        side = contract.image_size
        self.spec = [tf.TensorSpec((None, side, side, 3), tf.float32, "image")]

        @tf.function(input_signature=self.spec)
        def serve(image: Any) -> dict[str, Any]:
            logits = model(image, training=False)
            return {"probabilities": tf.nn.softmax(logits, name="probabilities")}

        @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, "encoded")])
        def serve_bytes(encoded: Any) -> dict[str, Any]:
            return dict(serve(decode_graph.images(encoded, contract)))

        self.serve, self.serve_bytes = serve, serve_bytes

    def write(self, kind: Format, path: Path) -> None:
        """Writes the artifact of this format."""
        FORMATS[kind].write(self, path)

    def saved_model(self, path: Path) -> None:
        """Writes a TF2 SavedModel; in `assets.extra` TF Serving keeps what else a model brings along."""
        module = tf.Module()
        module.model, module.serve, module.serve_bytes = self.model, self.serve, self.serve_bytes
        signatures = {"serving_default": self.serve, "serving_bytes": self.serve_bytes}
        with tempfile.TemporaryDirectory() as folder:
            names = Path(folder) / "labels.txt"
            write_text(names, lines(self.contract.class_names))
            module.labels = tf.saved_model.Asset(str(names))
            tf.saved_model.save(module, str(path), signatures=signatures)
        write_text(path / "assets.extra" / CONTRACT, self.contract.text() + "\n")
        canonicalize_fingerprint(path)

    def hdf5(self, path: Path) -> None:
        """Writes a Keras file. The built-in backbone is in it whole; others stay a TF Hub layer."""
        layer = self.model.get_layer("backbone")
        if catalogue.package(self.backbone):
            trained = [variable.numpy() for variable in layer.resolved_object.variables]
            layer = efficientnet_lite.build(self.backbone)
            if any(other.name == pooling.NAME for other in self.model.layers):
                layer = efficientnet_lite.with_endpoints(layer)
            layer.set_weights(trained)
        side = self.contract.image_size
        images = keras.Input((side, side, 3), name="image")
        logits = self.model.get_layer("head")(pooling.pool(layer(images)))
        model = keras.Model(images, keras.layers.Softmax(name="probabilities")(logits), name="classifier")
        with h5py.File(path, "w") as file:  # opened once: what is being started may hold its lock
            with console.quiet():  # Keras would rather have its own format
                model.save(file, save_format="h5", include_optimizer=False)
            file.attrs["classifier"] = self.contract.text()

    def tflite(self, path: Path, quantization: Literal["dynamic", "float16", "int8"] | None = None) -> None:
        """Writes a TFLite file; int8 has int8 weights and activations, and float32 in and out."""
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [self.serve.get_concrete_function()], self.model
        )
        if quantization:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantization == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if quantization == "int8":
            converter.representative_dataset = lambda: ({"image": one[None]} for one in self.images)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        with console.quiet():
            content = converter.convert()
        if quantization in ("dynamic", "int8"):
            content = bias_correction.correct(content, *self._some_logits)
        path.write_bytes(content)
        carried = {CONTRACT: self.contract.text() + "\n", "labels.txt": lines(self.contract.class_names)}
        with zipfile.ZipFile(path, "a") as extra:  # appended, as TFLite files carry other files
            for name, text in carried.items():
                extra.writestr(zipfile.ZipInfo(name), text)  # of 1980, whenever it is written

    @cached_property
    def _some_logits(self) -> tuple[Array, Array]:
        """Some of the images, and what the model says of them."""
        some = self.images[:: math.ceil(len(self.images) / CORRECTED_BY)]
        parts = (some[start : start + BATCH] for start in range(0, len(some), BATCH))
        return some, np.concatenate([self.model(part, training=False).numpy() for part in parts])

    def onnx(self, path: Path) -> None:
        """Writes an ONNX file: input `image` with a free batch size, output `probabilities`."""
        import tf2onnx  # brings TensorFlow along, which `tensorflow_setup` must load first

        model, _ = tf2onnx.convert.from_function(self.serve, self.spec, opset=OPSET)
        onnx_graph.canonicalize(model)
        names = "\n".join(self.contract.class_names)
        onnx.helper.set_model_props(model, {"classifier": self.contract.text(), "class_names": names})
        onnx.checker.check_model(model, full_check=True)
        path.write_bytes(model.SerializeToString(deterministic=True))


def lines(names: tuple[str, ...]) -> str:
    return "".join(f"{name}\n" for name in names)
