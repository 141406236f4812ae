import numpy as np
import pytest
import tensorflow as tf

from tests.examples import random_batch, random_labels, small_schema
from tfrec_feedback.losses import FeedbackCrossEntropy, Reweighted, Truncated
from tfrec_feedback.models import build_model
from tfrec_feedback.models.denoising_monitor import SUMS, DenoisingMonitor

SCHEMA = small_schema()
USERS, ITEMS, R, N = 9, 20, 6, 5


def losses():
    truncated = Truncated(FeedbackCrossEntropy(), max_rate=0.4, num_steps=2, drop_base="positives")
    return {
        "ce": FeedbackCrossEntropy(),
        "tce": truncated,
        "rce": Reweighted(FeedbackCrossEntropy(), beta=0.5),
    }


def batch(seed):
    """Encoded requests of some sizes; what stands at padded candidates is not to be looked at."""
    rng = np.random.default_rng(seed)
    sizes = np.array([5, 3, 0, 1, 4, 5])
    valid = np.arange(N) < sizes[:, None]
    offsets = SCHEMA.table_offsets()
    user, item = rng.integers(0, USERS, R), rng.integers(0, ITEMS, (R, N))
    context = np.zeros([R, 4], np.int32)  # hour, user_id, two interests
    context[:, 1] = offsets["user_id"] + 2 + user
    candidate = np.zeros([R, N, 5], np.int32)  # item_id, three tags, duration
    candidate[..., 0] = np.where(valid, offsets["item_id"] + 2 + item, 0)
    labels = {
        "ctr": rng.random((R, N)) < 0.7,
        "dislike": rng.random((R, N)) < 0.2,
        "false_positive": rng.random((R, N)) < 0.4,
    }
    logits = np.where(valid, rng.normal(size=(R, N)), np.nan).astype(np.float32)
    share = np.where(valid, 0.25, 0.0).astype(np.float32)
    encoded = {"context_rows": tf.constant(context), "candidate_rows": tf.constant(candidate)}
    labels = {name: label.astype(np.float32) for name, label in labels.items()}
    return encoded, labels, logits, share, valid, user, item


def record(monitor, made, known=True):
    encoded, labels, logits, share, *_ = made
    kept = {k: tf.constant(v) for k, v in labels.items() if known or k != "false_positive"}
    step = tf.function(monitor.record)
    step(encoded, kept, tf.constant(logits), tf.constant(share))


def referee(name, rate, made):
    """The sums of a batch and the counts by user and item, one click after another."""
    _, labels, logits, _, valid, user, item = made
    sums = dict.fromkeys(SUMS, 0.0) | {"batches": 1.0, "elements": float(valid.sum())}
    users, items = np.zeros([USERS, 2]), np.zeros([ITEMS, 2])
    clicks = [
        (r, n)
        for r, n in np.ndindex(R, N)
        if valid[r, n] and labels["ctr"][r, n] and not labels["dislike"][r, n]
    ]
    entropy = {at: np.log1p(np.exp(-float(logits[at]))) for at in clicks}
    count = int(rate * len(clicks) + 1e-9) if name == "tce" else 0
    dropped = set(sorted(clicks, key=lambda at: -entropy[at])[:count])
    sums["drop_rate"] = rate if name == "tce" else 0.0
    for at in clicks:
        weight = np.exp(-0.5 * entropy[at]) if name == "rce" else float(at not in dropped)
        false = labels["false_positive"][at] > 0
        sums["known"] += 1
        for suffix in ("", "_false") if false else ("",):
            sums["false_positives" if suffix else "positives"] += 1
            sums[f"loss{suffix}"] += entropy[at]
            sums[f"dropped{suffix}"] += at in dropped
            sums[f"weight{suffix}"] += weight
        users[user[at[0]]] += [1, at in dropped]
        items[item[at]] += [1, at in dropped]
    return sums, users, items


@pytest.mark.parametrize("name", ["ce", "tce", "rce"])
def test_the_sums_of_a_window_are_those_of_its_clicks_one_by_one(name):
    loss = losses()[name]
    monitor = DenoisingMonitor(SCHEMA, loss)
    expected, users, items = dict.fromkeys(SUMS, 0.0), np.zeros([USERS, 2]), np.zeros([ITEMS, 2])
    for step in range(3):
        if name == "tce":
            loss.step.assign(step)
        made = batch(seed=step)
        record(monitor, made)
        sums, of_users, of_items = referee(name, min(0.2 * step, 0.4), made)
        expected = {key: expected[key] + value for key, value in sums.items()}
        users, items = users + of_users, items + of_items
    assert monitor.read() == pytest.approx(expected, rel=1e-5)
    rows = monitor.read_rows()
    if name != "tce":
        assert rows == {}
        return
    assert expected["dropped"] > expected["dropped_false"] > 0
    for kind, counts in (("users", users), ("items", items)):
        np.testing.assert_array_equal(np.transpose(rows[kind])[2 : 2 + len(counts)], counts)
        assert rows[kind].positives.sum() == counts[:, 0].sum()


def test_reading_starts_a_new_window():
    monitor = DenoisingMonitor(SCHEMA, losses()["tce"])
    record(monitor, batch(0))
    assert monitor.read()["batches"] == 1
    assert set(monitor.read().values()) == {0.0}
    assert monitor.read_rows()["users"].positives.any()
    assert not monitor.read_rows()["users"].positives.any()


def test_without_a_truth_no_positive_counts_as_known():
    monitor = DenoisingMonitor(SCHEMA, losses()["tce"])
    record(monitor, batch(0), known=False)
    sums = monitor.read()
    assert sums["positives"] > 0
    assert [sums[k] for k in ("known", "false_positives", "loss_false")] == [0.0, 0.0, 0.0]


def test_users_and_items_that_the_model_does_not_know_are_not_counted():
    monitor = DenoisingMonitor(SCHEMA.without(["user_id"]), losses()["tce"])
    assert sorted(monitor.read_rows()) == ["items"]


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_watching_changes_no_weight(micro_batches):
    """Bit for bit, in a model whose loss truncates."""
    features = random_batch(SCHEMA, 8)
    labels = random_labels(features)
    labels["false_positive"] = labels["ctr"] * tf.cast(features["item_id"] % 2, tf.float32)
    trained = []
    for watched in (False, True):
        tf.keras.utils.set_random_seed(3)
        loss = {"name": "tce", "max_rate": 0.4, "num_steps": 2}
        model = build_model("dfn_no_feedback", SCHEMA, embedding_dim=4, deep_units=[8], loss=loss)
        model.micro_batches = micro_batches
        before = [weight.name for weight in model.weights]
        if watched:
            monitor = model.denoising_monitor = DenoisingMonitor(SCHEMA, model.click_loss)
        model.compile(tf.keras.optimizers.Adam(0.01, jit_compile=False))
        dataset = tf.data.Dataset.from_tensors((features, labels)).repeat(4)
        model.fit(dataset, epochs=1, verbose=0)
        assert [weight.name for weight in model.weights] == before
        trained.append(model.get_weights())
    for plain, watched in zip(*trained, strict=True):
        np.testing.assert_array_equal(plain, watched)
    sums = monitor.read()
    assert sums["batches"] == 4 * micro_batches
    assert sums["dropped"] > 0


def test_a_monitor_is_shown_training_batches_alone():
    features = random_batch(SCHEMA, 4)
    model = build_model("dfn_no_feedback", SCHEMA, embedding_dim=4, deep_units=[8])
    monitor = model.denoising_monitor = DenoisingMonitor(SCHEMA, model.click_loss)
    model.compute_loss((features, random_labels(features)))
    assert monitor.read()["batches"] == 0
    model.compute_loss((features, random_labels(features)), training=True)
    assert monitor.read()["batches"] == 1
