import numpy as np
import pytest

from tests.denoising.examples import counts, epochs, record
from tfrec_feedback.denoising import pictures
from tfrec_feedback.denoising.grid import Point, Sensitivity
from tfrec_feedback.pictures import NothingToDrawError

UNKNOWN = dict.fromkeys(("known", "false_positives", "loss_false", "dropped_false"), [0, 0])


def lines(ax):
    return {line.get_label(): line.get_ydata() for line in ax.get_lines()}


def test_losses_are_drawn_window_by_window():
    (ax,) = pictures.losses(record("ce")).axes
    np.testing.assert_allclose(lines(ax)["true positives"], [0.5, 0.6])
    np.testing.assert_allclose(lines(ax)["false positives"], [1.0, 1.2])
    assert ax.get_lines()[0].get_xdata().tolist() == [10, 20]


def test_what_is_dropped_stands_beside_what_chance_would_drop():
    recall, precision = pictures.drops(record()).axes
    np.testing.assert_allclose(lines(recall)["truncated loss"], [0.0, 0.6])
    np.testing.assert_allclose(lines(recall)["at random: share of all clicks dropped"], [0.0, 0.4])
    np.testing.assert_allclose(lines(recall)["drop rate of the schedule"], [0.0, 0.2])
    np.testing.assert_allclose(lines(precision)["truncated loss"], [np.nan, 0.75])
    at_random = "at random: share of all clicks that is false"
    np.testing.assert_allclose(lines(precision)[at_random], [0.4, 0.5])


def test_without_a_truth_the_share_dropped_is_drawn():
    (ax,) = pictures.drops(record(**UNKNOWN)).axes
    assert ax.get_title() == "Share dropped"
    assert len(lines(ax)) == 2


def test_weights_are_drawn_of_a_loss_that_weighs():
    (ax,) = pictures.weights(record("rce")).axes
    np.testing.assert_allclose(lines(ax)["false positives"], [1.0, 0.4])


def test_groups_that_lose_too_many_have_another_colour():
    users, items = pictures.groups(record()).axes
    assert [round(bar.get_height(), 2) for bar in items.patches] == [0.9, 0.3, 0.2, 0.2]
    colours = [bar.get_facecolor() for bar in items.patches]
    assert colours[0] != colours[1] == colours[2] == colours[3]
    assert len({bar.get_facecolor() for bar in users.patches}) == 1
    assert items.get_xticklabels()[0].get_text() == "least popular\n50 items\nup to 3 clicks"
    assert lines(items)["all clicks: 40.0%"] is not None


def test_a_group_of_nobody_is_named_so():
    nobody = counts([9, 0, 0, 0], positives=(40, 0, 0, 0))
    (ax,) = pictures.groups(record(groups={"users": epochs(nobody)})).axes
    assert [text.get_text() for text in ax.texts] == ["22.5%", "nobody", "nobody", "nobody"]


@pytest.mark.parametrize(
    ("draw", "given", "reason"),
    [
        (pictures.losses, None, "kept no diagnostics"),
        (pictures.losses, record(**UNKNOWN), "do not say which clicks were mistakes"),
        (pictures.drops, record("rce"), r"the loss \(rce\) drops no clicks"),
        (pictures.weights, record("tce"), r"the loss \(tce\) weighs all clicks alike"),
        (pictures.weights, record("rce", **UNKNOWN), "do not say which"),
        (pictures.groups, record("ce"), "drops no clicks"),
        (pictures.groups, record("tce", groups={}), "neither users nor items by id"),
        (pictures.sensitivity, Sensitivity("", [], {}, {}), "no evaluated run with loss.name"),
    ],
)
def test_what_cannot_be_drawn_says_why(draw, given, reason):
    with pytest.raises(NothingToDrawError, match=reason):
        draw(given)


def test_sensitivity_is_a_line_a_rate_and_one_of_betas():
    def points(*values):
        return [Point(value, value - 0.1, value + 0.1) for value in values]

    truncated = {(0.1, 1000): points(0.5, 0.7), (0.1, 500): points(0.4), (0.2, 500): points(0.3)}
    found = Sensitivity("Recall@20", points(0.25), truncated, {0.2: points(0.5), 0.1: points(0.4)})
    left, right = pictures.sensitivity(found).axes
    drawn = {c.get_label(): c.lines[0].get_ydata().tolist() for c in left.containers}
    assert drawn == {"max_rate 0.1": pytest.approx([0.4, 0.6]), "max_rate 0.2": [0.3]}
    assert [t.get_text() for t in left.get_xticklabels()] == ["500", "1,000"]
    assert right.containers[0].lines[0].get_xdata().tolist() == [0.1, 0.2]
    assert "ce: 0.2500" in lines(left)
    assert left.get_ylim() == right.get_ylim()
    assert left.get_ylabel() == "test Recall@20, mean over seeds"
