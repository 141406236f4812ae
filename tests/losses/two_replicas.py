"""Truncated losses of two replicas, one with a smaller batch, and of one with both batches.

    python -m tests.losses.two_replicas FILE

A program of its own: logical devices can only be configured before TensorFlow begins.
"""

import sys

import numpy as np
import tensorflow as tf

from tfrec_feedback.losses import FeedbackCrossEntropy, Truncated

FIRST = 24
SIZE = 40


def main(path):
    """Saves losses, gradients and kept elements of all ways to share the work."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, 2 * [tf.config.LogicalDeviceConfiguration()])
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    rng = np.random.default_rng(0)
    # Few logits, so that losses tie across replicas; the second replica has the larger ones.
    logits = np.round(rng.normal(size=SIZE)) - 1.0 * (np.arange(SIZE) >= FIRST)
    labels = rng.random(SIZE) < 0.7
    weights = (rng.random(SIZE) < 0.8) / SIZE
    batch = [tf.constant(np.float32(part)) for part in (labels, logits, weights)]
    found = {"labels": batch[0], "logits": batch[1], "weights": batch[2]}
    base = FeedbackCrossEntropy(reduction="sum")
    for scope in ("global", "replica"):
        for rate in (0.0, 0.2):
            options = {"max_rate": rate, "num_steps": 1, "scope": scope}
            with strategy.scope():
                loss = Truncated(base, **options)
            loss.step.assign(1)
            run = tf.function(lambda loss=loss: strategy.run(step, (loss, *batch)))
            values = [strategy.experimental_local_results(part) for part in run()]
            key = f"{scope}_{rate}"
            found[f"{key}_losses"] = [float(x) for x in values[0]]
            found[f"{key}_gradient"] = np.concatenate([x.numpy() for x in values[1]])
            found[f"{key}_keep"] = np.concatenate([x.numpy() for x in values[2]])
            single = Truncated(base, **options)
            single.step.assign(1)
            value, gradient, keep = single_step(single, *batch)
            found |= {f"{key}_one_loss": value, f"{key}_one_gradient": gradient}
            found[f"{key}_one_keep"] = keep
    np.savez(path, **found)


def single_step(loss, labels, logits, weights):
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(labels, logits, weights)
    return value, tape.gradient(value, logits), loss.factors(labels, logits, weights)


def step(loss, *batch):
    """Loss, gradient and kept elements of this replica's part of the batch."""
    second = tf.distribute.get_replica_context().replica_id_in_sync_group == 1
    start, end = tf.where(second, FIRST, 0), tf.where(second, SIZE, FIRST)
    return single_step(loss, *(part[start:end] for part in batch))


if __name__ == "__main__":
    main(*sys.argv[1:])
