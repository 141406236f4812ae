import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.golden import TRIPLET
from tfrec_feedback.losses import MININGS, SampledItems, cosine_distance, triplet_loss


def items(vectors, requests, keys):
    shaped = np.float32(vectors).reshape(len(requests), -1 if len(requests) else 2)
    return SampledItems(
        tf.constant(shaped), tf.constant(requests, tf.int64), tf.constant(keys, tf.int64)
    )


def loss(anchors, requests, positives, negatives, **options):
    anchors = np.float32(anchors).reshape(len(requests), 2)
    requests = tf.constant(requests, tf.int64)
    return float(triplet_loss(tf.constant(anchors), requests, positives, negatives, **options))


def test_golden_distances():
    others = [TRIPLET[key] for key in ("positive", "far_negative", "near_negative")]
    anchor = tf.constant([TRIPLET["anchor"]] * 3)
    np.testing.assert_allclose(
        cosine_distance(anchor, tf.constant(others)), TRIPLET["distances"], atol=1e-6
    )
    zero = tf.Variable(tf.zeros([2]))
    with tf.GradientTape() as tape:
        distance = cosine_distance(zero, tf.ones([2]))
    assert float(distance) == 1.0
    assert not np.any(tape.gradient(distance, zero))


@pytest.mark.parametrize("mining", MININGS)
def test_golden_losses_of_one_pair(mining):
    positive = items([TRIPLET["positive"]], [0], [1])
    for key, expected in (("far_negative", 0.0), ("near_negative", TRIPLET["loss_near"])):
        negative = items([TRIPLET[key]], [0], [2])
        found = loss([TRIPLET["anchor"]], [0], positive, negative, mining=mining)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_golden_batch_hard_takes_the_farthest_positive_and_the_nearest_negative():
    positives = items([[1, 1], [1, 0], [0, 2]], [0, 0, 1], [1, 2, 3])
    negatives = items([[0, 1], [2, 1], [-1, 0]], [0, 1, 1], [4, 5, 6])
    found = loss([TRIPLET["anchor"]], [0], positives, negatives)
    np.testing.assert_allclose(found, TRIPLET["batch_hard"], atol=1e-6)


def test_user_hard_and_random_use_what_was_drawn_for_the_request():
    positives = items([[1, 1], [1, 0], [0, 2]], [0, 0, 1], [1, 2, 3])
    negatives = items([[0, 1], [2, 1], [-1, 0]], [0, 0, 1], [4, 5, 6])
    # Farthest positive of request 0: (1, 1) at 0.292893; nearest negative: (2, 1) at 0.105573.
    found = loss([[1, 0]], [0], positives, negatives, mining="user_hard")
    np.testing.assert_allclose(found, TRIPLET["loss_near"], atol=1e-6)
    # First of each: (1, 1) at 0.292893 and (0, 1) at 1: nothing left to lose.
    assert loss([[1, 0]], [0], positives, negatives, mining="random") == 0.0


def test_what_is_or_was_drawn_as_a_positive_is_no_negative():
    positives = items([[1, 1], [1, 0]], [0, 1], [1, 2])
    near = [[1, 0.1], [0, 1]]
    # Key 1 was drawn as a positive of request 0 and is the farthest positive: excluded there.
    same = items(near, [0, 0], [1, 9])
    assert loss([[1, 0]], [0], positives, same) == 0.0
    other = items(near, [0, 0], [8, 9])
    assert loss([[1, 0]], [0], positives, other) > 0.4
    # Request 1 drew key 2; the chosen positive (1, 1) has key 1: both are excluded for it.
    both = items([[1, 0.1], [1, 0.2], [0, 1]], [0, 0, 0], [1, 2, 9])
    assert loss([[1, 0]], [1], positives, both) == 0.0


def test_the_first_negative_is_none_if_it_was_drawn_as_any_positive_of_the_request():
    positives = items([[1, 1], [0, 1]], [0, 0], [1, 2])
    second_positive = items([[2, 1]], [0], [2])
    assert loss([[1, 0]], [0], positives, second_positive, mining="random") == 0.0
    another = items([[2, 1]], [0], [3])
    found = loss([[1, 0]], [0], positives, another, mining="random")
    np.testing.assert_allclose(found, TRIPLET["loss_near"], atol=1e-6)


def test_anchors_without_a_partner_do_not_count():
    positives = items([TRIPLET["positive"]], [0], [1])
    negatives = items([TRIPLET["near_negative"]], [0], [2])
    # Of three anchors only that of request 0 has items of its own.
    for mining in ("user_hard", "random"):
        found = loss([TRIPLET["anchor"]] * 3, [0, 1, 2], positives, negatives, mining=mining)
        np.testing.assert_allclose(found, TRIPLET["loss_near"], atol=1e-6)


@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize("empty", ["anchors", "positives", "negatives", "all"])
def test_without_a_usable_anchor_loss_and_gradient_are_exactly_0(mining, empty):
    one, none = items([[1, 1]], [0], [1]), items([], [], [])
    positives = none if empty in ("positives", "all") else one
    negatives = none if empty in ("negatives", "all") else items([[2, 1]], [0], [2])
    requests = [] if empty in ("anchors", "all") else [0]
    anchors = tf.Variable(np.ones([len(requests), 2], np.float32))
    with tf.GradientTape() as tape:
        found = triplet_loss(
            anchors, tf.constant(requests, tf.int64), positives, negatives, mining=mining
        )
    assert float(found) == 0.0
    assert not np.any(tape.gradient(found, anchors))


def plain_loss(anchors, requests, positives, negatives, margin, mining):
    """A loop over anchors, from the definition."""
    losses = []
    for anchor, request in zip(anchors, requests, strict=True):
        own = [i for i, r in enumerate(positives.requests.numpy()) if r == request]
        own_negative = [i for i, r in enumerate(negatives.requests.numpy()) if r == request]
        pool = range(len(positives.requests)) if mining == "batch_hard" else own
        against = range(len(negatives.requests)) if mining == "batch_hard" else own_negative
        if mining == "random":
            pool, against = own[:1], own_negative[:1]

        def distance(vector, anchor=anchor):
            norms = np.linalg.norm(vector) * np.linalg.norm(anchor)
            return 1.0 - (vector @ anchor / norms if norms else 0.0)

        far = sorted((-distance(positives.vectors[i].numpy()), i) for i in pool)
        if not far:
            continue
        chosen = far[0][1]
        drawn = {int(positives.keys[i]) for i in [*own, chosen]}
        near = sorted(
            distance(negatives.vectors[i].numpy())
            for i in against
            if int(negatives.keys[i]) not in drawn
        )
        if near:
            losses.append(max(-far[0][0] - near[0] + margin, 0.0))
    return np.mean(losses) if losses else 0.0


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), mining=st.sampled_from(MININGS))
def test_equals_a_plain_loop(seed, mining):
    rng = np.random.default_rng(seed)

    def drawn():
        requests = np.sort(rng.integers(0, 4, rng.integers(0, 7)))
        return items(
            rng.normal(size=(len(requests), 2)), requests, rng.integers(0, 5, len(requests))
        )

    positives, negatives = drawn(), drawn()
    requests = rng.integers(0, 4, 5)
    anchors = rng.normal(size=(5, 2)).astype(np.float32)
    found = loss(anchors, requests, positives, negatives, margin=0.3, mining=mining)
    expected = plain_loss(anchors, requests, positives, negatives, 0.3, mining)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_graph_takes_batches_of_any_size():
    graph = tf.function(
        lambda a, r, p, n: triplet_loss(a, r, SampledItems(*p), SampledItems(*n)),
        reduce_retracing=True,
    )
    for size in (0, 1, 3, 5):
        pool = items(np.eye(2)[np.arange(size) % 2], list(range(size)), list(range(size)))
        other = items(np.eye(2)[::-1][np.arange(size) % 2], list(range(size)), [9] * size)
        anchors, requests = tf.ones([size, 2]), tf.range(size, dtype=tf.int64)
        eager = triplet_loss(anchors, requests, pool, other)
        np.testing.assert_allclose(graph(anchors, requests, tuple(pool), tuple(other)), eager)


def test_an_unknown_mining_is_refused():
    one = items([[1, 1]], [0], [1])
    with pytest.raises(ValueError, match=r"mining must be one of .*batch_hard.*, got 'hardest'"):
        loss([[1, 0]], [0], one, one, mining="hardest")
