"""The scope of a truncated loss: each replica's own elements, or those of all."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.losses.two_replicas import FIRST
from tfrec_feedback.losses import FeedbackCrossEntropy, truncation_weights

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    path = tmp_path_factory.mktemp("truncated") / "runs.npz"
    command = [sys.executable, "-m", "tests.losses.two_replicas", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return np.load(path)


def test_replicas_that_compare_with_each_other_drop_what_one_would_drop(runs):
    keep = runs["global_0.2_keep"]
    np.testing.assert_array_equal(keep, runs["global_0.2_one_keep"])
    assert np.sum(keep == 0) == int(0.2 * np.sum(runs["weights"] > 0))
    losses = FeedbackCrossEntropy().call(runs["labels"], runs["logits"]).numpy()
    clicks = (runs["labels"] == 1) & (runs["weights"] > 0)
    tied = np.flatnonzero(clicks & (losses == losses[keep == 0].min()))
    assert tied[0] < FIRST <= tied[-1]  # on both replicas, and the threshold lies between them
    assert keep[tied].tolist() == sorted(keep[tied]) and set(keep[tied]) == {0.0, 1.0}


def test_replicas_that_compare_with_each_other_have_the_loss_and_gradient_of_one(runs):
    for rate in ("0.0", "0.2"):
        total = runs[f"global_{rate}_losses"].sum()
        np.testing.assert_allclose(total, runs[f"global_{rate}_one_loss"], rtol=1e-6)
        gradient = runs[f"global_{rate}_gradient"]
        np.testing.assert_allclose(gradient, runs[f"global_{rate}_one_gradient"], rtol=1e-5)


def test_replicas_on_their_own_drop_from_their_own_elements(runs):
    keep = runs["replica_0.2_keep"]
    for part in (slice(None, FIRST), slice(FIRST, None)):
        labels, logits, weights = (runs[key][part] for key in ("labels", "logits", "weights"))
        losses = FeedbackCrossEntropy().call(labels, logits)
        expected = truncation_weights(losses, labels, 0.2, weights=weights)
        np.testing.assert_array_equal(keep[part], expected)
    assert np.any(keep != runs["global_0.2_keep"])


def test_at_rate_0_every_scope_gives_the_same_to_the_bit(runs):
    for key in ("losses", "gradient"):
        np.testing.assert_array_equal(runs[f"global_0.0_{key}"], runs[f"replica_0.0_{key}"])
    assert runs["global_0.0_keep"].all()
