import dataclasses

import numpy as np
import pandas as pd
import pytest

from tests.data.logs import small_events, small_source
from tfrec_feedback.data.events import EventLogError
from tfrec_feedback.data.vocabulary import (
    MAX_VALUES,
    build_vocabulary,
    check_schema,
    fill_vocabularies,
    infer_schema,
    quantile_buckets,
    write_vocabularies,
)
from tfrec_feedback.schema import (
    Buckets,
    Feature,
    FeedbackSequence,
    Identity,
    Schema,
    Task,
    Vocabulary,
)

TRAIN = np.arange(4)  # without item 4, tag c, Bob's second request


def test_tokens_are_sorted_by_falling_frequency_then_value():
    columns = [pd.Series([3, 1, 2, 1]), pd.Series([2, 9])]
    assert build_vocabulary(columns) == (1, 2, 3, 9)
    assert build_vocabulary(columns, min_count=2) == (1, 2)


def test_each_value_of_a_multi_valued_column_counts():
    assert build_vocabulary([pd.Series([("a", "b"), ("b",), ()])]) == ("b", "a")


def test_what_a_file_cannot_list_is_no_token():
    assert build_vocabulary([pd.Series(["a", "", "b\nc", "d\r"])]) == ("a",)


def test_the_schema_follows_the_columns():
    schema = infer_schema(small_source(), TRAIN, 7)
    assert [f.name for f in schema.context] == ["user_id", "context_hour", "user_country"]
    assert [f.name for f in schema.candidate] == ["item_id", "item_tags", "item_price"]
    assert [f.dtype for f in schema.features] == "string int64 string int64 string float32".split()
    assert schema.feature("item_tags").max_values == 2
    assert [(h.name, h.features, h.max_length) for h in schema.histories] == [
        (kind, ("item_id", "item_tags"), 7) for kind in ("click", "unclick", "like", "dislike")
    ]


def test_the_histories_and_their_samples_may_be_chosen():
    schema = infer_schema(
        small_source(), TRAIN, 7, num_samples=4, histories=("all", "like"), num_sessions=5
    )
    assert [(h.name, h.num_samples, h.num_sessions) for h in schema.histories] == [
        ("all", 4, 5),
        ("like", 4, 5),
    ]
    with pytest.raises(EventLogError, match=r"'clik' cannot be built.*Did you mean 'click'"):
        infer_schema(small_source(), TRAIN, 7, histories=("clik",))


def test_declared_encodings_go_before_inferred_ones():
    source = small_source(encodings={"context_hour": Identity(24)})
    assert infer_schema(source, TRAIN, 7).feature("context_hour").encoding == Identity(24)


def test_long_lists_are_cut():
    events = small_events()
    events["item_tags"] = [tuple("abcdefghij")] * len(events)
    assert (
        infer_schema(small_source(events), TRAIN, 7).feature("item_tags").max_values == MAX_VALUES
    )


def test_buckets_hold_equal_shares():
    values = np.arange(1600.0)
    buckets = quantile_buckets(values)
    assert buckets.size == 16
    assert set(np.bincount(np.searchsorted(buckets.boundaries, values, "right"))) == {100}
    assert quantile_buckets(np.array([2.0, 2.0])) == Buckets((2.0,))


def test_only_train_rows_enter_a_vocabulary(tmp_path):
    source = small_source()
    schema, tokens = fill_vocabularies(infer_schema(source, TRAIN, 7), source.events, TRAIN)
    assert tokens["item_id"] == (1, 2, 3)
    assert tokens["item_tags"] == ("b", "a")
    assert tokens["user_country"] == ("se",)
    write_vocabularies(tmp_path, tokens)
    schema = dataclasses.replace(schema, directory=tmp_path)
    assert {table: schema.vocabulary(table) for table in tokens} == tokens


def test_features_that_share_a_table_are_counted_together():
    events = small_events().assign(user_last=[9, 9, 9, 9, 9, 9])
    shared = Vocabulary("int64", file="item.txt", size=1)
    schema = Schema(
        context=(Feature("user_last", shared, table="item"),),
        candidate=(Feature("item_id", shared, table="item"),),
    )
    filled, tokens = fill_vocabularies(schema, events, TRAIN)
    assert tokens == {"item": (9, 1, 2, 3)}
    encodings = {f.encoding for f in filled.features}
    assert encodings == {Vocabulary("int64", file="vocabularies/item.txt", size=4)}


def test_a_vocabulary_beside_a_given_schema_is_kept(tmp_path):
    (tmp_path / "old.txt").write_text("8\n1\n")
    feature = Feature("item_id", Vocabulary("int64", file="old.txt", size=2))
    schema = Schema(context=(), candidate=(feature,), directory=tmp_path)
    assert fill_vocabularies(schema, small_events(), TRAIN)[1] == {"item_id": (8, 1)}


def test_a_column_without_train_values_is_named():
    source = small_source(small_events().assign(user_country=""))
    with pytest.raises(EventLogError, match="'user_country' has no value"):
        fill_vocabularies(infer_schema(source, TRAIN, 7), source.events, TRAIN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": (Feature("user_contry", Identity(3)),)}, "Did you mean 'user_country'"),
        ({"context": (Feature("item_price", Identity(3)),)}, "not a context column"),
        ({"candidate": (Feature("click", Identity(2)),)}, "'click' is not a candidate column"),
        ({"histories": (FeedbackSequence("clicks", ("item_id",)),)}, "Did you mean 'click'"),
        ({"tasks": (Task("buy", positive=("purchase",)),)}, "feedback 'purchase'"),
    ],
)
def test_a_given_schema_must_fit_the_log(change, message):
    given = {"context": (), "candidate": (Feature("item_id", Identity(9)),), **change}
    with pytest.raises(EventLogError, match=message):
        check_schema(Schema(**given), small_source())
