import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrec_feedback.metrics import auc, grouped_auc, grouped_auc_report

SCORES = [0.9, 0.8, 0.3, 0.4, 0.5, 0.5, 0.2, 0.7, 0.6]
LABELS = [1, 0, 1, 0, 0, 1, 0, 1, 1]
GROUPS = [0, 0, 0, 0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [
        ("impressions", (4 * 0.5 + 3 * 0.75) / 7),  # 0.607143
        ("clicks", (2 * 0.5 + 1 * 0.75) / 3),
        ("uniform", (0.5 + 0.75) / 2),
    ],
)
def test_groups_are_averaged_by_their_weights(weighting, expected):
    assert grouped_auc(LABELS, SCORES, GROUPS, weighting) == pytest.approx(expected, abs=1e-15)


def test_impressions_are_the_default_weighting():
    assert grouped_auc(LABELS, SCORES, GROUPS) == pytest.approx(0.607143, abs=1e-6)


def test_the_report_shows_every_group_and_what_was_skipped():
    report = grouped_auc_report(LABELS, SCORES, GROUPS, "clicks")
    assert (report.num_groups, report.num_single_class) == (3, 1)
    assert report.skipped_share == 2 / 9
    np.testing.assert_array_equal(report.groups, [0, 1, 2])
    np.testing.assert_array_equal(report.aucs, [0.5, 0.75, np.nan])
    np.testing.assert_array_equal(report.weights, [2, 1, 0])


@pytest.mark.parametrize("kind", [str, lambda g: b"user-%d" % g, lambda g: -7 * g])
def test_groups_may_be_strings_bytes_or_any_integers(kind):
    groups = [kind(g) for g in GROUPS]
    assert grouped_auc(LABELS, SCORES, groups) == grouped_auc(LABELS, SCORES, GROUPS)
    as_objects = np.array(groups, dtype=object)
    assert grouped_auc(LABELS, SCORES, as_objects) == grouped_auc(LABELS, SCORES, GROUPS)


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(-3, 3), st.integers(0, 5)), min_size=1, max_size=60
    ),
    st.randoms(use_true_random=False),
)
def test_every_group_gets_the_auc_of_its_own_rows_in_any_order(rows, random):
    rows = random.sample(rows, len(rows))
    labels, scores, groups = (np.array(column) for column in zip(*rows, strict=True))
    report = grouped_auc_report(labels, scores, groups)
    for name, value in zip(report.groups, report.aucs, strict=True):
        own = groups == name
        np.testing.assert_allclose(value, auc(labels[own], scores[own]), atol=1e-12)


def test_a_score_per_group_moves_the_auc_but_not_the_grouped_auc():
    labels, scores, groups = (np.array(a) for a in (LABELS, SCORES, GROUPS))
    shifted = scores - 10.0 * groups  # The clicks of group 2 fall to the bottom.
    assert grouped_auc(labels, shifted, groups) == grouped_auc(labels, scores, groups)
    assert auc(labels, shifted) < auc(labels, scores)


def test_without_a_usable_group_the_value_is_nan_and_all_is_skipped():
    report = grouped_auc_report([1, 1, 0], [1, 2, 3], ["a", "a", "b"])
    assert math.isnan(report.value)
    assert report.skipped_share == 1.0
    assert math.isnan(grouped_auc([], [], []))


@pytest.mark.parametrize(
    ("groups", "weighting", "message"),
    [
        ([0, 0], "impressions", "groups has 2 entries and labels 9"),
        (GROUPS, "rows", "weighting must be one of"),
        (np.array([None, *GROUPS[1:]], dtype=object), "clicks", "without missing values"),
    ],
)
def test_unusable_groups_are_refused(groups, weighting, message):
    with pytest.raises(ValueError, match=message):
        grouped_auc(LABELS, SCORES, groups, weighting)
