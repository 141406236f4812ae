"""What the figures show, read from their artists."""

import math

import numpy as np

from tfrec_feedback.benchmark import plots

MODELS = (
    *("fm", "wide_deep", "pnn", "deepfm", "nfm", "afm", "dcn", "din", "din_plus", "dien", "dsin"),
    *("autoint", "autoint_umn", "dmt", "dfn", "dumn"),
)


def boxes_of_labels(figure):
    (ax,) = figure.axes
    figure.draw_without_rendering()
    return [text.get_window_extent() for text in ax.texts]


def test_every_row_has_its_dot_interval_and_number():
    figure = plots.auc_intervals(["dfn", "fm"], [0.75, 0.7], [0.74, 0.68], [0.76, 0.72])
    (ax,) = figure.axes
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["dfn", "fm"]
    assert [text.get_text() for text in ax.texts] == ["0.7500", "0.7000"]
    bars, dots = ax.collections
    np.testing.assert_allclose(dots.get_offsets(), [[0.75, 0], [0.7, 1]])
    np.testing.assert_allclose([x[:, 0] for x in bars.get_segments()], [[0.74, 0.76], [0.68, 0.72]])
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # The first row is on top.


def test_a_row_without_interval_is_still_drawn():
    figure = plots.auc_intervals(["fm"], [0.7], [math.nan], [math.nan])
    figure.draw_without_rendering()
    low, high = figure.axes[0].get_xlim()
    assert low < 0.7 < high


def test_labels_of_sixteen_crowded_models_do_not_overlap():
    rng = np.random.default_rng(1)
    latencies, values = np.exp(0.3 * rng.normal(size=16)), 0.7 + 0.002 * rng.normal(size=16)
    figure = plots.auc_against_latency(MODELS, latencies, values, "dfn")
    boxes = boxes_of_labels(figure)
    assert len(boxes) == 16
    overlaps = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    assert overlaps == []
    frame = figure.axes[0].get_window_extent()
    assert all(frame.contains(*box.min) and frame.contains(*box.max) for box in boxes)


def test_labels_of_models_in_one_place_are_moved_apart():
    figure = plots.auc_against_latency(["a", "b", "c"], [1.0, 1.0, 1.0], [0.7, 0.7, 0.7], "a")
    boxes = boxes_of_labels(figure)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_latency_is_read_on_a_log_scale_with_plain_numbers():
    figure = plots.auc_against_latency(["a", "b"], [0.5, 8.0], [0.6, 0.7], "b")
    figure.draw_without_rendering()
    ax = figure.axes[0]
    assert ax.get_xscale() == "log"
    texts = {text.get_text() for minor in (0, 1) for text in ax.get_xticklabels(minor=bool(minor))}
    assert {"0.5", "1", "2", "5"} <= texts


def test_each_model_has_a_panel_with_its_own_curve_in_colour_over_the_others():
    curves = {"dfn": [0.6, 0.7, 0.72], "fm": [0.55, 0.6], "din": [0.5, 0.52, math.nan]}
    figure = plots.learning_curves(curves, "dfn")
    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title(loc="left") for ax in shown] == ["dfn", "fm", "din"]
    for ax, (label, curve) in zip(shown, curves.items(), strict=True):
        *others, own = ax.lines
        assert [line.get_color() for line in others] == [plots.FAINT] * 2
        assert own.get_color() == (plots.BEST if label == "dfn" else plots.OTHER)
        np.testing.assert_array_equal(own.get_xdata(), np.arange(len(curve)) + 1)
        np.testing.assert_array_equal(own.get_ydata(), curve)


def test_calibration_is_drawn_against_the_diagonal_with_its_error():
    curves = {"dfn": ([0.1, 0.4], [0.2, 0.3]), "fm": ([0.2], [0.2])}
    figure = plots.calibration(curves, {"dfn": 0.1, "fm": 0.0}, "dfn")
    dfn, fm = (ax for ax in figure.axes if ax.get_visible())
    diagonal, curve = dfn.lines
    np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    np.testing.assert_array_equal(curve.get_xydata(), [[0.1, 0.2], [0.4, 0.3]])
    assert [ax.texts[0].get_text() for ax in (dfn, fm)] == ["error 0.100", "error 0.000"]
    assert dfn.get_xlim() == fm.get_ylim() and dfn.get_xlim()[1] > 0.4


def test_long_labels_of_a_sweep_are_folded_over_their_panels():
    label = "dfn, dislike_weight=10, num_heads=4"
    figure = plots.learning_curves({label: [0.5], "fm": [0.5]}, "fm")
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["dfn,\ndislike_weight=10,\nnum_heads=4", "fm"]
