"""Trains a DUMN on one replica and on two, and saves what both have done.

    python -m tests.models.two_replicas FILE

A program of its own: logical devices can only be configured before TensorFlow begins.
"""

import sys

import numpy as np
import tensorflow as tf

from tests.models.dumn_examples import memories, small_dumn, training_batch
from tfrec_feedback.optimizers import LazyAdam

STEPS = 3


def main(path):
    """Saves losses, memories and weights of both runs, step by step."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, 2 * [tf.config.LogicalDeviceConfiguration()])
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    single = small_model()
    with strategy.scope():
        double = small_model()
    take = tf.function(lambda batch: strategy.run(half_step, (double, batch)))
    found = {"single_loss": [], "half_losses": [], "single_memories": [], "replica_memories": []}
    for seed in range(STEPS):
        # Three samples of every kind, none of two kinds: every anchor finds a pair, so that the
        # mean over both halves is the mean of their means.
        batch = training_batch(
            seed=seed, num_requests=4, longest=3, shortest=3, same_size=2, disjoint=True
        )
        found["single_loss"].append(float(single.train_step(batch)["loss"]))
        halves = strategy.experimental_local_results(take(batch)["loss"])
        found["half_losses"].append([float(loss) for loss in halves])
        found["single_memories"].append(memories(single))
        copies = [
            strategy.experimental_local_results(each.memory) for each in double.user_memory.memories
        ]
        found["replica_memories"].append([[copy.numpy() for copy in pair] for pair in copies])
    for name, model in (("single", single), ("double", double)):
        found[f"{name}_weights"] = np.concatenate([np.ravel(w) for w in model.get_weights()])
    np.savez(path, **found)


def small_model():
    model = small_dumn(mining="user_hard")
    # A large epsilon keeps the sign of vanishing gradients from becoming a whole step.
    model.compile(LazyAdam(0.01, epsilon=1e-3))
    return model


def half_step(model, batch):
    """One training step with this replica's half of the requests."""
    half = tf.shape(batch[1]["ctr"])[0] // 2
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    first = half * tf.cast(replica, tf.int32)
    return model.train_step(tf.nest.map_structure(lambda x: x[first : first + half], batch))


if __name__ == "__main__":
    main(*sys.argv[1:])
