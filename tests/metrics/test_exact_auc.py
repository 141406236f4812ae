import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from tfrec_feedback.metrics import auc, rela_impr

SCORES = [0.9, 0.8, 0.3, 0.4, 0.5, 0.5, 0.2, 0.7, 0.6]
LABELS = [1, 0, 1, 0, 0, 1, 0, 1, 1]

ROWS = st.lists(st.tuples(st.integers(0, 1), st.integers(-4, 4), st.integers(0, 3)), max_size=40)


def pairwise_auc(labels, scores, weights):
    """The definition, pair by pair."""
    labels, scores, weights = (np.asarray(a, np.float64) for a in (labels, scores, weights))
    won = total = 0.0
    for i in np.flatnonzero(labels == 1):
        for j in np.flatnonzero(labels == 0):
            weight = weights[i] * weights[j]
            won += weight * ((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
            total += weight
    return won / total if total else math.nan


def test_auc_counts_ordered_pairs_and_half_of_ties():
    # 5 positives x 4 negatives: 13 pairs in order and one tie of 0.5 make 13.5 of 20.
    assert auc(LABELS, SCORES) == 0.675


def test_dislike_auc_of_the_complement_is_the_auc():
    reverse = auc(1 - np.array(LABELS), 1 - np.array(SCORES))
    assert reverse == pytest.approx(0.675, abs=1e-15)


def test_a_perfect_a_reversed_and_a_constant_order_score_one_zero_and_a_half():
    assert auc([0, 0, 1, 1], [1, 2, 3, 4]) == 1.0
    assert auc([0, 0, 1, 1], [4, 3, 2, 1]) == 0.0
    assert auc([0, 1, 0, 1], [7, 7, 7, 7]) == 0.5


def test_weights_count_like_repeated_rows():
    repeated = auc([1, 1, 0, 0, 0, 1], [3, 3, 2, 4, 4, 1])
    assert auc([1, 0, 0, 1], [3, 2, 4, 1], sample_weight=[2, 1, 2, 1]) == repeated


@given(ROWS)
def test_auc_equals_its_pairwise_definition(rows):
    labels, scores, weights = zip(*rows, strict=True) if rows else ((), (), ())
    ones = np.ones(len(rows))
    np.testing.assert_allclose(auc(labels, scores), pairwise_auc(labels, scores, ones), atol=1e-12)
    np.testing.assert_allclose(
        auc(labels, scores, weights), pairwise_auc(labels, scores, weights), atol=1e-12
    )


@given(ROWS, st.randoms(use_true_random=False))
def test_auc_does_not_depend_on_the_order_of_rows(rows, random):
    shuffled = random.sample(rows, len(rows))
    np.testing.assert_equal(
        auc([r[0] for r in shuffled], [r[1] for r in shuffled]),
        auc([r[0] for r in rows], [r[1] for r in rows]),
    )


def test_auc_equals_scikit_learn_on_many_rows_with_ties_and_weights():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=20_000)
    scores = np.round(rng.normal(size=20_000) + 0.3 * labels, 2)
    weights = rng.random(20_000)
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    referee = roc_auc_score(labels, scores, sample_weight=weights)
    assert auc(labels, scores, weights) == pytest.approx(referee, abs=1e-12)


def test_logits_beyond_the_range_of_the_sigmoid_keep_their_order():
    labels, logits = [0, 1, 0, 1], np.array([-np.inf, 800.0, 799.0, np.inf])
    assert auc(labels, logits) == 1.0


@pytest.mark.parametrize("labels", [[], [0, 0, 0], [1, 1, 1]])
def test_a_missing_class_gives_nan(labels):
    assert math.isnan(auc(labels, np.arange(len(labels))))


def test_weightless_positives_give_nan():
    assert math.isnan(auc([1, 0], [1, 0], sample_weight=[0, 1]))


@pytest.mark.parametrize(
    ("labels", "scores", "weights", "message"),
    [
        ([0, 1], [0.1, 0.2, 0.3], None, "scores has 3 entries and labels 2"),
        ([0, 2], [0.1, 0.2], None, "labels must be 0 or 1"),
        ([0, math.nan], [0.1, 0.2], None, "labels must be 0 or 1"),
        ([0, 1, 1], [0.1, math.nan, math.nan], None, "scores holds 2 NaN, the first at row 1"),
        ([[0, 1]], [[0.1, 0.2]], None, "labels must be one-dimensional"),
        ([0, 1], [0.1, 0.2], [1, -1], "sample_weight must hold finite numbers"),
        ([0, 1], [0.1, 0.2], [1], "sample_weight has 1 entries"),
    ],
)
def test_unusable_inputs_are_refused(labels, scores, weights, message):
    with pytest.raises(ValueError, match=message):
        auc(labels, scores, weights)


def test_relative_improvement_is_in_percent_as_in_the_dfn_table():
    assert rela_impr(0.7898, 0.7591) == pytest.approx(11.848707, abs=1e-6)
    assert rela_impr(0.8804, 0.6979) == pytest.approx(92.218292, abs=1e-6)
    assert rela_impr(0.7, 0.7) == 0.0


def test_relative_improvement_over_a_coin_is_nan():
    assert math.isnan(rela_impr(0.7, 0.5))


def test_metrics_and_simulation_load_without_tensorflow():
    code = (
        "import sys, tfrec_feedback.metrics, tfrec_feedback.data.sources.simulated\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
