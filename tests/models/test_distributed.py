"""Two replicas with half a batch each take the steps of one with the whole batch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    path = tmp_path_factory.mktemp("replicas") / "runs.npz"
    command = [sys.executable, "-m", "tests.models.two_replicas", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return np.load(path)


def test_two_replicas_commit_the_memories_of_one(runs):
    single, first = runs["single_memories"], runs["replica_memories"][:, :, 0]
    assert single.shape == (3, 4, 6, 5)  # steps, memories, slots, word
    np.testing.assert_allclose(first[0], single[0], atol=1e-6)
    np.testing.assert_allclose(first, single, atol=1e-6)
    assert np.abs(np.diff(single, axis=0)).max() > 0.01


def test_replicas_hold_the_same_memories_to_the_bit(runs):
    memories = runs["replica_memories"]
    np.testing.assert_array_equal(memories[:, :, 0], memories[:, :, 1])


def test_losses_of_the_halves_add_up_to_that_of_the_batch(runs):
    halves = runs["half_losses"]
    np.testing.assert_allclose(halves.sum(axis=1), runs["single_loss"], rtol=1e-6)
    assert np.abs(halves[:, 0] - halves[:, 1]).max() > 1e-3


def test_weights_after_three_steps_are_those_of_one_replica(runs):
    np.testing.assert_allclose(runs["double_weights"], runs["single_weights"], atol=1e-6)
