"""Classifiers that any worthwhile one must beat: the most frequent class, and colours alone."""

from collections.abc import Iterable

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from tasks.core.base.arrays import Array
from tasks.core.data.image_io import Pixels

LEVELS = 4  # of each colour channel in the histograms
SAMPLED = 32  # pixels along a side that are looked at, at least
STEPS = 200  # of the solver


def majority(labels: Array, count: int) -> Array:
    """Predicts the most frequent of the training labels `count` times."""
    return np.full(count, np.bincount(labels).argmax())


def colours(features: Array, labels: Array, asked: Array) -> Array:
    """Predicts classes by a logistic regression on the `histograms` of training images."""
    if len(np.unique(labels)) < 2:
        return majority(labels, len(asked))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=STEPS))
    with threadpool_limits(1):  # more threads add up in the order they end in
        predicted: Array = model.fit(features, labels).predict(asked)
    return predicted


def histograms(batches: Iterable[Pixels]) -> Array:
    """How the pixels of each image are spread over `LEVELS` cubed colours, as roots of shares (Hellinger).

    Args:
        batches: uint8 (n, height, width, 3) each.

    Returns:
        Float32 (all images, LEVELS ** 3).
    """
    return np.concatenate([_histograms(batch) for batch in batches])


def _histograms(images: Pixels) -> Array:
    step = max(1, images.shape[1] // SAMPLED)
    levels = (images[:, ::step, ::step] // (256 // LEVELS)).astype(np.int32)
    colour = (levels[..., 0] * LEVELS + levels[..., 1]) * LEVELS + levels[..., 2]
    size, n = LEVELS**3, len(images)
    offset = np.arange(n)[:, None] * size
    counts = np.bincount((colour.reshape(n, -1) + offset).ravel(), minlength=n * size).reshape(n, size)
    roots: Array = np.sqrt(counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)
    return roots
