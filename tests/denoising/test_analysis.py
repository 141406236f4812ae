import numpy as np
import pytest

from tests.denoising.examples import counts, record, series
from tfrec_feedback.denoising.analysis import eaten_groups, group_counts, overall, quality
from tfrec_feedback.denoising.record import DenoisingRecord
from tfrec_feedback.full_ranking import sparsity_groups

NAN = np.nan


def test_quality_is_shares_of_what_was_counted():
    found = quality(series())
    expected = {
        "drop_rate": [0.0, 0.2],
        "dropped": [0.0, 0.4],
        "recall": [0.0, 3 / 5],
        "precision": [NAN, 3 / 4],
        "random_recall": [0.0, 0.4],
        "random_precision": [0.4, 0.5],
        "loss_true": [3.0 / 6, 3.0 / 5],
        "loss_false": [1.0, 6.0 / 5],
        "weight_true": [1.0, 4.0 / 5],
        "weight_false": [1.0, 2.0 / 5],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(found, name), values, err_msg=name)


def test_over_all_windows_counts_are_added_not_shares_averaged():
    found = overall(series())
    assert found.recall == pytest.approx(3 / 9)
    assert found.precision == pytest.approx(3 / 4)
    assert found.random_precision == pytest.approx(9 / 20)
    assert found.random_recall == pytest.approx(4 / 20)


def test_chance_drops_twice_the_rate_of_the_batch_where_half_of_it_is_positive():
    found = quality(series())
    np.testing.assert_allclose(found.random_recall, 2 * found.drop_rate)


def test_nothing_is_said_of_false_positives_where_they_are_not_known():
    nothing = dict.fromkeys(("known", "false_positives", "loss_false", "dropped_false"), [0, 0])
    found = quality(series(**nothing))
    for name in ("recall", "precision", "random_precision", "loss_true", "loss_false"):
        assert np.isnan(getattr(found, name)).all(), name
    np.testing.assert_allclose(found.dropped, [0.0, 0.4])


def test_groups_hold_equally_many_clicks_and_add_up():
    positives = np.array([1, 1, 1, 1, 2, 2, 4, 4])
    dropped = np.array([1, 0, 1, 0, 0, 0, 1, 3])
    found = group_counts(sparsity_groups(positives), positives, dropped)
    assert found.positives.tolist() == [4, 4, 4, 4]
    assert found.rows.tolist() == [4, 2, 1, 1]
    assert found.largest.tolist() == [1, 2, 4, 4]
    assert found.share().tolist() == [0.5, 0.0, 0.25, 0.75]


def test_a_group_is_eaten_above_half_or_above_twice_the_rest():
    # 51 % is too much whatever the others lose; so is 21 % where all lose 10 %.
    half = counts([51, 50, 50, 50])
    twice = counts([21, 7, 6, 6])
    found = eaten_groups({"users": half, "items": twice})
    assert [(g.kind, g.name, g.largest) for g in found] == [
        ("users", "least active", 3),
        ("items", "least popular", 3),
    ]
    assert (found[0].share, found[1].share) == (0.51, 0.21)
    assert found[1].overall == pytest.approx(0.1)


def test_a_group_that_loses_its_share_is_not_eaten():
    assert eaten_groups({"users": counts([20, 7, 7, 6])}) == []  # exactly twice the rest
    assert eaten_groups({"users": counts([0, 0, 0, 0])}) == []


def test_a_handful_of_dropped_clicks_is_chance():
    few = counts([8, 0, 0, 0], positives=(10, 10, 10, 10))
    assert eaten_groups({"users": few}) == []
    assert [group.share for group in eaten_groups({"users": few}, fewest=8)] == [0.8]


def test_a_group_of_nobody_has_no_share():
    found = counts([30, 0, 0, 0], positives=(40, 0, 0, 0))
    assert np.isnan(found.share()[1:]).all()
    assert [group.name for group in eaten_groups({"items": found})] == ["least popular"]


def test_a_record_is_read_as_it_was_written(tmp_path):
    assert DenoisingRecord.load(tmp_path) is None
    written = record()
    written.save(tmp_path)
    read = DenoisingRecord.load(tmp_path)
    assert (read.loss, list(read.series), list(read.groups)) == (
        "tce",
        list(written.series),
        ["users", "items"],
    )
    for name, values in written.series.items():
        np.testing.assert_array_equal(read.series[name], values)
    np.testing.assert_array_equal(read.groups["items"].dropped, written.groups["items"].dropped)
