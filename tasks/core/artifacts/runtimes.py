"""Runs an exported artifact by its own runtime, with nothing of this project around it.

It is a script too. `python -I` runs it where the project can't be imported, so that what is proved there
holds for whoever has the artifact and its runtime:

  python -I runtimes.py predict ARTIFACT IMAGES.npy GOLDEN ANSWERS.npz
  python -I runtimes.py time ARTIFACT
  python -I runtimes.py probe ARTIFACT GOLDEN ANSWERS.npz

`predict` answers to images of uint8 (n, size, size, 3), and to the encoded ones in the folder GOLDEN, which
it reads as the artifact's own contract says. `time` prints the median latencies in milliseconds and the peak
memory in bytes, as JSON. `probe` does both in short: the images in GOLDEN, if there are any, and a while of
load.
"""

import json
import math
import os
import resource
import statistics
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.float32]  # (n, size, size, 3) in [0, 1]
Probabilities = npt.NDArray[np.float32]  # (n, classes)

CONTRACT = "classifier.json"  # the name within an artifact, as `paths.CONTRACT`
THREADS = min(2, os.cpu_count() or 1)
BATCH = 32
WARM_UP, RUNS = 5, 50  # of one image; of a batch a fifth of both
SHORT = 5.0  # seconds that a probe's load takes at most, of one image and of a batch each


class SavedModel:
    """A TensorFlow SavedModel, through its signatures."""

    def __init__(self, path: Path) -> None:
        import tensorflow as tf

        self.contract = json.loads((path / "assets.extra" / CONTRACT).read_text("utf-8"))
        self.model = tf.saved_model.load(str(path))  # the signatures live as long as their model
        self.tensor = tf.constant

    def predict(self, images: Images) -> Probabilities:
        return self._answer("serving_default", image=self.tensor(images))

    def predict_encoded(self, images: list[bytes]) -> Probabilities:
        return self._answer("serving_bytes", encoded=self.tensor(images))

    def _answer(self, signature: str, **inputs: Any) -> Probabilities:
        answer: Probabilities = self.model.signatures[signature](**inputs)["probabilities"].numpy()
        return answer


class HDF5:
    """A Keras 2 HDF5 file."""

    def __init__(self, path: Path) -> None:
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
        import h5py
        import tensorflow as tf
        import tensorflow_hub as hub
        import tf_keras as keras

        with h5py.File(path) as file:
            self.contract = json.loads(file.attrs["classifier"])
        model = keras.models.load_model(path, {"KerasLayer": hub.KerasLayer}, compile=False)
        self.infer = tf.function(lambda images: model(images, training=False))

    def predict(self, images: Images) -> Probabilities:
        answer: Probabilities = self.infer(images).numpy()
        return answer


class TFLite:
    """A TFLite file, by LiteRT."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with zipfile.ZipFile(path) as extra:
            self.contract = json.loads(extra.read(CONTRACT))
        self.interpreter = Interpreter(str(path), num_threads=THREADS)
        (image,) = self.interpreter.get_input_details()
        (probabilities,) = self.interpreter.get_output_details()
        self.image, self.probabilities = image["index"], probabilities["index"]
        self.batch = 0
        side = self.contract["image_size"]
        self.predict(np.zeros((1, side, side, 3), np.float32))  # the first run talks

    def predict(self, images: Images) -> Probabilities:
        if len(images) != self.batch:
            self.interpreter.resize_tensor_input(self.image, images.shape)
            self.interpreter.allocate_tensors()
            self.batch = len(images)
        self.interpreter.set_tensor(self.image, images)
        self.interpreter.invoke()
        answer: Probabilities = self.interpreter.get_tensor(self.probabilities)
        return answer


class ONNX:
    """An ONNX file, by onnxruntime on the CPU."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = THREADS
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.contract = json.loads(self.session.get_modelmeta().custom_metadata_map["classifier"])

    def predict(self, images: Images) -> Probabilities:
        answer: Probabilities = self.session.run(["probabilities"], {"image": images})[0]
        return answer


Runner = SavedModel | HDF5 | TFLite | ONNX
NEED_TENSORFLOW: tuple[type[Runner], ...] = (SavedModel, HDF5)
MAGIC_BYTES: dict[type[Runner], tuple[int, bytes]] = {  # by which a file is known, and their place
    HDF5: (0, b"\x89HDF"),
    TFLite: (4, b"TFL3"),
    ONNX: (0, b"\x08"),  # protocol buffers have no mark of their own, but begin with the version's tag
}


def detect(path: Path) -> type[Runner]:
    """Recognizes an artifact's format by its content and not by its name.

    Raises:
        FileNotFoundError: there is no file, and no SavedModel.
        ValueError: it is none of the formats.
    """
    if (path / "saved_model.pb").is_file():
        return SavedModel
    if not path.is_file():
        raise FileNotFoundError(path)
    with path.open("rb") as file:
        head = file.read(8)
    for runtime, (place, mark) in MAGIC_BYTES.items():
        if head.startswith(mark, place):
            return runtime
    raise ValueError(path)


def floats(pixels: npt.NDArray[np.uint8]) -> Images:
    return pixels.astype(np.float32) / np.float32(255)


def pixels(data: bytes, contract: dict[str, Any]) -> npt.NDArray[np.uint8]:
    """Reads an encoded image as the contract says: uint8 (size, size, 3)."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    rgb = image.convert("RGB")
    square, bilinear = (contract["image_size"],) * 2, Image.Resampling.BILINEAR
    if contract["resize"] == "crop":
        return np.asarray(ImageOps.fit(rgb, square, bilinear))
    if contract["resize"] == "pad":
        inner = [max(1, round(square[0] * side / max(rgb.size))) for side in rgb.size]
        return np.asarray(ImageOps.pad(rgb.resize(inner, bilinear), square))
    return np.asarray(rgb.resize(square, bilinear))


def predict(artifact: Path, images: Path, golden: Path, answers: Path) -> None:
    """Writes the answers to all images: `test`, `golden` and, where an artifact reads bytes, `encoded`."""
    runner = detect(artifact)(artifact)
    array = np.load(images, mmap_mode="r")
    parts = [runner.predict(floats(array[start : start + BATCH])) for start in range(0, len(array), BATCH)]
    np.savez(answers, test=np.concatenate(parts), **_of_golden(runner, golden))  # type: ignore[arg-type]


def probe(artifact: Path, golden: Path, answers: Path) -> dict[str, float]:
    """Writes the answers to golden images, as `predict`; returns what a shorter `measure_load` does."""
    runner = detect(artifact)(artifact)
    np.savez(answers, **_of_golden(runner, golden))  # type: ignore[arg-type]
    return _under_load(runner, SHORT)


def measure_load(artifact: Path) -> dict[str, float]:
    """Median milliseconds of one image and of a batch, and the process's peak memory in bytes."""
    return _under_load(detect(artifact)(artifact), math.inf)


def _of_golden(runner: Runner, folder: Path) -> dict[str, Probabilities]:
    files = [file.read_bytes() for file in sorted(folder.glob("*.*g"))]
    if not files:
        return {}
    read = floats(np.stack([pixels(data, runner.contract) for data in files]))
    result = {"golden": np.concatenate([runner.predict(image[None]) for image in read])}
    return result | ({"encoded": runner.predict_encoded(files)} if hasattr(runner, "predict_encoded") else {})


def _under_load(runner: Runner, seconds: float) -> dict[str, float]:
    side = runner.contract["image_size"]
    images = np.random.default_rng(0).random((BATCH, side, side, 3), dtype=np.float32)
    one = _median_ms(runner, images[:1], WARM_UP, RUNS, seconds)
    batch = _median_ms(runner, images, WARM_UP // 5, RUNS // 5, seconds)
    unit = 1 if sys.platform == "darwin" else 1024
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"latency_ms": one, f"latency_{BATCH}_ms": batch, "peak_memory_bytes": memory}


def _median_ms(runner: Runner, images: Images, warm_up: int, runs: int, seconds: float) -> float:
    times: list[float] = []
    end = time.perf_counter() + seconds
    for run in range(warm_up + runs):
        start = time.perf_counter()
        is_late = start > end
        if is_late and times:
            break
        runner.predict(images)
        if is_late or run >= warm_up:
            times.append(time.perf_counter() - start)
    return round(statistics.median(times) * 1000, 3)


def _end_with_parent() -> None:
    """Ends this process once the one that started it is gone, even by SIGKILL."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.dont_write_bytecode = True  # of what AutoGraph writes to the temporary folder
    _end_with_parent()
    commands: dict[str, Callable[..., Any]] = {"predict": predict, "time": measure_load, "probe": probe}
    print(json.dumps(commands[sys.argv[1]](*map(Path, sys.argv[2:]))))
