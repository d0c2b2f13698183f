"""The head: a dense layer, fitted to a frozen backbone's features before anything else is trained."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from threadpoolctl import threadpool_limits

from tasks.core.backbones import logistic
from tasks.core.backbones.config import Features as Kind
from tasks.core.backbones.config import Model
from tasks.core.backbones.scaling import Scaling
from tasks.core.backbones.store import Facts
from tasks.core.backbones.tensorflow_setup import tf
from tasks.core.base.arrays import Array
from tasks.core.base.errors import ParamError
from tasks.core.training.checkpoint import Row
from tasks.core.training.feature_cache import Features

LAYERS: dict[Kind, str] = {"last": "the last layer", "inner": "the last layer and inner ones"}
UNCHOSEN_L2 = 0.0001  # what `model.l2: auto` is where no head is fitted by itself


@dataclass(frozen=True)
class Head:
    """The layer that was fitted, from which fine-tuning goes on.

    weights: kernel and bias, for features as the backbone gives them. features: which of them it sees.
    scaling: of these. l2: its penalty in Keras' terms, on scaled features. row: of the history.
    held_out_losses: for each kind of features, of images that it was not fitted to, in nats: by these it was
    chosen. seconds: that the backbone took for the features of all training images.
    """

    weights: list[Array]
    features: Kind
    scaling: Scaling
    l2: float
    row: Row
    held_out_losses: dict[Kind, float]
    seconds: float

    def auto(self, params: Model) -> dict[str, str]:
        """What the images have decided, by parameter, and the figures."""
        losses = {LAYERS[kind]: f"{loss:.3f}" for kind, loss in self.held_out_losses.items()}
        said = ", ".join(f"{loss} on {layers}" for layers, loss in losses.items())
        found = {}
        if params.features == "auto":
            found["model.features"] = (
                f"{self.features}: the loss of images that it was not fitted to is {said}"
            )
        if params.l2 == "auto":
            found["model.l2"] = (
                f"{self.l2:.2g}: of {len(logistic.PENALTIES)} the one with the lowest loss on these"
            )
        return found


def kinds_to_try(params: Model, found: Facts, *, fits_head: bool) -> list[Kind]:
    """What of the backbone the head may see, of which the images choose.

    Raises:
        ParamError: it is to see what the backbone doesn't give.
    """
    if params.features == "inner" and not found.has_endpoints:
        raise ParamError(
            f"model.features is inner, but {params.backbone} gives nothing of its inner layers; set it to "
            "last or to auto"
        )
    if params.features == "auto":
        return ["inner", "last"] if found.has_endpoints and fits_head else ["last"]
    return [params.features]


def fit_best(
    train: Features,
    validation: Features,
    widths: dict[Kind, int],
    weights: Array,
    l2: Literal["auto"] | float,
    loss: Any,
) -> Head:
    """Fits a layer to each kind of features, and gives the one that predicts other images best.

    Args:
        widths: numbers of features of each kind; those of the last layer come first in each image's row.
        weights: of the classes in the loss, float32 (classes,).
        l2: `model.l2`.
        loss: Keras' loss that fine-tuning has, for the history.
    """
    count = len(train.labels)
    penalties = logistic.PENALTIES if l2 == "auto" else (2 * count * l2,)

    def fit(kind: Kind) -> Head:
        seen, others = (part.values[:, : widths[kind]] for part in (train, validation))
        scaling = Scaling.of(seen)
        pairs = (scaling.apply(seen), train.labels), (scaling.apply(others), validation.labels)
        solution = logistic.fit(*pairs, weights, penalties)
        layer = scaling.fold(*solution.layer)
        row = {"phase": "head", "epoch": 1}
        row |= _measure(layer, seen, train.labels, loss, "") | _measure(
            layer, others, validation.labels, loss, "val_"
        )
        return Head(
            layer, kind, scaling, solution.penalty / (2 * count), row, {kind: solution.loss}, train.seconds
        )

    # NumPy's threads and SciPy's would wait for one another, four times as long as the work takes, and sums
    # of several threads are not the same twice.
    with threadpool_limits(1):
        heads = {kind: fit(kind) for kind in widths}
    losses = {kind: head.held_out_losses[kind] for kind, head in heads.items()}
    return replace(heads[min(losses, key=lambda kind: losses[kind])], held_out_losses=losses)


def _measure(layer: list[Array], features: Array, labels: Array, loss: Any, prefix: str) -> Row:
    """Loss and accuracy, as Keras reports them."""
    kernel, bias = layer
    logits = features @ kernel + bias
    value = float(loss(tf.one_hot(labels, len(bias)), logits))
    hits = logits.argmax(axis=1) == labels
    return {f"{prefix}loss": round(value, 6), f"{prefix}accuracy": round(float(hits.mean()), 6)}
