"""Whether a classifier is as sure as it is right, and the temperature that makes it so (Guo et al., 2017)."""

from typing import Any

import numpy as np

from tasks.core.base.arrays import Array, rounded

MIN_PROBABILITY = 1e-45  # the least float32
PRIOR = 0.3  # the standard deviation of the temperature's logarithm before any image is seen
MAX_TEMPERATURE = 20.0  # the temperature is looked for between 1 / MAX_TEMPERATURE and MAX_TEMPERATURE


def error(confidence: Array, right: Array, bins: int) -> float:
    """The expected calibration error: mean distance of confidence from accuracy over bins of equal width."""
    gap = np.bincount(_bin(confidence, bins), weights=confidence - right)
    return float(np.abs(gap).sum() / len(right))


def reliability(confidence: Array, right: Array, bins: int) -> list[dict[str, Any]]:
    """The reliability curve: `n`, mean `confidence` and `accuracy` of each bin that holds images."""
    places = _bin(confidence, bins)
    return [
        {
            "n": int(chosen.sum()),
            "confidence": rounded(confidence[chosen].mean()),
            "accuracy": rounded(right[chosen].mean()),
        }
        for chosen in (places == place for place in np.unique(places))
    ]


def _bin(confidence: Array, bins: int) -> Array:
    places: Array = np.minimum((confidence * bins).astype(int), bins - 1)
    return places


def temperature(labels: Array, probabilities: Array) -> float:
    """Finds the most likely temperature, of images that the model wasn't trained on.

    Beforehand its logarithm is taken to be normal around 0, a temperature of 1: few images hardly move it,
    and many decide. The least log loss alone goes far off by few: where the model makes no mistake on them,
    it is least if the model were never in doubt.

    Args:
        labels: int (n,), places of classes.
        probabilities: float (n, classes), the softmax of the model's logits.

    Returns:
        What logits are to be divided by: above 1 for a model that is too sure of itself, below 1 for one
        that is less sure than it could be. To four decimals.
    """
    from scipy.optimize import minimize_scalar  # a second, for all who check params.yaml

    images = np.arange(len(labels))

    def loss(log: float) -> float:
        of_labels = apply_temperature(probabilities, np.exp(log))[images, labels]
        return float((log / PRIOR) ** 2 / 2 - np.log(np.maximum(of_labels, MIN_PROBABILITY)).sum())

    edge = np.log(MAX_TEMPERATURE)
    found = minimize_scalar(loss, bounds=(-edge, edge), method="bounded", options={"xatol": 1e-6})
    return round(float(np.exp(found.x)), 4)


def apply_temperature(probabilities: Array, temperature: float) -> Array:
    """What the softmax gives of logits divided by the temperature, from what it gave of the logits."""
    logs = np.log(np.maximum(probabilities.astype(float), MIN_PROBABILITY)) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    result: Array = powers / powers.sum(axis=1, keepdims=True)
    return result
