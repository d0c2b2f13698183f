"""The head: a dense layer, fitted to a frozen backbone's features before anything else is trained."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from tasks.core.backbones import logistic
from tasks.core.backbones.config import Features as Kind
from tasks.core.backbones.config import Model
from tasks.core.backbones.logistic import Chosen, LeftOut
from tasks.core.backbones.scaling import Scaling
from tasks.core.backbones.store import Facts
from tasks.core.backbones.tensorflow_setup import tf
from tasks.core.base.arrays import Array
from tasks.core.base.errors import ParamError
from tasks.core.base.matrix import blocks
from tasks.core.training.batches import class_weights
from tasks.core.training.checkpoint import Row
from tasks.core.training.config import ClassWeight, Train, WrongLabels
from tasks.core.training.feature_cache import Features
from tasks.core.training.label_noise import LabelNoise

LAYERS: dict[Kind, str] = {"last": "the last layer", "inner": "the last layer and inner ones"}
ALIKE = "no class has twice the images of another, or one has a single image"
MIN_RECALL_GAIN, MAX_ACCURACY_LOSS = 0.01, 0.005  # for which rare classes count more
ALONE = "keep: a class has a single image, so that none can be cross-validated"
UNCHOSEN_L2 = 0.0001  # what `model.l2: auto` is where no head is fitted by itself


@dataclass(frozen=True)
class Head:
    """The layer that was fitted, from which fine-tuning goes on.

    weights: kernel and bias, for features as the backbone gives them. features: which of them it sees.
    scaling: of these. l2: its penalty in Keras' terms, on scaled features. class_weight: how classes count
    in the loss. row: of the history. losses: of the validation images, (n,). left_out: what images came
    to that it was not fitted to. noise: what is known of the training labels, if that was asked and could be.
    seconds: that the backbone took for the features of all training images. why: of features and class
    weights, the figures that chose them.
    """

    weights: list[Array]
    features: Kind
    scaling: Scaling
    l2: float
    class_weight: ClassWeight
    row: Row
    losses: Array
    left_out: LeftOut
    noise: LabelNoise | None
    seconds: float
    why: dict[str, str] = field(default_factory=dict)

    def auto(self, model: Model, train: Train) -> dict[str, str]:
        """What the images have decided, by parameter, and the figures."""
        found = {}
        if model.features == "auto":
            found["model.features"] = f"{self.features}: {self.why['features']}"
        if model.l2 == "auto":
            found["model.l2"] = (
                f"{self.l2:.2g}: of {len(logistic.PENALTIES)} the one with the lowest loss on these"
            )
        if train.wrong_labels == "auto":
            found["train.wrong_labels"] = self.noise.why if self.noise else ALONE
        if train.class_weight == "auto":
            found["train.class_weight"] = f"{self.class_weight}: {self.why['class_weight']}"
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


@dataclass(frozen=True)
class _Candidate:
    """Of a head, all but its weights: they are solved for the one that is taken."""

    kind: Kind
    class_weight: ClassWeight
    scaling: Scaling
    chosen: Chosen

    @property
    def left_out(self) -> LeftOut:
        return self.chosen.left_out


def fit_best(
    train: Features,
    validation: Features,
    widths: dict[Kind, int],
    classes: int,
    weightings: list[ClassWeight],
    l2: Literal["auto"] | float,
    loss: Any,
    wrong_labels: WrongLabels,
) -> Head:
    """Fits a layer to each kind of features, and gives the one that predicts other images best.

    Args:
        widths: numbers of features of each kind; those of the last layer come first in each image's row.
        classes: their number.
        weightings: how classes may count in the loss; the first is taken where no other gains.
        l2: `model.l2`.
        loss: Keras' loss that fine-tuning has, for the history.
        wrong_labels: `train.wrong_labels`; they are looked for by the best kind of features.
    """

    def choose(seen: Features, kind: Kind, class_weight: ClassWeight) -> _Candidate:
        values, others = seen.values[:, : widths[kind]], validation.values[:, : widths[kind]]
        scaling = Scaling.of(values)
        pairs = (values, seen.labels), (others, validation.labels)
        penalties = logistic.PENALTIES if l2 == "auto" else (2 * len(seen.labels) * l2,)
        weights = class_weights(np.bincount(seen.labels, minlength=classes), class_weight)
        chosen = logistic.choose_penalty(*pairs, weights, penalties, scaling)
        return _Candidate(kind, class_weight, scaling, chosen)

    # NumPy's threads and SciPy's would wait for one another, four times as long as the work takes, and sums
    # of several threads are not the same twice.
    with threadpool_limits(1):
        first, *rest = weightings
        best, losses, noise, seen = None, {}, None, train
        for kind in widths:
            one = choose(train, kind, first)
            losses[kind] = one.left_out.loss
            best = min((best, one), key=lambda each: each.left_out.loss) if best else one
        assert best
        if wrong_labels == "auto":
            # Logits of weighted classes would look wrong of all that are labelled as a frequent one.
            plain = best if first == "none" else choose(train, best.kind, "none")
            if plain.chosen.logits is not None:
                noise = LabelNoise.of(plain.chosen.logits, train.labels)
        if noise and noise.wrong.any():
            seen = train.part(~noise.wrong)
            best = choose(seen, best.kind, first)
        others = [choose(seen, best.kind, class_weight) for class_weight in rest]
        fair = [other for other in others if _is_fairer(other.left_out, best.left_out)]
        taken = max(fair, key=lambda one: one.left_out.recalls.mean(), default=best)
        layer = taken.scaling.fold(*taken.chosen.solve())
    said = ", ".join(f"{found:.3f} on {LAYERS[kind]}" for kind, found in losses.items())
    why = {"features": f"the loss of images that it was not fitted to is {said}"}
    why["class_weight"] = "; ".join(map(_describe, [best, *others])) if others else ALIKE
    row, of_validation = _measure(layer, seen, validation, loss)
    return Head(
        layer,
        taken.kind,
        taken.scaling,
        taken.chosen.penalty / (2 * len(seen.labels)),
        taken.class_weight,
        row,
        of_validation,
        taken.left_out,
        noise,
        train.seconds,
        why,
    )


def _describe(head: _Candidate) -> str:
    """What it knows of images that it was not fitted to."""
    found = head.left_out
    return f"{head.class_weight} {found.hits.mean():.1%}, mean of the classes {found.recalls.mean():.1%}"


def _is_fairer(one: LeftOut, other: LeftOut) -> bool:
    """Whether it knows the classes better on average, beyond chance, at hardly any cost in accuracy."""
    changes = pd.Series(one.hits.astype(float) - other.hits)
    by_class = changes.groupby(one.labels)
    error = np.sqrt((by_class.var(ddof=0) / by_class.size()).sum()) / by_class.ngroups
    gain = by_class.mean().mean()
    return bool(gain >= max(MIN_RECALL_GAIN, error) and changes.mean() >= -MAX_ACCURACY_LOSS)


def refit(head: Head, train: Features, validation: Features, loss: Any) -> Head:
    """Fits a head as another was, by its penalty and to its images, to what the layers have come to say."""
    if head.noise and head.noise.wrong.any():
        train = train.part(~head.noise.wrong)
    width, count = len(head.weights[0]), len(train.labels)
    seen = train.values[:, :width]
    weights = class_weights(np.bincount(train.labels, minlength=len(head.weights[1])), head.class_weight)
    with threadpool_limits(1):
        scaling = Scaling.of(seen)
        solution = logistic.solve(seen, train.labels, weights, 2 * count * head.l2, scaling)
    layer = scaling.fold(*solution)
    row, losses = _measure(layer, train, validation, loss)
    return replace(head, weights=layer, scaling=scaling, row=row, losses=losses)


def _measure(layer: list[Array], train: Features, validation: Features, loss: Any) -> tuple[Row, Array]:
    """The head's row of the history, as Keras reports it, and the losses of the validation images."""
    kernel, bias = layer
    row: Row = {"phase": "head", "epoch": 1}
    for prefix, part in (("", train), ("val_", validation)):
        some = part.values[:, : len(kernel)]
        logits = np.concatenate([values @ kernel + bias for (values,) in blocks(some)])
        losses = np.asarray(loss.call(tf.one_hot(part.labels, len(bias)), logits))
        row[f"{prefix}loss"] = round(float(losses.mean()), 6)
        row[f"{prefix}accuracy"] = round(float((logits.argmax(axis=1) == part.labels).mean()), 6)
    return row, losses
