import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.layers.conformance import assert_close, check_layer
from tfrec_feedback.layers.mixture_of_experts import MixtureOfExperts


def named_weights(layer):
    return {w.name.split("/")[-1].split(":")[0]: w for w in layer.weights}


def referee(layer, context, candidates):
    """One candidate, one task, one expert at a time."""
    weights = {name: w.numpy().astype(np.float64) for name, w in named_weights(layer).items()}
    requests, count = candidates.shape[:2]
    result = np.zeros((requests, count, layer.num_tasks, layer.units[-1]))
    for r in range(requests):
        for n in range(count):
            x = np.concatenate([context[r], candidates[r, n]])
            for task in range(layer.num_tasks):
                gate = np.exp(x @ weights[f"gate_kernel_{task}"])
                gate /= gate.sum()
                for e in range(layer.num_experts):
                    first = slice(e * layer.units[0], (e + 1) * layer.units[0])
                    hidden = x
                    for i in range(len(layer.units)):
                        kernel = weights[f"kernel_{i}"]
                        kernel = kernel[:, first] if i == 0 else kernel[e]
                        hidden = np.maximum(hidden @ kernel + weights[f"bias_{i}"][e, 0], 0.0)
                    result[r, n, task] += gate[e] * hidden
    return result


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10**6),
    requests=st.integers(1, 3),
    count=st.integers(1, 3),
    width=st.integers(0, 3),
    units=st.sampled_from([(3,), (4, 2), (5, 3, 2)]),
    num_experts=st.integers(1, 4),
    num_tasks=st.integers(1, 2),
)
def test_equals_a_loop_over_requests_candidates_tasks_and_experts(
    seed, requests, count, width, units, num_experts, num_tasks
):
    rng = np.random.default_rng(seed)
    context = rng.normal(size=(requests, width)).astype(np.float32)
    candidates = rng.normal(size=(requests, count, 2)).astype(np.float32)
    layer = MixtureOfExperts(units, num_experts, num_tasks)
    layer((context, candidates))
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    expected = referee(layer, context, candidates)
    np.testing.assert_allclose(layer((context, candidates)), expected, rtol=1e-4, atol=1e-4)


def test_two_experts_and_two_gates_by_hand():
    layer = MixtureOfExperts((1,), num_experts=2, num_tasks=2)
    inputs = (tf.constant([[1.0]]), tf.constant([[[2.0]]]))
    layer(inputs)
    weights = named_weights(layer)
    weights["kernel_0"].assign([[1.0, 10.0], [2.0, 20.0]])  # experts: 1 + 4 = 5, 10 + 40 = 50
    weights["bias_0"].assign([[[1.0]], [[-20.0]]])  # 6 and 30
    weights["gate_kernel_0"].assign([[0.0, 0.0], [0.0, 0.0]])  # halves
    weights["gate_kernel_1"].assign([[np.log(3.0), 0.0], [0.0, 0.0]])  # 3 to 1
    # 6 / 2 + 30 / 2 = 18; 6 * 3/4 + 30 * 1/4 = 12.
    np.testing.assert_allclose(layer(inputs), [[[[18.0], [12.0]]]], rtol=1e-6)


def test_parameters_counted_by_hand():
    layer = MixtureOfExperts((5, 4), num_experts=3, num_tasks=2)
    layer((tf.ones([1, 2]), tf.ones([1, 1, 6])))
    experts = 3 * ((8 * 5 + 5) + (5 * 4 + 4))
    gates = 2 * 8 * 3
    assert layer.count_params() == experts + gates == 255


def test_every_expert_starts_as_a_dense_layer_of_its_own():
    tf.keras.utils.set_random_seed(0)
    layer = MixtureOfExperts((50, 30), num_experts=4)
    layer((tf.zeros([1, 90]), tf.zeros([1, 1, 10])))
    first, second = layer.kernels
    for e in range(4):
        for kernel, fans in ((first[:, 50 * e : 50 * (e + 1)], 100 + 50), (second[e], 50 + 30)):
            limit = (6 / fans) ** 0.5
            assert 0.95 * limit < np.abs(kernel).max() <= limit


def test_equal_candidates_get_the_mixture_of_one_alone():
    layer = MixtureOfExperts((5, 3), num_experts=2, num_tasks=2)
    alone = layer((tf.ones([1, 2]), tf.ones([1, 1, 4])))
    assert_close(layer((tf.ones([1, 2]), tf.ones([1, 6, 4]))), tf.repeat(alone, 6, axis=1), 1e-6)


def test_dropout_drops_in_training_alone():
    layer = MixtureOfExperts((64, 8), dropout=0.5)
    inputs = (tf.ones([1, 2]), tf.ones([1, 1, 4]))
    assert_close(layer(inputs), layer(inputs), 0.0)
    assert np.abs(layer(inputs, training=True) - layer(inputs)).max() > 1e-3


def test_conformance_with_and_without_context():
    layer = MixtureOfExperts((5, 3), num_experts=2, num_tasks=2, activation="tanh")
    assert check_layer(layer, (tf.ones([2, 3]), tf.ones([2, 5, 4]))).shape == (2, 5, 2, 3)
    layer = MixtureOfExperts((5,), num_experts=1)
    assert check_layer(layer, (tf.ones([1, 0]), tf.ones([1, 1, 4]))).shape == (1, 1, 1, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": ()}, "units needs at least one width"),
        ({"units": (4, 0)}, r"got \(4, 0\)"),
        ({"num_experts": 0}, "num_experts=0"),
        ({"num_tasks": 0}, "num_tasks=0"),
    ],
)
def test_what_makes_no_mixture_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MixtureOfExperts(**options)
