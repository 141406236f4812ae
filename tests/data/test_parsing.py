import numpy as np
import tensorflow as tf

from tests.examples import (
    labelled_record,
    random_request,
    random_samples,
    request_record,
    small_schema,
    tensors,
)
from tests.layers.conformance import assert_close
from tests.models.conformance import perturbed, valid_logits
from tfrec_feedback.data.parsing import input_parsers, parse_features, parse_requests
from tfrec_feedback.models import build_model
from tfrec_feedback.requests import encode_requests

SCHEMA = small_schema()


def records(requests):
    return tf.constant([request_record(SCHEMA, request) for request in requests])


def test_every_input_of_the_schema_is_parsed():
    assert list(input_parsers(SCHEMA)) == [spec.name for spec in SCHEMA.inputs()]


def test_records_parse_to_the_tensors_the_client_sends():
    rng = np.random.default_rng(0)
    requests = [random_request(rng, longest=4) for _ in range(6)]
    parsed = parse_features(records(requests), SCHEMA)
    for name, expected in encode_requests(SCHEMA, requests).items():
        assert parsed[name].shape == expected.shape, name
        np.testing.assert_array_equal(parsed[name].numpy(), expected, name)


def test_session_numbers_parse_to_the_tensors_the_client_sends():
    schema = small_schema(num_sessions=2)
    rng = np.random.default_rng(6)
    requests = [random_request(rng, longest=4, sessions=True) for _ in range(6)]
    written = tf.constant([request_record(schema, request) for request in requests])
    parsed = parse_features(written, schema)
    for name, expected in encode_requests(schema, requests).items():
        np.testing.assert_array_equal(parsed[name].numpy(), expected, name)
    assert parsed["click_session"].dtype == tf.int64
    # A model that reads no sessions is given the same records.
    assert "click_session" not in parse_features(written, schema.without_sessions())


def test_a_batch_without_any_history_has_width_0_and_is_scored():
    rng = np.random.default_rng(1)
    requests = [random_request(rng, longest=0) for _ in range(3)]
    parsed = parse_features(records(requests), SCHEMA)
    assert parsed["click_item_id"].shape == [3, 0]
    assert parsed["click_tag"].shape == [3, 0, 3]
    assert parsed["click_length"].numpy().tolist() == [0, 0, 0]
    model = perturbed(build_model("dfn", SCHEMA, embedding_dim=4, num_heads=1))
    assert_close(valid_logits(model, parsed), valid_logits(model, tensors(SCHEMA, requests)), 1e-6)


def test_no_records_parse_to_a_batch_of_none():
    parsed = parse_features(tf.constant([], tf.string), SCHEMA)
    assert parsed["hour"].shape == [0]
    assert parsed["item_id"].shape[0] == 0


def test_a_dislike_outranks_a_click():
    request = random_request(np.random.default_rng(2), num_candidates=4)
    # Nothing, a click, a dislike, and a click taken back by a dislike.
    flags = {"click": [0, 1, 0, 1], "dislike": [0, 0, 1, 1], "like": [0, 0, 0, 0]}
    serialized = tf.constant([labelled_record(SCHEMA, request, flags)])
    _, labels, _, _ = parse_requests(serialized, SCHEMA)
    assert labels["ctr"].numpy().tolist() == [[0, 1, 0, 0]]
    assert labels["dislike"].numpy().tolist() == [[0, 0, 1, 1]]


def test_a_like_counts_as_a_click():
    request = random_request(np.random.default_rng(2), num_candidates=2)
    serialized = tf.constant([labelled_record(SCHEMA, request, {"like": [0, 1]})])
    assert parse_requests(serialized, SCHEMA)[1]["ctr"].numpy().tolist() == [[0, 1]]


def sampled_records(requests, samples):
    """Records of requests, each with its row of the sample tensors."""
    lengths = {s.name: samples[s.length].numpy() for s in SCHEMA.samples}
    written = []
    for r, request in enumerate(requests):
        more = {}
        for spec in SCHEMA.training_inputs():
            if spec.name in samples:
                values = samples[spec.name][r].numpy()
                kept = values[: lengths[spec.sequence][r]] if "T" in spec.axes else values
                more[spec.name] = (spec.dtype, np.ravel(kept).tolist())
        written.append(labelled_record(SCHEMA, request, {}, **more))
    return tf.constant(written)


def test_samples_are_parsed_in_training_when_asked_for():
    rng = np.random.default_rng(4)
    requests = [random_request(rng) for _ in range(5)]
    samples = random_samples(SCHEMA, 5)
    serialized = sampled_records(requests, samples)
    features = parse_requests(serialized, SCHEMA, samples=True)[0]
    assert list(features) == [spec.name for spec in SCHEMA.training_inputs()]
    for name, expected in samples.items():
        np.testing.assert_array_equal(features[name], expected, name)
    assert list(parse_requests(serialized, SCHEMA)[0]) == [s.name for s in SCHEMA.inputs()]
    assert set(parse_features(serialized, SCHEMA)) == {s.name for s in SCHEMA.inputs()}


def test_records_without_samples_are_parsed_where_none_are_asked_for():
    request = random_request(np.random.default_rng(5))
    serialized = tf.constant([labelled_record(SCHEMA, request, {})])
    assert "click_item_id" in parse_requests(serialized, SCHEMA)[0]
    plain = small_schema(num_samples=0)
    features = parse_requests(serialized, plain, samples=True)[0]
    assert list(features) == [spec.name for spec in plain.inputs()]


def test_padded_candidates_weigh_nothing_and_have_no_label():
    rng = np.random.default_rng(3)
    serialized = [
        labelled_record(SCHEMA, random_request(rng, n), {"click": [1] * n}, f"r{n}") for n in (1, 3)
    ]
    _, labels, weights, identity = parse_requests(tf.constant(serialized), SCHEMA)
    assert labels["ctr"].numpy().tolist() == weights.numpy().tolist() == [[1, 0, 0], [1, 1, 1]]
    assert identity["request_id"].numpy().tolist() == [b"r1", b"r3"]
    assert identity["user_key"].numpy().tolist() == [b"user", b"user"]
    assert identity["timestamp"].numpy().tolist() == [0, 0]
