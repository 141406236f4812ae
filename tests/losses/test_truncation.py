import math
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.golden import DROP_SCHEDULE, TRUNCATION
from tfrec_feedback.losses import DropSchedule, truncation_weights

LOSSES, LABELS = tf.constant(TRUNCATION["losses"]), tf.constant(TRUNCATION["labels"])


def dropped(*args, **options):
    return np.flatnonzero(truncation_weights(*args, **options).numpy() == 0).tolist()


@pytest.mark.parametrize("case", TRUNCATION["cases"])
def test_golden_choices(case):
    rate, base, rounding, expected, mean, total = case
    keep = truncation_weights(LOSSES, LABELS, rate, base, rounding)
    assert np.flatnonzero(keep.numpy() == 0).tolist() == expected
    np.testing.assert_allclose(tf.reduce_sum(keep * LOSSES), total, rtol=1e-6)
    np.testing.assert_allclose(np.average(LOSSES, weights=keep), mean, rtol=1e-6)


def test_golden_schedules():
    for form in ("paper", "code"):
        schedule = DropSchedule(DROP_SCHEDULE["max_rate"], DROP_SCHEDULE["num_steps"], form)
        rates = [float(schedule(tf.constant(step, tf.int64))) for step in range(8)]
        np.testing.assert_allclose(rates, DROP_SCHEDULE[form], rtol=1e-12)
        assert rates[-1] == DROP_SCHEDULE["max_rate"]


@pytest.mark.parametrize("form", ["paper", "code"])
def test_a_schedule_of_one_step_reaches_its_maximum_after_it(form):
    schedule = DropSchedule(0.3, 1, form)
    assert [float(schedule(step)) for step in (0, 1, 2)] == [0.0, 0.3, 0.3]


def test_counts_are_those_of_decimals():
    losses, labels = tf.range(100, dtype=tf.float32), tf.ones([100])
    for rate in (0.29, np.float64(0.29), np.float32(0.29), tf.constant(0.29)):
        assert len(dropped(losses, labels, rate)) == 29
        assert len(dropped(losses, labels, rate, rounding="ceil")) == 29
    graph = tf.function(lambda rate: truncation_weights(losses, labels, rate))
    for dtype in (tf.float32, tf.float64):
        assert np.sum(graph(tf.constant(0.29, dtype)) == 0) == 29
    assert len(dropped(losses, labels, 0.2901, rounding="ceil")) == 30


def referee(losses, labels, rate, base, rounding, fraction, weights):
    """Drops one positive after the other, in exact arithmetic."""
    part = [i for i in range(len(losses)) if weights[i] > 0]
    positives = [i for i in part if labels[i] == 1]
    share = Fraction(str(rate)) * len(part if base == "batch" else positives)
    count = math.floor(share) if rounding == "floor" else math.ceil(share)
    count = min(count, math.floor(Fraction(str(fraction)) * len(positives)))
    keep = np.ones(len(losses))
    for _ in range(count):
        largest = max(losses[i] for i in positives)
        first = next(i for i in positives if losses[i] == largest)
        positives.remove(first)
        keep[first] = 0
    return keep


cases = st.fixed_dictionaries(
    {
        "rows": st.lists(
            st.tuples(
                st.sampled_from([0.0, 0.25, 0.5, 1.0, 7.0]),  # few values: many ties
                st.sampled_from([0, 1, 1, 2]),
                st.sampled_from([0.0, 0.5, 1.0]),
            ),
            max_size=25,
        ),
        "rate": st.sampled_from([0.0, 0.05, 0.1, 0.2, 0.29, 0.3, 0.5, 0.7, 1.0]),
        "base": st.sampled_from(["batch", "positives"]),
        "rounding": st.sampled_from(["floor", "ceil"]),
        "fraction": st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]),
    }
)


@settings(max_examples=150)
@given(case=cases)
@example(case={"rows": [], "rate": 1.0, "base": "batch", "rounding": "ceil", "fraction": 1.0})
def test_equals_a_referee_that_drops_one_by_one(case):
    rows = np.array(case["rows"], np.float32).reshape(-1, 3)
    losses, labels, weights = rows.T
    options = [case[key] for key in ("rate", "base", "rounding", "fraction")]
    found = truncation_weights(losses, labels, *options, weights=weights).numpy()
    np.testing.assert_array_equal(found, referee(losses, labels, *options, weights))
    assert np.all(found[(labels != 1) | (weights == 0)] == 1)


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), size=st.integers(0, 40))
def test_order_does_not_matter_without_ties(seed, size):
    rng = np.random.default_rng(seed)
    losses, labels = rng.permutation(size).astype(np.float32), rng.integers(0, 2, size)
    order = rng.permutation(size)
    keep = truncation_weights(losses, labels, 0.3).numpy()
    np.testing.assert_array_equal(
        truncation_weights(losses[order], labels[order], 0.3), keep[order]
    )


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), padding=st.integers(0, 10))
def test_padding_is_neither_counted_nor_dropped(seed, padding):
    rng = np.random.default_rng(seed)
    losses, labels = rng.exponential(size=20).astype(np.float32), rng.integers(0, 2, 20)
    garbage = rng.choice(np.float32([np.nan, np.inf, 1e30, -1.0]), padding)
    for base in ("batch", "positives"):
        keep = truncation_weights(losses, labels, 0.2, base)
        padded = truncation_weights(
            np.append(losses, garbage),
            np.append(labels, np.ones(padding)),
            0.2,
            base,
            weights=np.append(np.ones(20), np.zeros(padding)),
        )
        np.testing.assert_array_equal(padded, np.append(keep, np.ones(padding)))


def test_of_equal_losses_the_first_is_dropped_first():
    assert dropped([1.0, 2.0, 2.0, 2.0, 1.0], [1, 0, 1, 1, 1], 0.2) == [2]
    assert dropped([1.0, 2.0, 2.0, 2.0, 1.0], [1, 0, 1, 1, 1], 0.4) == [2, 3]
    assert dropped(tf.zeros([9]), tf.ones([9]), 0.5, max_positive_fraction=1.0) == [0, 1, 2, 3]


def test_where_clicks_are_few_the_guard_keeps_half_of_them():
    labels = np.zeros(100)
    labels[[7, 30, 60]] = 1
    losses = tf.range(100, dtype=tf.float32)
    assert dropped(losses, labels, 0.2) == [60]
    assert dropped(losses, labels, 0.2, max_positive_fraction=1.0) == [7, 30, 60]
    assert dropped(losses, labels, 0.2, max_positive_fraction=0.0) == []


def test_a_loss_that_is_no_number_is_the_largest_and_saves_no_negative():
    assert dropped([1.0, np.nan, np.nan, 5.0], [1, 0, 1, 1], 0.25) == [2]


def test_the_choice_has_no_gradient():
    losses = tf.Variable(TRUNCATION["losses"])
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(truncation_weights(losses, LABELS, 0.2))
    assert tape.gradient(total, losses) is None


@pytest.mark.parametrize("options", [{}, {"reduce_retracing": True}, {"jit_compile": True}])
def test_graphs_and_xla_choose_what_eager_code_chooses(options):
    graph = tf.function(lambda x, y, r, w: truncation_weights(x, y, r, weights=w), **options)
    rng = np.random.default_rng(0)
    for size in (0, 1, 2, 17, 64):
        losses = np.round(rng.exponential(size=size), 1).astype(np.float32)  # with ties
        labels = np.float32(rng.random(size) < 0.7)
        weights = np.float32(rng.random(size) < 0.8)
        for rate in (0.0, 0.1, 0.29, 1.0):
            rate = tf.constant(rate, tf.float64)
            batch = (tf.constant(losses), tf.constant(labels), rate, tf.constant(weights))
            expected = truncation_weights(losses, labels, rate, weights=weights)
            np.testing.assert_array_equal(graph(*batch), expected)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64])
def test_losses_of_any_float_type_are_ranked_as_they_are(dtype):
    keep = truncation_weights(tf.cast(LOSSES, dtype), LABELS, 0.2)
    assert keep.dtype == dtype
    np.testing.assert_array_equal(tf.cast(keep, tf.float32), [1, 1, 1, 0, 1, 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop_rate": 1.5}, "drop_rate must lie between 0 and 1, got 1.5"),
        ({"drop_rate": -0.1}, "drop_rate must lie between 0 and 1"),
        ({"drop_rate": math.nan}, "drop_rate must lie between 0 and 1"),
        ({"drop_base": "negatives"}, "drop_base must be one of .*'positives'.*'negatives'"),
        ({"rounding": "round"}, "rounding must be one of .*'floor', 'ceil'.*'round'"),
        ({"max_positive_fraction": 2}, "max_positive_fraction must lie between 0 and 1, got 2"),
        ({"losses": tf.zeros([2, 3])}, r"losses must have shape \(None,\), got \(2, 3\)"),
        ({"labels": tf.zeros([5])}, r"labels must have shape \(6,\), got \(5,\)"),
        ({"weights": tf.zeros([7])}, r"weights must have shape \(6,\), got \(7,\)"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    arguments = {"losses": LOSSES, "labels": LABELS, "drop_rate": 0.2, **options}
    with pytest.raises(ValueError, match=message):
        truncation_weights(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.2, 5), "max_rate must lie between 0 and 1, got 1.2"),
        ((0.2, 0), "num_steps must be at least 1, got 0"),
        ((0.2, 5, "cosine"), "form must be one of .*'paper', 'code'.*'cosine'"),
    ],
)
def test_wrong_schedules_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DropSchedule(*arguments)
