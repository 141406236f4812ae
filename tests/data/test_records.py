import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tests.data.logs import small_events
from tfrec_feedback.data.events import EventLogError
from tfrec_feedback.data.grouping import group_requests
from tfrec_feedback.data.history import build_histories, draw_samples, feedback_kinds
from tfrec_feedback.data.records import RecordEncoder
from tfrec_feedback.data.sessions import schema_sessions
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
    samples = {
        h.samples.name: draw_samples(
            histories[h.name],
            h.num_samples,
            table.timestamp < 40,  # all but the last request
            np.random.default_rng(0),
        )
        for h in schema.histories
        if h.num_samples
    }
    sessions = schema_sessions(schema, histories, events["timestamp"].to_numpy(), gap_ms=9)
    return RecordEncoder(schema, events, table, {**histories, **samples}, sessions)


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


def with_samples(num_samples):
    histories = [dataclasses.replace(h, num_samples=num_samples) for h in SCHEMA.histories]
    return dataclasses.replace(SCHEMA, histories=tuple(histories))


def test_samples_stand_beside_the_histories_they_reach_beyond():
    # At 30, Ann had clicked item 1 at 10 and item 3 at 20; the history keeps the later alone.
    records = encoder(small_events(), with_samples(4)).encode(np.array([3, 0]))
    at_30, at_10 = map(parse, records)
    assert at_30["click_timestamp"] == [20]
    assert at_30["click_sample_length"] == [2]
    pairs = {1: (10, [b"a", b"b"], 2), 3: (20, [b"b", b""], 1)}
    expected = [pairs[item] for item in at_30["click_sample_item_id"]]
    assert sorted(at_30["click_sample_item_id"]) == [1, 3]
    assert at_30["click_sample_timestamp"] == [time for time, _, _ in expected]
    assert at_30["click_sample_item_tags"] == [tag for _, tags, _ in expected for tag in tags]
    assert at_30["click_sample_item_tags_count"] == [count for _, _, count in expected]
    assert at_30["unclick_sample_item_price"] == [2.5]
    assert at_10["click_sample_item_id"] == at_10["click_sample_timestamp"] == []
    assert at_10["click_sample_length"] == [0]


def test_requests_that_draw_nothing_hold_empty_samples():
    # Bob at 40, outside the requests that draw, disliked one item and clicked none.
    record = parse(next(encoder(small_events(), with_samples(4)).encode(np.array([4]))))
    for name in ("item_id", "item_tags", "item_tags_count", "timestamp"):
        assert record[f"click_sample_{name}"] == []
    assert record["click_sample_length"] == record["unclick_sample_length"] == [0]


def with_sessions(schema, num_sessions, **changes):
    histories = [
        dataclasses.replace(h, num_sessions=num_sessions, **changes) for h in schema.histories
    ]
    return dataclasses.replace(schema, histories=tuple(histories))


def test_sessions_stand_beside_the_events_they_number():
    # At 30, Ann had clicked at 10 and at 20, 10 ms apart: two sessions, as the gap is 9 ms.
    schema = with_sessions(SCHEMA, 2, max_length=5)
    at_20, at_30 = map(parse, encoder(small_events(), schema).encode(np.array([1, 3])))
    assert (at_20["click_timestamp"], at_20["click_session"]) == ([10], [0])
    assert (at_30["click_timestamp"], at_30["click_session"]) == ([10, 20], [1, 0])
    assert at_30["unclick_session"] == [0]
    assert at_20["unclick_session"] == []


def test_samples_have_no_sessions():
    schema = with_sessions(with_samples(2), 3)
    record = parse(next(encoder(small_events(), schema).encode(np.array([3]))))
    assert {name for name in record if "session" in name} == {"click_session", "unclick_session"}
    assert "click_session" not in parse(next(encoder(small_events()).encode(np.array([3]))))


def test_every_input_of_the_schema_is_in_a_record():
    schema = with_sessions(with_samples(2), 2)
    record = parse(next(encoder(small_events(), schema).encode(np.array([4]))))
    assert {spec.name for spec in schema.training_inputs()} <= set(record)


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
