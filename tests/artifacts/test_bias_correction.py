"""A quantized file's logits are, on average, those of the float model."""

import warnings
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from scipy.special import log_softmax, softmax

from tasks.core.artifacts import bias_correction
from tasks.core.backbones.tensorflow_setup import keras, tf
from tasks.core.base.arrays import Array

SIDE = 8
OFFSET = np.array([0.5, 0, -0.5])


def network(*, softmax_last: bool = True, bias: bool = True) -> Any:
    keras.utils.set_random_seed(3)
    images = keras.Input((SIDE, SIDE, 3))
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(16, 3, activation="relu6")(images))
    wide = keras.initializers.RandomNormal(
        stddev=4, seed=3
    )  # int8's logits end where those of its images did
    logits = keras.layers.Dense(3, use_bias=bias, kernel_initializer=wide, bias_initializer="random_normal")(
        features
    )
    return keras.Model(images, keras.layers.Softmax()(logits) if softmax_last else logits)


def images(count: int = 50) -> Array:
    rng = np.random.default_rng(1)
    found: Array = rng.random((count, SIDE, SIDE, 3), dtype=np.float32)
    return found * rng.random((count, 1, 1, 3), dtype=np.float32)


def quantized(model: Any, kind: str) -> bytes:
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "int8":
        converter.representative_dataset = lambda: ([one[None]] for one in images())
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    with warnings.catch_warnings(action="ignore"):
        content: bytes = converter.convert()
    return content


def answers(content: bytes) -> Array:
    interpreter = Interpreter(model_content=content)
    (image,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(image["index"], images().shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(image["index"], images())
    interpreter.invoke()
    found: Array = interpreter.get_tensor(output["index"])
    return found


@pytest.mark.parametrize("kind", ["int8", "dynamic"])
def test_logits_that_are_off_on_average_come_back(kind: str) -> None:
    """As if quantization had moved them by this much: the answers are then those that are meant."""
    model = network()
    content = quantized(model, kind)
    meant = log_softmax(np.log(model.predict(images(), verbose=0)) + OFFSET, axis=1)
    corrected = bias_correction.correct(content, images(), meant)
    assert np.abs(answers(content) - softmax(meant, axis=1)).max() > 0.1
    assert np.abs(answers(corrected) - softmax(meant, axis=1)).max() < 0.02
    assert np.abs(np.mean(answers(corrected) - softmax(meant, axis=1), axis=0)).max() < 0.005
    assert bias_correction.correct(content, images(), meant) == corrected


@pytest.mark.parametrize("ends", [{"softmax_last": False}, {"bias": False}])
def test_a_file_that_ends_otherwise_is_left_as_it_is(ends: dict[str, bool]) -> None:
    content = quantized(network(**ends), "dynamic")
    assert bias_correction.correct(content, images(), np.zeros((50, 3))) == content
