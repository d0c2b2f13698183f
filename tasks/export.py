"""Stage `export`: turns a model whose gates passed into files for every runtime, and tries each.

Nothing is exported of a model that a gate rejected: `export/artifacts.json` then says so alone.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx

from tasks.core import classifier, cli, efficientnet_lite, handles, onnx_graph, params, predictors, runtime
from tasks.core.contract import Contract
from tasks.core.metrics import Array
from tasks.core.paths import DATASET, EXPORT, GATES, MODELS
from tasks.core.records import Dataset
from tasks.core.runtime import keras, tf
from tasks.core.saved_model import settle_fingerprint
from tasks.core.serialize import read_json, remove, replacing, sha256, size, write_json, write_text

FILES = {
    "saved_model": "saved_model",
    "h5": "model.h5",
    "tflite": "model.tflite",
    "tflite_fp16": "model_fp16.tflite",
    "tflite_dynamic": "model_dynamic.tflite",
    "tflite_int8": "model_int8.tflite",
    "onnx": "model.onnx",
}
OPSET = 18
BATCH = 64


class Exporter:
    """Writes one classifier in any format; the pictures are for measuring the ranges of int8."""

    def __init__(self, model: Any, contract: Contract, backbone: str, pictures: Array) -> None:
        self.model, self.contract, self.backbone, self.pictures = model, contract, backbone, pictures
        spec = tf.TensorSpec((None, contract.image_size, contract.image_size, 3), tf.float32, "image")
        self.spec = [spec]

        @tf.function(input_signature=self.spec)
        def serve(image: Any) -> dict[str, Any]:
            logits = model(image, training=False)
            return {"probabilities": tf.nn.softmax(logits, name="probabilities")}

        self.serve = serve

    def write(self, kind: params.Format, path: Path) -> None:
        """Writes the artifact of this format, with class names and preprocessing inside."""
        writers: dict[str, Callable[[Path], None]] = {
            "saved_model": self.saved_model,
            "h5": self.hdf5,
            "onnx": self.onnx,
        }
        if kind in writers:
            writers[kind](path)
        else:
            self.tflite(path, kind)

    def saved_model(self, path: Path) -> None:
        """Writes a TF2 SavedModel; `assets.extra` is where TF Serving keeps what a model brings along."""
        module = tf.Module()
        module.model, module.serve = self.model, self.serve
        tf.saved_model.save(module, str(path), signatures={"serving_default": self.serve})
        extra = path / "assets.extra"
        write_text(extra / "classifier.json", self.contract.text() + "\n")
        write_text(extra / "labels.txt", _lines(self.contract.class_names))
        settle_fingerprint(path)

    def hdf5(self, path: Path) -> None:
        """Writes a Keras file. The built-in backbone is in it whole; others stay a TF Hub layer."""
        layer = self.model.get_layer("backbone")
        if handles.package(self.backbone):
            trained = [variable.numpy() for variable in layer.resolved_object.variables]
            layer = efficientnet_lite.built_in(self.backbone)
            layer.set_weights(trained)
        side = self.contract.image_size
        pictures = keras.Input((side, side, 3), name="image")
        head = self.model.get_layer("head")
        logits = head(layer(pictures))
        model = keras.Model(pictures, keras.layers.Softmax(name="probabilities")(logits), name="classifier")
        with cli.quiet():  # Keras would rather have its own format
            model.save(path, save_format="h5", include_optimizer=False)
        with h5py.File(path, "a") as file:
            file.attrs["classifier"] = self.contract.text()

    def tflite(self, path: Path, kind: str) -> None:
        """Writes a TFLite file; int8 has int8 weights and activations, and float32 in and out."""
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [self.serve.get_concrete_function()], self.model
        )
        if kind != "tflite":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if kind == "tflite_fp16":
            converter.target_spec.supported_types = [tf.float16]
        if kind == "tflite_int8":
            converter.representative_dataset = self._representative
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        with cli.quiet():
            content = converter.convert()
        path.write_bytes(content)
        self._attach(path)

    def _representative(self) -> Iterator[dict[str, Array]]:
        for picture in self.pictures:
            yield {"image": picture[None]}

    def _attach(self, path: Path) -> None:
        """Appends a zip with the labels, which is how TFLite files carry other files."""
        with zipfile.ZipFile(path, "a") as extra:
            for name, text in (
                ("classifier.json", self.contract.text() + "\n"),
                ("labels.txt", _lines(self.contract.class_names)),
            ):
                extra.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), text)

    def onnx(self, path: Path) -> None:
        """Writes an ONNX file: input `image` with a free batch size, output `probabilities`."""
        import tf2onnx  # brings TensorFlow along, which `runtime` must load first

        model, _ = tf2onnx.convert.from_function(self.serve, self.spec, opset=OPSET)
        onnx_graph.settle(model)
        for key, value in (
            ("classifier", self.contract.text()),
            ("class_names", "\n".join(self.contract.class_names)),
        ):
            model.metadata_props.add(key=key, value=value)
        onnx.checker.check_model(model)
        path.write_bytes(model.SerializeToString(deterministic=True))


def _lines(names: tuple[str, ...]) -> str:
    return "".join(f"{name}\n" for name in names)


def representative(data: Dataset, count: int) -> Array:
    """Takes up to `count` pictures of the training split."""
    batch = next(iter(data.read("train", count, count)))
    pictures: Array = classifier.to_float(batch["image"]).numpy()
    return pictures


def test_pictures(data: Dataset) -> tuple[Array, Array]:
    """The test split's pictures as float32 in [0, 1], and the places of their classes."""
    batches = list(data.read("test", BATCH))
    pictures = np.concatenate([classifier.to_float(batch["image"]).numpy() for batch in batches])
    return pictures, np.concatenate([batch["label"].numpy() for batch in batches])


def prove(
    path: Path, pictures: Array, labels: Array, expected: Array, min_agreement: float
) -> dict[str, Any]:
    """Runs an artifact as its user will and compares it with the trained model.

    Args:
        expected: the trained model's probabilities of `pictures`.

    Returns:
        Its facts for `artifacts.json`.
    """
    predictor = predictors.load(path)
    chunks = (pictures[start : start + BATCH] for start in range(0, len(pictures), BATCH))
    answer = np.concatenate([predictor.predict(chunk) for chunk in chunks])
    agreement = float(np.mean(answer.argmax(axis=1) == expected.argmax(axis=1)))
    passed = agreement >= min_agreement
    return {
        "file": path.name,
        "bytes": size(path),
        "sha256": sha256(path),
        "agreement": round(agreement, 6),
        "max_probability_difference": round(float(np.abs(answer - expected).max()), 6),
        "accuracy": round(float(np.mean(answer.argmax(axis=1) == labels)), 6),
        "passed": passed,
        "why": f"{path.name} agrees with the trained model on {agreement:.4f} of the test split, "
        f"which {'is' if passed else 'is not'} at least {min_agreement:g}",
    }


def export(models: Path, dataset: Path, folder: Path, p: params.Export) -> dict[str, Any]:
    """Writes and proves each format into `folder`; one that fails is not left there."""
    model, contract = classifier.load(models)
    data = Dataset.load(dataset)
    pictures, labels = test_pictures(data)
    backbone = read_json(models / classifier.FACTS)["backbone"]
    exporter = Exporter(model, contract, backbone, representative(data, p.representative))
    expected = tf.nn.softmax(model.predict(pictures, BATCH, verbose=0)).numpy()
    artifacts: dict[str, Any] = {}
    for kind in p.formats:
        path = folder / FILES[kind]
        exporter.write(kind, path)
        artifacts[kind] = fact = prove(path, pictures, labels, expected, p.min_agreement)
        end = "" if fact["passed"] else ", left out"
        cli.say(f"export: {path.name}, {fact['bytes'] / 1e6:.1f} MB, agreement {fact['agreement']:.4f}{end}")
        if not fact["passed"]:
            remove(path)
    write_text(folder / "labels.txt", _lines(contract.class_names))
    return artifacts


def main() -> None:
    p = params.load()
    verdict = read_json(GATES)
    with replacing(EXPORT) as folder:
        folder.mkdir()
        artifacts: dict[str, Any] = {}
        if verdict["passed"]:
            runtime.deterministic(0)
            artifacts = export(MODELS, DATASET, folder, p.export)
        else:
            cli.say(
                "export: nothing, since a gate said no; what was exported before is in DVC's cache, "
                "and comes back with that run's parameters and pictures"
            )
        write_json(folder / "artifacts.json", {"exported": verdict["passed"], "artifacts": artifacts})


if __name__ == "__main__":
    cli.stage(main)
