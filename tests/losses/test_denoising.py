import pytest
import tensorflow as tf

from tfrec_feedback.losses import FeedbackCrossEntropy, Reweighted, Truncated, denoising_loss

BASE = FeedbackCrossEntropy(reduction="sum")


def test_names_make_losses():
    assert denoising_loss(BASE) is BASE
    assert denoising_loss(BASE, "ce", reduction="sum") is BASE
    step = tf.Variable(3, dtype=tf.int64)
    truncated = denoising_loss(
        BASE,
        "tce",
        max_rate=0.1,
        num_steps=10,
        drop_base="positives",
        rounding="ceil",
        scope="global",
        max_positive_fraction=0.4,
        step=step,
    )
    assert isinstance(truncated, Truncated) and truncated.base is BASE
    assert truncated.step is step and float(truncated.drop_rate()) == pytest.approx(0.03)
    reweighted = denoising_loss(BASE, "rce", reduction="none", beta=0.1, negatives="plain")
    assert isinstance(reweighted, Reweighted) and reweighted.reduction == "none"
    assert (reweighted.beta, reweighted.negatives) == (0.1, "plain")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rcee", {}, "Unknown loss 'rcee'.*Did you mean 'rce'"),
        ("ce", {"beta": 0.1}, "Loss 'ce' has no option 'beta'.*It is one of 'rce'"),
        ("rce", {"max_rate": 0.1}, "Loss 'rce' has no option 'max_rate'.*It is one of 'tce'"),
        ("tce", {"negatives": "plain"}, "Loss 'tce' has no option 'negatives'"),
        ("tce", {"max_rat": 0.1}, "Loss 'tce' has no option 'max_rat'.*Did you mean 'max_rate'"),
        ("ce", {"reduction": "none"}, "Loss 'ce' is its base, whose reduction is 'sum'"),
        ("tce", {"base": BASE}, None),
    ],
)
def test_unknown_names_and_options_are_refused(name, options, message):
    with pytest.raises(ValueError if message else TypeError, match=message):
        denoising_loss(BASE, name, **options)
