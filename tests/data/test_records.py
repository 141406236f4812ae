import numpy as np
import pytest
import tensorflow as tf

from tests.data.logs import small_events
from tfrec_feedback.data.events import EventLogError
from tfrec_feedback.data.grouping import group_requests
from tfrec_feedback.data.history import build_histories, feedback_kinds
from tfrec_feedback.data.records import RecordEncoder
from tfrec_feedback.schema import Buckets, Feature, FeedbackSequence, Hashing, Identity, Schema

SCHEMA = Schema(
    context=(Feature("user_id", Hashing(9)), Feature("context_hour", Identity(24))),
    candidate=(
        Feature("item_id", Identity(9)),
        Feature("item_tags", Hashing(9), max_values=2),
        Feature("item_price", Buckets((2.0,))),
    ),
    histories=(
        FeedbackSequence("click", ("item_id", "item_tags"), max_length=1),
        FeedbackSequence("unclick", ("item_id", "item_price"), max_length=5),
    ),
)


def encoder(events, schema=SCHEMA):
    table = group_requests(events)
    histories = build_histories(
        table.event_user,
        events["timestamp"].to_numpy(),
        feedback_kinds(events),
        table.user,
        table.timestamp,
        max_lengths={h.name: h.max_length for h in schema.histories},
    )
    return RecordEncoder(schema, events, table, histories)


def parse(record):
    features = tf.train.Example.FromString(record).features.feature
    return {k: list(getattr(f, f.WhichOneof("kind")).value) for k, f in features.items()}


def test_a_record_holds_one_request_in_plain_values():
    ann_at_20, ann_at_30 = map(parse, encoder(small_events()).encode(np.array([1, 3])))
    assert ann_at_20 == {
        "request_id": [b"ann:20"],
        "user_key": [b"ann"],
        "timestamp": [20],
        "user_id": [b"ann"],
        "context_hour": [9],
        "item_id": [2, 3],
        "item_tags": [b"", b"", b"b", b""],
        "item_tags_count": [0, 1],
        "item_price": [2.5, 3.5],
        "num_candidates": [2],
        "label_click": [0, 1],
        "label_like": [0, 1],
        "label_dislike": [0, 0],
        "sample_weight": [1.0, 1.0],
        "click_timestamp": [10],
        "click_item_id": [1],
        "click_item_tags": [b"a", b"b"],
        "click_item_tags_count": [2],
        "click_length": [1],
        "unclick_timestamp": [],
        "unclick_item_id": [],
        "unclick_item_price": [],
        "unclick_length": [0],
    }
    # At 30 there are two clicks, of which the later is kept, and one unclick.
    assert ann_at_30["click_item_id"] == [3]
    assert ann_at_30["click_item_tags"] == [b"b", b""]
    assert ann_at_30["unclick_item_id"] == [2]
    assert ann_at_30["unclick_item_price"] == [2.5]
    assert ann_at_30["unclick_timestamp"] == [20]


def test_every_input_of_the_schema_is_in_a_record():
    record = parse(next(encoder(small_events()).encode(np.array([4]))))
    assert {spec.name for spec in SCHEMA.inputs()} <= set(record)


def test_the_weight_of_a_sampled_event_is_the_inverse_of_its_rate():
    events = small_events().assign(sampling_rate=[1.0, 0.5, 0.25, 1.0, 1.0, 1.0])
    record = parse(next(encoder(events).encode(np.array([1]))))
    assert record["sample_weight"] == [2.0, 4.0]


def test_records_come_in_the_order_asked_for_over_chunks():
    order = np.array([4, 0, 3] * 1000)
    ids = [parse(r)["request_id"] for r in encoder(small_events()).encode(order)]
    assert ids == [[b"bob:40"], [b"ann:10"], [b"ann:30"]] * 1000


def test_a_feature_with_the_name_of_a_record_s_own_is_refused():
    events = small_events().assign(item_id_count=1)
    schema = Schema(context=(), candidate=(Feature("sample_weight", Identity(3)),))
    with pytest.raises(EventLogError, match="already hold a feature 'sample_weight'"):
        encoder(events.assign(sample_weight=1), schema)
