import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tests.layers.conformance import check_layer
from tfrec_feedback.layers import FeaturePurification

VECTORS = st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3)


@pytest.mark.parametrize(
    ("implicit", "explicit", "purified"),
    [
        ((3, 1), (1, 1), (1, -1)),
        ((3, 4), (2, 0), (0, 4)),
        ((3, 4), (0, 0), (3, 4)),
        ((2, 4), (1, 2), (0, 0)),
        ((0, 0), (1, 2), (0, 0)),
    ],
)
def test_golden_values(implicit, explicit, purified):
    result = FeaturePurification()(tf.constant(implicit, tf.float32), np.float32(explicit))
    np.testing.assert_allclose(result, purified, atol=1e-6)


def test_no_explicit_feedback_gives_no_gradient_and_tiny_ones_a_bounded_one():
    implicit = tf.constant([3.0, 4.0])
    for size, bound in ((0.0, 0.0), (1e-5, 5.0 / 1e-3)):
        explicit = tf.Variable([size, 0.0])
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(FeaturePurification()(implicit, explicit))
        assert np.abs(tape.gradient(total, explicit)).max() <= bound


@given(VECTORS, VECTORS)
def test_what_is_left_is_orthogonal_to_the_explicit_feedback(implicit, explicit):
    if np.linalg.norm(explicit) < 1e-2:
        return
    left = FeaturePurification()(tf.constant(implicit), tf.constant(explicit)).numpy()
    scale = max(1.0, np.linalg.norm(implicit)) * np.linalg.norm(explicit)
    assert abs(np.dot(left, explicit)) <= 1e-5 * scale


def test_conformance_and_broadcast_over_candidates():
    result = check_layer(FeaturePurification(), tf.ones([2, 3, 4]), tf.ones([2, 1, 4]))
    assert result.shape == (2, 3, 4)
