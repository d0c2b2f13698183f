"""A backbone small enough to train in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.core.runtime import keras, tf

FEATURES = 16


def save_tiny_backbone(folder: Path, side: int | None = None) -> None:
    """Saves one convolution as a SavedModel with TF Hub's common image signature, giving 16 features.

    Args:
        side: of the only pictures that it takes, in pixels; none: any.
    """
    keras.utils.set_random_seed(0)
    pictures = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(FEATURES, 3, 2, activation="relu")(pictures)
    model = keras.Model(pictures, keras.layers.GlobalAveragePooling2D()(x))

    @tf.function
    def call(inputs: Any, training: bool = False) -> Any:
        return model(inputs, training=training)

    for training in (False, True):
        call.get_concrete_function(tf.TensorSpec((None, side, side, 3)), training=training)
    module = tf.train.Checkpoint()
    module.__call__ = call
    module.variables = model.variables
    module.trainable_variables = model.trainable_variables
    module.regularization_losses = []
    tf.saved_model.save(module, str(folder))
