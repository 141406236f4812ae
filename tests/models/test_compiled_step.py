"""Compiled training steps of DIN do what plain ones do."""

import numpy as np
import pytest
import tensorflow as tf

from tests.examples import random_batch, random_labels, small_schema
from tests.models.conformance import perturbed
from tfrec_feedback.models import build_model
from tfrec_feedback.models.compiled_step import can_compile
from tfrec_feedback.optimizers import LazyAdam

DIN = {
    "embedding_dim": 4,
    "histories": ["click"],
    "attention_units": (6,),
    "deep_units": (8, 4),
}


def batch(requests=4, seed=0, **options):
    """Unknown values, multi-valued fields, empty histories, padded candidates, weights."""
    features = random_batch(small_schema(), requests, seed=seed, **options)
    labels = random_labels(features, seed)
    weights = np.random.default_rng(seed).uniform(0.5, 2.0, labels["ctr"].shape)
    return features, labels, tf.constant(weights, tf.float32)


def trained(data, compiled, optimizer=None, **params):
    """The losses of every step, all weights, and the optimiser's variables."""
    tf.keras.utils.set_random_seed(0)
    model = build_model("din", small_schema(), **{**DIN, **params})
    model.build_weights()
    perturbed(model)
    model.compiled_training = compiled
    model.compile(optimizer or LazyAdam(0.01))
    assert can_compile(model)
    step = tf.function(model.train_step, reduce_retracing=True)
    losses = [step(one)["total_loss"].numpy() for one in data]
    return losses, model.get_weights(), [x.numpy() for x in model.optimizer.variables]


def assert_same(found, expected, atol=1e-4):
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    for one, other in zip(found[1] + found[2], expected[1] + expected[2], strict=True):
        scale = max(np.abs(other).max(), 1e-3)
        np.testing.assert_allclose(one / scale, other / scale, atol=atol)


@pytest.mark.parametrize(
    ("options", "params"),
    [
        ({}, {"histories": ["click", "dislike"]}),
        ({"num_candidates": 1}, {}),
        ({"requests": 1, "longest": 0}, {}),
        ({}, {"attention_units": (6, 3), "dislike_head": True}),
        ({}, {"attention_activation": "relu", "deep_activation": "dice"}),
    ],
)
def test_training_ends_where_that_of_plain_steps_ends(options, params):
    data = [batch(**options)] * 3  # of one shape, which is compiled once
    assert_same(trained(data, True, **params), trained(data, False, **params))


def test_batches_of_several_shapes_are_trained_on_alike():
    data = [batch(), batch(requests=2, seed=1)]
    assert_same(trained(data, True), trained(data, False))


def test_moments_rows_and_decay_are_those_of_plain_steps():
    """But for the padding row, which nothing reads: padded events look it up."""
    data = [batch()] * 2
    found, expected = (
        trained(data, way, LazyAdam(0.01, row_scale=2.0, weight_decay=0.1)) for way in (True, False)
    )
    for weights in (found[1], expected[1]):
        table = next(x for x in weights if x.shape[0] > 90)
        table[0] = 0.0
    assert_same(found, expected)


def test_training_goes_on_with_plain_steps_after_compiled_ones():
    model = build_model("din", small_schema(), **DIN)
    model.compile(LazyAdam(0.01))
    for steps, compiled in enumerate([True, False], start=1):
        model.compiled_training = compiled
        assert np.isfinite(model.train_step(batch())["loss"])
        assert int(model.optimizer.iterations) == steps


def test_fit_takes_compiled_steps_of_a_model_that_has_no_weights_yet():
    model = build_model("din", small_schema(), **DIN)
    model.compiled_training = True
    model.compile(LazyAdam(0.01))
    data = tf.data.Dataset.from_tensors(batch()).repeat(4)
    history = model.fit(data, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert int(model.optimizer.iterations) == 4


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model, "micro_batches", 2),
        lambda model: model.compile(LazyAdam(global_clipnorm=1.0)),
        lambda model: model.compile(LazyAdam(use_ema=True)),
        lambda model: model.compile(tf.keras.optimizers.SGD()),
    ],
)
def test_what_would_not_be_the_same_is_not_compiled(change):
    model = build_model("din", small_schema(), **DIN)
    model.compile(LazyAdam())
    assert can_compile(model)
    change(model)
    model.compiled_training = True
    assert not can_compile(model)
    assert np.isfinite(model.train_step(batch())["loss"])


@pytest.mark.parametrize("params", [{"dropout": 0.5}, {"context_dropout": 0.5}])
def test_dropout_is_drawn_by_plain_steps(params, monkeypatch):
    model = build_model("din", small_schema(), **{**DIN, **params})
    model.compiled_training = True
    model.compile(LazyAdam())
    monkeypatch.setattr("tfrec_feedback.models.din.compiled_step", None)
    assert np.isfinite(model.train_step(batch())["loss"])


def test_a_compiled_step_is_one_compiled_function():
    """The table is not in it: neither read nor written as a whole."""
    model = build_model("din", small_schema(), **DIN)
    model.compiled_training = True
    model.compile(LazyAdam())
    step = tf.function(model.train_step).get_concrete_function(batch())
    functions = step.graph.as_graph_def().library.function
    compiled = [f for f in functions if f.attr["_XlaMustCompile"].b]
    assert len(compiled) == 1
    names = [argument.name for argument in compiled[0].signature.input_arg]
    assert not [name for name in names if "embeddings" in name]


def fitted(data, compiled, at_once, optimizer=None):
    """The loss of every execution, all weights, and the optimiser's variables, after `fit`."""
    tf.keras.utils.set_random_seed(0)
    model = build_model("din", small_schema(), **DIN)
    model.build_weights()
    perturbed(model)
    model.compiled_training = compiled
    model.compile(optimizer or LazyAdam(0.01), steps_per_execution=at_once)
    seen = []
    watch = tf.keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append((batch, logs["total_loss"]))
    )
    parts = [tf.data.Dataset.from_tensors(one) for one in data]
    dataset = parts[0]
    for part in parts[1:]:
        dataset = dataset.concatenate(part)
    model.fit(dataset, callbacks=[watch], verbose=0)
    return seen, model.get_weights(), [x.numpy() for x in model.optimizer.variables]


def test_several_steps_at_once_end_where_single_ones_end():
    """Programs of two steps, two and one; rows come up again and again."""
    data = [batch(seed=seed) for seed in range(5)]
    single, several = fitted(data, True, 1), fitted(data, True, 2)
    losses = [loss for _, loss in single[0]]
    expected = [np.mean(losses[:2]), np.mean(losses[2:4]), losses[4]]
    assert [at for at, _ in several[0]] == [1, 3, 4]
    found = [loss for _, loss in several[0]]
    assert_same((found, *several[1:]), (expected, *single[1:]))
    plain = fitted(data, False, 1)
    assert_same((losses, *single[1:]), ([loss for _, loss in plain[0]], *plain[1:]))


def shapes_of(one):
    return [tuple(x.shape) for x in tf.nest.flatten(one)]


def test_batches_of_several_shapes_are_padded_to_one():
    """In requests, candidates and events; what pads them moves nothing."""
    data = [batch(), batch(requests=2, seed=1, num_candidates=3), batch(longest=1, seed=2)]
    for ours, others in zip(*map(shapes_of, data[:2]), strict=True):
        assert ours[0] > others[0]
    assert shapes_of(data[0][0]) != shapes_of(data[2][0])
    single, several = fitted(data, True, 1), fitted(data, True, 3)
    expected = np.mean([loss for _, loss in single[0]])
    assert_same(([several[0][0][1]], *several[1:]), ([expected], *single[1:]))


def test_steps_at_once_follow_a_schedule_and_decay_as_plain_ones():
    """But for the padding row, which nothing reads."""
    data = [batch(seed=seed) for seed in range(4)]
    schedule = tf.keras.optimizers.schedules.InverseTimeDecay(0.05, 1, 1.0)
    results = []
    for compiled, at_once in [(False, 1), (True, 1), (True, 4)]:
        optimizer = LazyAdam(schedule, row_scale=2.0, weight_decay=0.1)
        _, weights, moments = fitted(data, compiled, at_once, optimizer)
        next(x for x in weights if x.shape[0] > 90)[0] = 0.0
        results.append(([], weights, moments))
    assert_same(results[1], results[0])
    assert_same(results[2], results[0])


def test_steps_that_cannot_be_compiled_are_taken_as_ever_several_an_execution():
    model = build_model("din", small_schema(), **DIN, dropout=0.5)
    model.compiled_training = True
    model.compile(LazyAdam(0.01), steps_per_execution=2)
    model.fit(tf.data.Dataset.from_tensors(batch()).repeat(3), verbose=0)
    assert int(model.optimizer.iterations) == 3
