"""The baselines against a referee in numpy loops that shares nothing among candidates."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.examples import random_batch, random_labels, small_schema
from tests.models import baseline_reference as equations
from tests.models.conformance import perturbed
from tfrec_feedback.models import build_model

SMALL = {"embedding_dim": 4}
DEEP = {**SMALL, "deep_units": (16, 8)}
CROSSES = (("user_id", "item_id"), ("tag", "interests"), ("hour", "user_id"))
EACH = {
    "fm": ("fm", SMALL, equations.fm),
    "deepfm": ("deepfm", DEEP, equations.deepfm),
    "two_histories": ("deepfm", {**DEEP, "histories": ("unclick", "click")}, equations.deepfm),
    "nfm": ("nfm", DEEP, equations.nfm),
    "afm": ("afm", {**SMALL, "attention_units": 3}, equations.afm),
    "wide_deep": (
        "wide_deep",
        {**DEEP, "crosses": CROSSES, "cross_buckets": 50},
        equations.wide_deep,
    ),
    "pnn": ("pnn", DEEP, equations.pnn),
    "pnn_pairwise": ("pnn", {**DEEP, "outer": "pairwise"}, equations.pnn),
    "dcn": ("dcn", {**DEEP, "num_cross_layers": 3}, equations.dcn),
    "dcn_v2": ("dcn_v2", DEEP, equations.dcn),
    "autoint": ("autoint", {**SMALL, "attention_units": 3}, equations.autoint),
    "autoint_no_residual": (
        *("autoint", {**SMALL, "attention_units": 3, "use_residual": False}),
        equations.autoint,
    ),
}
DICE = ("alpha", "moving_mean", "moving_variance", "seen")


def small_baseline(name, **params):
    """A model with weights away from their start, and variances that are still positive."""
    tf.keras.utils.set_random_seed(3)
    model = perturbed(build_model(name, small_schema(), **params), seed=3)
    for weight in model.weights:
        if "moving_variance" in weight.name:
            weight.assign(tf.abs(weight) + 0.1)
    return model


def weight_variables(model):
    """The variables of a model, by the names that the referee knows them by."""
    found = {"embeddings": model.embedding.embeddings}
    if hasattr(model, "linear"):
        found["linear"] = model.linear.scalars.weights_of_values
        found["linear_bias"] = model.linear.bias
    if hasattr(model, "deep"):
        found |= mlp("deep", [model.deep._first, *model.deep._deeper], model.deep._activations)
    if model.learned_output:
        found |= dense("output", model._click_output)
    parts = {
        "AFM": attention_pooling,
        "NFM": normalization,
        "WideDeep": crosses,
        "PNN": kernels,
        "DCN": cross_layers,
        "DIN": activation_units,
        "AutoInt": interacting_layers,
    }
    return found | parts.get(type(model).__name__, lambda _: {})(model)


def dense(name, layer):
    found = {f"{name}/kernel": layer.kernel}
    return found if layer.bias is None else {**found, f"{name}/bias": layer.bias}


def mlp(name, layers, activations):
    found = {}
    for number, (layer, activation) in enumerate(zip(layers, activations, strict=True)):
        found |= dense(f"{name}/{number}", layer)
        for part in DICE if activation.dice is not None else ():
            found[f"{name}/{number}/{part}"] = getattr(activation.dice, part)
    return found


def attention_pooling(model):
    found = dense("attention", model.attention._hidden)
    return {**found, "attention/projection": model.attention.projection}


def normalization(model):
    return {
        x: getattr(model.normalization, x)
        for x in ("gamma", "beta", "moving_mean", "moving_variance")
    }


def crosses(model):
    return {"crosses": model.crosses.weights_of_crosses}


def kernels(model):
    outer = model.products[1]
    return {"outer": outer.kernels} if outer.form == "pairwise" else {}


def cross_layers(model):
    found = {}
    if model.vector_cross is None:
        for number, layer in enumerate(model.matrix_crosses):
            found |= dense(f"cross/{number}", layer._dense)
        return found
    network = model.vector_cross
    for number in range(network.num_layers):
        found[f"cross/{number}/kernel"] = network.kernel[:, number]
        found[f"cross/{number}/bias"] = network.bias[number]
    # The network's last column is its part of the output kernel.
    deep = model._click_output.kernel
    return {**found, "output/kernel": tf.concat([network.kernel[:, -1:], deep], axis=0)}


def activation_units(model):
    found = {}
    for name, unit in model.units.items():
        found |= mlp(name, [unit, *unit._deeper], unit._activations)
        found |= dense(f"{name}/score", unit._score)
    return found


def interacting_layers(model):
    names = ("query", "key", "value", "residual")
    return {
        f"round/{number}/{name}": kernel
        for number, layer in enumerate(model.rounds)
        for name, kernel in zip(names, layer.kernels, strict=False)
    }


def values(model):
    found = {name: x.numpy().astype(np.float64) for name, x in weight_variables(model).items()}
    if "crosses" in found:
        found["crosses"] = found["crosses"].reshape(len(CROSSES), -1)
    return found


def referee(model, batch, weights=None):
    encoded = {name: x.numpy() for name, x in model.encode(batch).items()}
    schema = dataclasses.replace(model.schema, histories=model.histories)
    weights = values(model) if weights is None else weights
    return equations.Referee(weights, schema, encoded, crosses=CROSSES)


def valid(model, batch, tensor):
    counts = model.encode(batch)["num_candidates"].numpy()
    return np.concatenate(
        [row[:count] for row, count in zip(np.array(tensor), counts, strict=True)]
    )


def assert_every_weight_is_the_referees(model):
    """No weight was forgotten: the sizes of all add up to the model's."""
    sizes = sum(np.size(x) for x in values(model).values())
    assert sizes == sum(np.size(x) for x in model.weights)


@pytest.mark.parametrize("case", EACH)
def test_every_candidate_scores_as_the_equations(case):
    name, params, logit = EACH[case]
    model, batch = small_baseline(name, **params), random_batch(small_schema(), 4, seed=2)
    assert_every_weight_is_the_referees(model)
    expected = referee(model, batch).each(logit)
    found = model(batch)
    assert np.std(expected) > 0.05
    np.testing.assert_allclose(valid(model, batch, found["ctr"]), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found["dislike"], -found["ctr"])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("deep_activation", ["relu", "dice"])
def test_din_scores_as_its_equations(training, softmax, deep_activation):
    options = {"attention_softmax": softmax, "deep_activation": deep_activation}
    model = small_baseline("din", **DEEP, attention_units=(5, 3), **options)
    batch = random_batch(small_schema(), 4, seed=2)
    assert_every_weight_is_the_referees(model)
    expected = equations.din(referee(model, batch), training, softmax)
    found = valid(model, batch, model(batch, training=training)["ctr"])
    assert np.std(expected) > 0.05
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_batch_has_empty_and_cut_histories_and_unknown_items():
    """What the tests above rely on."""
    batch = random_batch(small_schema(), 4, seed=2)
    lengths = np.stack([batch[f"{x.name}_length"] for x in small_schema().histories])
    assert (lengths == 0).any()
    assert small_schema().histories[0].max_length in lengths
    assert (batch["item_id"].numpy() < 100).any()  # unknown


def test_nfm_normalises_by_the_valid_candidates_of_a_training_batch():
    """The averages go a tenth of the way to mean and variance of their Bi-Interactions."""
    model, batch = small_baseline("nfm", **DEEP), random_batch(small_schema(), 4, seed=2)
    vectors = referee(model, batch).each(lambda _, x: sum(a * b for a, b in equations.pairs(x.all)))
    own = {"moving_mean": vectors.mean(axis=0), "moving_variance": vectors.var(axis=0)}
    before = values(model)
    found = valid(model, batch, model(batch, training=True)["ctr"])
    expected = referee(model, batch, {**before, **own}).each(equations.nfm)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    after = values(model)
    for name, value in own.items():
        np.testing.assert_allclose(after[name], 0.9 * before[name] + 0.1 * value, rtol=1e-4)


def test_the_gradient_of_dins_loss_is_the_slope_of_the_referees():
    """Through the batch's statistics of Dice, in the attention and in the deep layers."""
    options = {"attention_units": (5, 3), "deep_activation": "dice"}
    model, batch = small_baseline("din", **DEEP, **options), random_batch(small_schema(), 4, seed=2)
    labels = random_labels(batch)
    with tf.GradientTape() as tape:
        loss = model.compute_loss((batch, labels), training=True)
    before, variables = values(model), weight_variables(model)
    clicks = valid(model, batch, labels["ctr"])

    def loss_of(weights):
        logits = equations.din(referee(model, batch, weights), training=True)
        return np.mean(np.logaddexp(0.0, np.where(clicks > 0, -logits, logits)))

    assert float(loss) == pytest.approx(loss_of(before), abs=1e-5)
    names = [name for name in variables if "moving" not in name and "seen" not in name]
    gradients = tape.gradient(loss, [variables[name] for name in names])
    steep = 0
    for name, gradient in zip(names, gradients, strict=True):
        gradient = tf.convert_to_tensor(gradient).numpy()
        for at in some_entries(gradient):
            losses = []
            for size in (1e-5, -1e-5):
                moved = {**before, name: before[name].copy()}
                moved[name][at] += size
                losses.append(loss_of(moved))
            slope = (losses[0] - losses[1]) / 2e-5
            np.testing.assert_allclose(gradient[at], slope, rtol=1e-3, atol=2e-6, err_msg=name)
            steep += abs(slope) > 1e-4
    assert steep > 30


def some_entries(gradient):
    """The entry of the largest gradient, and one in the middle."""
    flat = np.abs(gradient).ravel()
    yield np.unravel_index(np.argmax(flat), gradient.shape)
    yield np.unravel_index(flat.size // 2, gradient.shape)
