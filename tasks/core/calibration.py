"""Temperature scaling: one number that makes a classifier as sure as it is right (Guo et al., 2017)."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar

from tasks.core.metrics import Answers, Array, log_loss

WIDEST = 20.0  # the temperature is looked for between 1 / WIDEST and WIDEST


def temperature(labels: Array, probabilities: Array) -> float:
    """Finds the temperature with the least log loss, of pictures that the model wasn't trained on.

    Args:
        labels: int (n,), places of classes.
        probabilities: float (n, classes), the softmax of the model's logits.

    Returns:
        What logits are to be divided by: above 1 for a model that is too sure of itself, below 1 for one
        that is less sure than it could be. To four decimals.
    """
    edge = np.log(WIDEST)
    found = minimize_scalar(
        lambda log: log_loss(Answers.of(labels, scaled(probabilities, np.exp(log)))),
        bounds=(-edge, edge),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return round(float(np.exp(found.x)), 4)


def scaled(probabilities: Array, temperature: float) -> Array:
    """What the softmax gives of logits divided by the temperature, from what it gave of the logits."""
    logs = np.log(np.maximum(probabilities.astype(float), 1e-45)) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    result: Array = powers / powers.sum(axis=1, keepdims=True)
    return result
