import numpy as np
import pytest
import tensorflow as tf

from tests.golden import DFN_LOSS as GOLDEN
from tfrec_feedback.losses import FeedbackCrossEntropy, feedback_type

TYPES = feedback_type(tf.constant([1, 0, 1]), tf.constant([0, 0, 1]))
LOGITS = tf.constant(GOLDEN["logits"])


def test_a_dislike_outranks_a_click():
    np.testing.assert_array_equal(TYPES, [1.0, 0.0, 2.0])


def test_golden_loss_divides_by_the_number_of_instances():
    np.testing.assert_allclose(FeedbackCrossEntropy()(TYPES, LOGITS), GOLDEN["loss"], rtol=1e-6)
    unweighted = FeedbackCrossEntropy(dislike_weight=1.0)
    np.testing.assert_allclose(unweighted(TYPES, LOGITS), GOLDEN["unweighted"], rtol=1e-6)
    np.testing.assert_allclose(unweighted.call(TYPES, LOGITS), GOLDEN["terms"], rtol=1e-6)


def test_extreme_logits_stay_finite():
    losses = FeedbackCrossEntropy().call(TYPES, tf.constant([-1e6, 1e6, 1e6]))
    np.testing.assert_allclose(losses, [1e6, 1e6, 1e7])


@pytest.mark.parametrize("kind", ["click", "unclick", "dislike"])
@pytest.mark.parametrize("weight", [-3.0, float("nan"), float("inf")])
def test_weights_must_be_finite_and_not_negative(kind, weight):
    with pytest.raises(ValueError, match=f"{kind}_weight must be a finite number >= 0"):
        FeedbackCrossEntropy(**{f"{kind}_weight": weight})


def test_config_round_trip():
    loss = FeedbackCrossEntropy(2.0, 3.0, 4.0, reduction="sum")
    twin = FeedbackCrossEntropy.from_config(loss.get_config())
    np.testing.assert_array_equal(twin(TYPES, LOGITS), loss(TYPES, LOGITS))
