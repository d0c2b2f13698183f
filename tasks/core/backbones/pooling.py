"""What a classifier's head sees of a backbone: its last layer, and what inner layers say."""

from typing import Any

from tasks.core.backbones.config import Features
from tasks.core.backbones.tensorflow_setup import keras

NAME = "features"  # of the layer that puts them together, where there is more than the last one


def pool(found: Any, features: Features = "inner") -> Any:
    """Pools what a backbone gives to one vector for each image: float32 (n, k).

    Args:
        found: its features, float32 (n, k); or a dict of these as `default` and of feature maps, float32
            (n, h, w, channels).
        features: `last` for the backbone's features alone; `inner` to have the mean and the maximum of each
            channel of the maps after them.
    """
    if not isinstance(found, dict):
        return found
    if features == "last":
        return found["default"]
    maps = [found[name] for name in sorted(found) if found[name].shape.rank == 4]
    poolings = (keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D)
    pooled = [pooling()(each) for pooling in poolings for each in maps]
    return keras.layers.Concatenate(name=NAME)([found["default"], *pooled])
