"""The classifier: a backbone, and a dense head that gives logits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.core.backbones import catalogue, store
from tasks.core.backbones.config import Features
from tasks.core.backbones.layer import backbone_layer, to_float
from tasks.core.backbones.pooling import pool
from tasks.core.backbones.scaling import Scaling
from tasks.core.backbones.tensorflow_setup import keras, tf, unconverted
from tasks.core.base.contract import Contract
from tasks.core.base.errors import BackboneError, ModelError, brief
from tasks.core.base.files import read_json, write_json
from tasks.core.base.paths import MODEL_FACTS, TRAIN_LABEL_ERRORS

Predict = Callable[[Any], Any]  # images, uint8 (n, size, size, 3), to probabilities, float32 (n, classes)

WEIGHTS = "classifier.weights.h5"


@unconverted
def network(backbone: Any, classes: int, image_size: int, features: Features) -> Any:
    """Builds the classifier: images of float32 (n, image_size, image_size, 3) to logits.

    Raises:
        BackboneError: the backbone takes no such images, or gives no feature vector.
    """
    images = keras.Input((image_size, image_size, 3), name="image")
    dense = keras.layers.Dense(classes, name="head")
    return keras.Model(images, dense(_features(backbone, images, features)), name="classifier")


class InTraining(keras.Model):  # type: ignore[misc]
    """A classifier of which the head trains, and the backbone from some layer on.

    Gradients are then computed no further back than that.
    """

    unfreeze = 1.0  # share of the backbone's variables, those of its last layers

    @property
    def trainable_weights(self) -> list[Any]:
        backbone = self.get_layer("backbone").trainable_weights
        first = round(len(backbone) * (1 - self.unfreeze))
        return [*backbone[first:], *self.get_layer("head").trainable_weights]


@unconverted
def in_training(
    model: Any,
    features: Features,
    scaling: Scaling,
    l2: float,
    *,
    frozen_statistics: bool,
    unfreeze: float = 1.0,
) -> Any:
    """The classifier as it trains: it shares the backbone with `model`, and takes dropout's mask.

    Its head is another: that of `model` on scaled features, which one learning rate suits.
    The mask depends on seed, epoch and image alone, however many devices there are.

    Args:
        scaling: of the features.
        l2: on the weights of the head, as they are for features of unit variance.
        frozen_statistics: the backbone normalizes by the statistics it came with, as it does in use, and not
            by those of each batch. Its own dropout, if it has any, it then leaves out too.
        unfreeze: share of the backbone's variables that train, those of its last layers, 0-1.

    Returns:
        A model from images, float32 (n, size, size, 3), and dropout's mask of the features, float32
        (n, width), to logits.
    """
    backbone, head = model.get_layer("backbone"), model.get_layer("head")
    images = keras.Input(model.input.shape[1:], name="image")
    found = backbone(images, training=False) if frozen_statistics else backbone(images)
    scaled = scaling.apply(pool(found, features))
    mask = keras.Input(scaled.shape[1:], name="dropout_mask")
    penalty = keras.regularizers.L2(l2 / scaling.step**2)
    dense = keras.layers.Dense(head.units, kernel_regularizer=penalty, name="head")
    whole = InTraining([images, mask], dense(keras.layers.Multiply()([scaled, mask])), name="in_training")
    whole.unfreeze = unfreeze
    dense.set_weights(scaling.unfold(*head.get_weights()))
    return whole


def _features(backbone: Any, images: Any, kind: Features) -> Any:
    side = images.shape[1]
    try:
        features = pool(backbone(images), kind)
    except Exception as error:  # whatever the graph inside complains of
        if "KerasLayer.trainable" in str(error):  # TF Hub's own words, for models of TensorFlow 1
            raise BackboneError("model.backbone can't be fine-tuned; set train.fine_tune to false") from None
        raise BackboneError(
            f"model.backbone takes no images of {side} pixels ({brief(error)}); change model.image_size"
        ) from None
    shape = getattr(features, "shape", None)
    if shape is None or shape.rank != 2:
        raise BackboneError(f"model.backbone gives no feature vector but {shape}; choose one that does")
    return features


def save(folder: Path, model: Any, contract: Contract, facts: dict[str, Any]) -> None:
    """Writes weights and facts. Keras' own .keras file holds times, so it is never the same twice."""
    model.save_weights(folder / WEIGHTS)
    write_json(folder / MODEL_FACTS, contract.facts() | facts)


def load(folder: Path) -> tuple[Any, Contract]:
    """Reads a trained classifier back as (model giving logits, contract).

    Raises:
        ModelError: there is none, or its backbone is another by now than the one it was trained on.
        BackboneError: its backbone can't be loaded any more.
    """
    file = folder / MODEL_FACTS
    if not file.is_file():
        raise ModelError(f"{file} is missing; run `dvc repro train`")
    facts = read_json(file)
    contract = Contract.of(facts)
    _check_backbone(file, facts["backbone"], facts["backbone_sha256"])
    inner = facts["features"] == "inner"
    backbone = backbone_layer(facts["backbone"], trainable=False, inner=inner)  # not every one can be
    model = network(backbone, len(contract.class_names), contract.image_size, facts["features"])
    model.load_weights(folder / WEIGHTS)
    return model, contract


def label_errors(folder: Path) -> list[dict[str, Any]]:
    """The training images that were left out for their labels.

    Raises:
        ModelError: the model is of a version that wrote no such list.
    """
    file = folder / TRAIN_LABEL_ERRORS
    if not file.is_file():
        raise ModelError(f"{file} is missing; run `dvc repro train`")
    found: list[dict[str, Any]] = read_json(file)
    return found


def _check_backbone(file: Path, name: str, sha256: str) -> None:
    if catalogue.package(name):  # made here of locked weights; its bytes tell of TensorFlow's build, too
        return
    found = store.facts(name).sha256
    if found != sha256:
        raise ModelError(
            f"{file} was trained on {name} with sha256 {sha256}, which by now has {found}; bring the other "
            "back, or train on this one: `dvc repro --single-item --force train`"
        )


def predictor(model: Any) -> Predict:
    """Compiles a classifier."""

    @tf.function
    @unconverted
    def probabilities(pixels: Any) -> Any:
        return tf.nn.softmax(model(to_float(pixels), training=False))

    return lambda pixels: probabilities(pixels).numpy()
