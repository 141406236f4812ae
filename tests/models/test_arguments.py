"""Parameters of the wrong type or out of range are refused by name, whatever they are for."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.examples import small_schema
from tfrec_feedback.models import MODELS, build_model, model_parameters
from tfrec_feedback.models.arguments import check_types


def given_to(hint, value):
    def function(x):
        pass

    function.__annotations__ = {"x": hint}
    check_types("Model 'm'", {"x": value, "other": object()}, function)


@pytest.mark.parametrize(
    ("hint", "values"),
    [
        (int, [0, -3, np.int64(2)]),
        (float, [0, 0.5, np.float32(1.0)]),
        (bool, [True, False]),
        (str, ["text"]),
        (Sequence[int], [(), [1, 2], (3,)]),
        (Sequence[Sequence[str]], [[], [["a", "b"]], (("a", "b"),)]),
        (int | str | None, [1, "item", None]),
        (Mapping[str, Any] | None, [{}, {"a": 1}, None]),
        (Any, [len]),
    ],
    ids=str,
)
def test_values_of_the_type_pass(hint, values):
    for value in values:
        given_to(hint, value)


@pytest.mark.parametrize(
    ("hint", "values", "expected"),
    [
        (int, [2.0, "2", True, None, [2]], "int"),
        (float, ["0.1", True, None], "float"),
        (bool, [1, "true"], "bool"),
        (str, [3, None, ["text"]], "str"),
        (Sequence[int], [5, "5", [1, "2"], {"a": 1}], r"Sequence\[int\]"),
        (Sequence[Sequence[str]], [3, ["ab", "cd"], [[1]]], r"Sequence\[Sequence\[str\]\]"),
        (int | str | None, [1.5, []], r"int \| str \| None"),
        (Mapping[str, Any] | None, [3, "a", []], r"Mapping\[str, Any\] \| None"),
    ],
    ids=str,
)
def test_values_of_other_types_are_named(hint, values, expected):
    for value in values:
        with pytest.raises(ValueError, match=f"Model 'm': x must be {expected}, got") as error:
            given_to(hint, value)
        assert str(error.value).endswith(f"got {value!r}.")


@pytest.mark.parametrize("name", MODELS)
def test_every_preset_is_of_the_types_that_its_class_asks_for(name):
    cls, _ = MODELS[name]
    owners = [owner.__init__ for owner in reversed(cls.__mro__[:-1]) if hasattr(owner, "reads")]
    check_types(name, model_parameters(name), *owners)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("dfn", {"num_heads": "two"}, "Model 'dfn': num_heads must be int, got 'two'"),
        ("dfn", {"embedding_dim": "abc"}, "embedding_dim must be int, got 'abc'"),
        ("dfn", {"dropout": "abc"}, "dropout must be float, got 'abc'"),
        ("dfn", {"deep_units": 5}, r"deep_units must be Sequence\[int\], got 5"),
        ("dfn", {"internal": "click"}, r"internal must be Sequence\[str\], got 'click'"),
        ("dfn", {"dislike_weight": "abc"}, "dislike_weight must be float, got 'abc'"),
        ("dfn", {"loss": 3}, r"loss must be Mapping\[str, Any\] \| None, got 3"),
        ("dfn", {"loss": {"name": 3}}, "loss: name must be str, got 3"),
        ("dfn", {"loss": {"name": "tce", "max_rate": "x"}}, "loss: max_rate must be float"),
        ("dfn", {"loss": {"reduction": "none"}}, "loss has no option 'reduction'"),
        ("dfn", {"schema": 3}, "has no parameter 'schema'"),
        ("dumn", {"user_memory": {"memory_size": "abc"}}, "user_memory: memory_size must be int"),
        ("dumn", {"user_memory": 3}, r"user_memory must be Mapping"),
        ("wide_deep", {"crosses": 3}, r"crosses must be Sequence\[Sequence\[str\]\], got 3"),
        ("gmf", {"embedding_dim": [4]}, r"embedding_dim must be int, got \[4\]"),
    ],
)
def test_parameters_of_other_types_are_refused(name, params, message):
    with pytest.raises(ValueError, match=message):
        build_model(name, small_schema(), **params)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("dfn", {"num_heads": 0}, "num_heads must be at least 1, got 0"),
        ("dfn", {"num_heads": -2}, "num_heads must be at least 1, got -2"),
        ("dfn", {"embedding_dim": 0}, "embedding_dim must be at least 1, got 0"),
        ("dfn", {"attention_dim": 0}, "attention_dim must be 'item' or a multiple"),
        ("dfn", {"attention_dim": "user"}, "attention_dim must be 'item' or a multiple"),
        ("dfn", {"external_units": 0}, "hidden_units must be at least 1, got 0"),
        ("dfn", {"ffn_multiplier": -1}, "ffn_multiplier must not be negative, got -1"),
        ("dfn", {"deep_units": (0,)}, r"deep_units needs .* none below 1.*got \(0,\)"),
        ("dfn", {"deep_units": (8, -1)}, r"deep_units needs .*got \(8, -1\)"),
        ("dfn", {"dislike_weight": -3}, "dislike_weight must be a finite number >= 0, got -3"),
        ("dfn", {"click_weight": float("nan")}, "click_weight must be a finite number"),
        ("dfn_no_feedback", {"history_length_fields": True}, "this model reads none"),
        ("dumn", {"deep_units": (8, 0)}, r"deep_units needs .*got \(8, 0\)"),
        ("dumn", {"attention_hidden": (0,)}, r"attention_hidden needs .*got \(0,\)"),
        ("dcn_v2", {"num_cross_layers": 0}, "num_cross_layers must be at least 1, got 0"),
        ("dcn_v2", {"num_cross_layers": -1}, "num_cross_layers must be at least 1, got -1"),
        ("dcn_v2", {"projection_dim": 0}, "projection_dim must be at least 1 or None, got 0"),
        ("deepfm", {"deep_units": (8, 0)}, r"units needs .*got \(8, 0\)"),
        ("din", {"attention_units": (0,)}, r"units needs .*got \(0,\)"),
        ("afm", {"attention_units": 0}, "units must be at least 1, got 0"),
        ("dien", {"units": 0}, "units must be at least 1 or None, got 0"),
        ("dmt", {"tower_units": (0,)}, r"tower_units needs .*got \(0,\)"),
        ("nmtr", {"embedding_dim": 0}, "embedding_dim must be at least 1, got 0"),
        ("nmtr", {"scorer_units": -1}, "units must not be negative, got -1"),
        ("cdae", {"embedding_dim": 0, "tied": True}, "embedding_dim must be at least 1, got 0"),
    ],
)
def test_parameters_out_of_range_are_refused(name, params, message):
    with pytest.raises(ValueError, match=message):
        build_model(name, small_schema(), **params)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
@pytest.mark.parametrize("name", ["fm", "dfn"])
def test_a_policy_of_another_type_than_float32_is_refused(name, policy):
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(policy)
    try:
        with pytest.raises(ValueError, match=f"compute in float32, .*{policy.split('_')[-1]}"):
            build_model(name, small_schema())
    finally:
        tf.keras.mixed_precision.set_global_policy(before)
