"""Element losses to test alike, and batches for them."""

import numpy as np
import tensorflow as tf

from tfrec_feedback.losses import BPRLoss, FeedbackCrossEntropy, HingeLoss, SquareLoss

BASES = {
    "cross_entropy": FeedbackCrossEntropy,
    "square": SquareLoss,
    "hinge": HingeLoss,
    "bpr": BPRLoss,
}


def requests(seed, rows=5, candidates=6, scale=2.0):
    """Labels, logits and shares `[rows, candidates]`; the last candidates of some are padded."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (rows, candidates)).astype(np.float32)
    logits = rng.normal(size=(rows, candidates), scale=scale).astype(np.float32)
    valid = np.arange(candidates) < rng.integers(1, candidates + 1, (rows, 1))
    shares = (valid * rng.uniform(0.5, 2.0, valid.shape)).astype(np.float32)
    return tf.constant(labels), tf.constant(logits), tf.constant(shares / shares.sum())


def with_gradient(loss, labels, logits, weights=None):
    """The loss and its gradient by the logits, in numpy."""
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(labels, logits, weights)
    return value.numpy(), tape.gradient(value, logits).numpy()
