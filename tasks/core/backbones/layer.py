"""A backbone as a layer of Keras, and what it is fed."""

from contextlib import nullcontext
from typing import Any

from tasks.core.backbones import saved_model, store
from tasks.core.backbones.catalogue import BUILT_IN, UNPINNED
from tasks.core.backbones.pooling import pool
from tasks.core.backbones.tensorflow_setup import hub, tf, unconverted, without_keras_3
from tasks.core.base.errors import BackboneError, brief


def backbone_layer(
    name: str,
    *,
    trainable: bool,
    sha256: str = UNPINNED,
    inner: bool = False,
    draws_by: int | None = None,
) -> Any:
    """Loads a backbone as a layer: float32 (n, h, w, 3) in [0, 1] to features (n, k).

    Args:
        sha256: `model.sha256`, the digest that it must have.
        inner: have it give what its inner layers say, too, for `pool`; `store.facts` says whether it can.
        draws_by: the seed for what it draws itself in training, where it has none.

    Raises:
        BackboneError: it can't be fetched or loaded, or has another digest.
    """
    handle = store.locate(name, sha256)
    arguments = {"return_endpoints": True} if inner else None
    seeded = None if draws_by is None else saved_model.copy_with_seed(store.folder(name), draws_by)
    try:
        with seeded or nullcontext(handle) as source, without_keras_3():
            return hub.KerasLayer(str(source), trainable=trainable, arguments=arguments, name="backbone")
    except Exception as error:  # TF Hub raises whatever its resolver met: URL, tar, protobuf
        raise BackboneError(
            f"model.backbone: {name} can't be loaded ({type(error).__name__}: {brief(error)}); "
            f"use {BUILT_IN}, another of the catalogue, or a folder that holds a SavedModel"
        ) from error


def to_float(images: Any) -> Any:
    """Scales uint8 images to the [0, 1] that TF Hub's common image signature asks for."""
    return tf.cast(images, tf.float32) / 255.0


def extractor(backbone: Any) -> Any:
    """Gives a function from images, uint8 (n, h, w, 3), to all of a frozen backbone's features, (n, k)."""

    @tf.function(reduce_retracing=True)
    @unconverted
    def extract(images: Any) -> Any:
        return pool(backbone(to_float(images), training=False))

    return extract
