import dataclasses

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from serving.contract import check_schema, derive_schema, signature_of
from serving.signatures import ModelMetadata, Signature, TensorSpec
from tests.serving.tiny_model import REQUEST, SCHEMA
from tfrec_feedback.requests import encode_requests
from tfrec_feedback.schema import (
    Buckets,
    Feature,
    FeedbackSequence,
    Hashing,
    Identity,
    Schema,
    SchemaError,
    Task,
)


def signature(schema: Schema, **changes: TensorSpec | None) -> Signature:
    """The signature an export of a schema has, with some inputs changed or (None) taken out."""
    inputs = {
        spec.name: TensorSpec(spec.dtype, tuple(a if isinstance(a, int) else -1 for a in spec.axes))
        for spec in schema.inputs()
    }
    inputs = {name: spec for name, spec in (inputs | changes).items() if spec is not None}
    outputs = {task.name: TensorSpec("float32", (-1, -1)) for task in schema.tasks}
    return Signature(inputs, outputs)


def shape_of(schema: Schema) -> set:
    """All that matters for encoding."""
    return {(s.name, s.dtype, s.axes, s.role, s.sequence) for s in schema.inputs()}


def test_a_derived_schema_encodes_as_the_true_one():
    derived = derive_schema(signature(SCHEMA))
    assert shape_of(derived) == shape_of(SCHEMA)
    assert [task.name for task in derived.tasks] == ["ctr", "dislike"]
    ours, true = encode_requests(derived, [REQUEST]), encode_requests(SCHEMA, [REQUEST])
    assert {n: a.tolist() for n, a in ours.items()} == {n: a.tolist() for n, a in true.items()}


ENCODINGS = st.sampled_from([Identity(5), Hashing(5), Buckets((1.0,))])
# Words whose joints collide: lengths, counts, and sequences that begin like one another.
WORDS = st.sampled_from(["a", "b", "item", "length", "count", "session"])
NAMES = st.lists(WORDS, min_size=1, max_size=2).map("_".join)


@st.composite
def schemas(draw) -> Schema:
    names = draw(st.lists(NAMES, min_size=2, max_size=6, unique=True))
    features = [
        Feature(name, draw(ENCODINGS), max_values=draw(st.sampled_from([1, 1, 3])))
        for name in names
    ]
    cut = draw(st.integers(1, len(features)))
    candidate = tuple(features[:cut])
    some = st.lists(st.sampled_from([f.name for f in candidate]), min_size=1, unique=True)
    histories = tuple(
        FeedbackSequence(name, tuple(draw(some)), num_sessions=draw(st.sampled_from([0, 3])))
        for name in draw(st.lists(NAMES, max_size=3, unique=True))
    )
    return Schema(context=tuple(features[cut:]), candidate=candidate, histories=histories)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(st.data())
def test_any_schema_is_derived_from_its_signature_or_refused_as_ambiguous(data):
    try:
        schema = data.draw(schemas())
    except SchemaError:  # names that collide
        reject()
    plain = {f.name for f in schema.candidate}
    sequences = {h.name for h in schema.histories}
    sequences |= {f.name.removesuffix("_length") for f in schema.context}
    words = {*plain, "session"}
    looks_like_a_history = any(f"{s}_{word}" in plain for s in sequences for word in words)
    try:
        derived = derive_schema(signature(schema))
    except SchemaError as error:
        assert "may belong to any of the histories" in str(error)
        return
    if not looks_like_a_history:
        assert shape_of(derived) == shape_of(schema)


def test_sessions_are_sent_where_the_model_takes_them():
    (clicks,) = SCHEMA.histories
    read = dataclasses.replace(SCHEMA, histories=(dataclasses.replace(clicks, num_sessions=2),))
    derived = derive_schema(signature(read))
    assert shape_of(derived) == shape_of(read)
    request = {**REQUEST, "histories": {"click": {"item_id": [1, 2, 3], "tag": [[], [], []]}}}
    request["histories"]["click"]["session"] = [7, 1, 0]
    for schema in (derived, read):
        assert encode_requests(schema, [request])["click_session"].tolist() == [[7, 1, 0]]
    assert "click_session" not in encode_requests(derive_schema(signature(SCHEMA)), [request])


def test_a_feature_called_session_stays_a_feature():
    schema = Schema(
        context=(Feature("user_length", Identity(9)),),
        candidate=(Feature("user_session", Identity(9)), Feature("item", Identity(9))),
        histories=(FeedbackSequence("click", ("item", "user_session")),),
    )
    assert shape_of(derive_schema(signature(schema))) == shape_of(schema)


def test_a_context_feature_may_be_called_length():
    schema = Schema(
        context=(Feature("session_length", Identity(9)),),
        candidate=(Feature("item_length", Identity(9)), Feature("session", Identity(9))),
    )
    derived = derive_schema(signature(schema))
    assert [f.name for f in derived.context] == ["session_length"]
    assert derived.histories == ()


def test_context_features_may_be_multi_valued():
    schema = Schema(
        context=(Feature("langs", Hashing(9), max_values=2),),
        candidate=(Feature("item", Identity(9)),),
    )
    derived = derive_schema(signature(schema))
    assert [(f.name, f.max_values) for f in derived.context] == [("langs", 2)]
    assert [f.name for f in derived.candidate] == ["item"]


def test_a_feature_called_count_stays_a_feature():
    schema = Schema(
        context=(Feature("user_count", Identity(9)), Feature("user", Identity(9))),
        candidate=(Feature("item_count", Identity(9)), Feature("item", Identity(9))),
    )
    assert shape_of(derive_schema(signature(schema))) == shape_of(schema)


def test_sequences_that_begin_alike_are_told_apart():
    schema = Schema(
        context=(),
        candidate=(Feature("item", Identity(9)), Feature("view_item", Hashing(9))),
        histories=(FeedbackSequence("long_view", ("item",)), FeedbackSequence("long", ("item",))),
    )
    derived = derive_schema(signature(schema))
    assert {h.name: h.features for h in derived.histories} == {
        "long_view": ("item",),
        "long": ("item",),
    }


def test_a_name_that_two_histories_explain_asks_for_the_schema():
    schema = Schema(
        context=(),
        candidate=(Feature("item", Identity(9)), Feature("view_item", Identity(9))),
        histories=(FeedbackSequence("long_view", ("item",)), FeedbackSequence("long", ("item",))),
    )
    with pytest.raises(SchemaError, match=r"'long_view_item' may belong to any .* pass the schema"):
        derive_schema(signature(schema))


def test_a_fixed_history_width_is_the_longest_history():
    fixed = TensorSpec("int64", (-1, 4))
    changes = {"click_item_id": fixed, "click_tag": TensorSpec("string", (-1, 4, 3))}
    changes["click_tag_count"] = fixed
    assert derive_schema(signature(SCHEMA, **changes)).history("click").max_length == 4
    assert derive_schema(signature(SCHEMA)).history("click").max_length == 1024


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_candidates": None}, "without 'num_candidates'"),
        ({"hour": TensorSpec("float64", (-1,))}, "Input 'hour' is float64"),
        ({"hour": TensorSpec("int64", ())}, r"Inputs \['hour'\] are neither"),
        ({"hour": TensorSpec("int64", None)}, r"Inputs \['hour'\] are neither"),
        ({"price": TensorSpec("float32", (-1, -1, 3))}, r"Inputs \['price'\] are neither"),
        ({"Hour": TensorSpec("int64", (-1,))}, "'Hour' is not usable"),
    ],
)
def test_signatures_of_no_schema_are_refused(changes, expected):
    with pytest.raises(SchemaError, match=expected):
        derive_schema(signature(SCHEMA, **changes))


def test_the_schema_of_the_model_passes_the_check():
    check_schema(SCHEMA, signature(SCHEMA))
    check_schema(SCHEMA, signature(SCHEMA, hour=TensorSpec("int64", None)))
    check_schema(SCHEMA, signature(SCHEMA, click_item_id=TensorSpec("int64", (-1, 4))))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"hour": None}, r"does not take \['hour'\]"),
        ({"age": TensorSpec("int64", (-1,))}, r"also needs \['age'\]"),
        ({"hour": TensorSpec("string", (-1,))}, "'hour' is string, not int64"),
        ({"hour": TensorSpec("int64", (-1, -1))}, r"'hour' has shape \[-1, -1\], not \[-1\]"),
        ({"tag": TensorSpec("string", (-1, -1, 5))}, r"'tag' has shape .*5\], not \[-1, -1, 3\]"),
    ],
)
def test_a_schema_of_another_model_is_refused_naming_the_difference(changes, expected):
    with pytest.raises(SchemaError, match=expected):
        check_schema(SCHEMA, signature(SCHEMA, **changes))


def test_every_difference_is_in_one_message():
    with pytest.raises(SchemaError) as error:
        check_schema(SCHEMA, signature(SCHEMA, hour=None, age=TensorSpec("int64", (-1,)), tag=None))
    assert "['hour', 'tag']" in str(error.value)
    assert "['age']" in str(error.value)


def test_a_task_the_model_does_not_predict_is_refused():
    schema = Schema(SCHEMA.context, SCHEMA.candidate, SCHEMA.histories, (Task("like", ("like",)),))
    with pytest.raises(SchemaError, match=r"does not predict \['like'\] but \['ctr', 'dislike'\]"):
        check_schema(schema, signature(SCHEMA))


def test_a_missing_signature_is_named_with_those_there_are():
    metadata = ModelMetadata("dfn", 3, {"regress": signature(SCHEMA)})
    with pytest.raises(SchemaError, match=r"'dfn' version 3 has no signature 'rank'.*\['regress'"):
        signature_of(metadata, "rank")
