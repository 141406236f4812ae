"""What every model must do; a new model passes by being named here."""

import numpy as np
import tensorflow as tf

from tests.examples import (
    has_sessions,
    random_batch,
    random_labels,
    random_request,
    random_samples,
    small_schema,
    tensors,
)
from tests.layers.conformance import assert_close
from tfrec_feedback.models import build_model, empty_request


def perturbed(model, seed=0, scale=0.3):
    """Moves every weight away from its start, so that no part of the model is silent."""
    rng = np.random.default_rng(seed)
    weights = [w + rng.normal(0, scale, w.shape).astype(w.dtype) for w in model.get_weights()]
    model.set_weights(weights)
    return model


def valid_logits(model, features):
    mask = np.arange(features["item_id"].shape[1])[None] < features["num_candidates"][:, None]
    return {task: logits.numpy()[mask] for task, logits in model(features).items()}


def check_model(name, tmp_path, schema=None, **params):
    schema = small_schema() if schema is None else schema
    model = perturbed(build_model(name, schema, **params))
    check_calls(model, schema)
    check_invariances(model, schema)
    check_training(model, schema)
    check_saving(model, schema, tmp_path)


def check_calls(model, schema):
    batch = random_batch(schema)
    logits = model(batch)
    assert set(logits) == {"ctr", "dislike"}
    assert all(x.shape == batch["item_id"].shape for x in logits.values())
    assert_close(tf.function(model)(batch), logits, 1e-5)
    assert_close(model(model.encoder(batch)), logits, 0.0)
    for empty in (empty_request(schema), random_batch(schema, 1, num_candidates=1, longest=0)):
        assert all(np.isfinite(x).all() for x in model(empty).values())


def check_invariances(model, schema):
    batch = random_batch(schema, 5)
    expected = valid_logits(model, batch)
    padded = {
        name: tf.concat([x, tf.repeat(x[:, :1], 3, axis=1)], axis=1) if x.shape.rank > 1 else x
        for name, x in batch.items()
    }
    assert_close(valid_logits(model, padded), expected, 2e-5)
    rng = np.random.default_rng(3)
    request = random_request(rng, num_candidates=4, sessions=has_sessions(schema))
    together = model(tensors(schema, [request]))
    for n in range(4):
        columns = {name: values[n : n + 1] for name, values in request["candidates"].items()}
        alone = model(tensors(schema, [{**request, "candidates": columns}]))
        assert_close(alone, {task: x[:, n : n + 1] for task, x in together.items()}, 2e-5)


def check_training(model, schema):
    batch = {**random_batch(schema, 6), **random_samples(schema, 6)}
    labels = random_labels(batch)
    with tf.GradientTape() as tape:
        loss = model.compute_loss((batch, labels), training=True)
    gradients = tape.gradient(loss, model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None, f"{variable.name} gets no gradient"
        values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
        assert np.isfinite(values.numpy()).all()
    model.compile(tf.keras.optimizers.Adam(0.01))
    history = model.fit(tf.data.Dataset.from_tensors((batch, labels)).repeat(20), verbose=0)
    assert history.history["loss"][-1] < float(loss)


def check_saving(model, schema, tmp_path):
    batch = random_batch(schema, 5, seed=7)
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    assert_close(loaded(batch), model(batch), 1e-6)
    assert loaded.get_config() == model.get_config()
