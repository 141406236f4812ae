import dataclasses
import shutil
import time

import numpy as np
import pytest
import tensorflow as tf

from serving import wire
from serving.channel import Channel
from serving.client import FeedbackClient
from serving.loader import LoadedModel
from serving.server import FeedbackServer
from serving.tensors import from_proto, to_proto
from tests.examples import random_request, request_record, small_schema, tensors
from tests.layers.conformance import assert_close
from tests.models.conformance import perturbed
from tfrec_feedback.export import ExportError, RequestScorer, export_run, publish
from tfrec_feedback.models import build_model
from tfrec_feedback.requests import encode_requests
from tfrec_feedback.runs import RunError, load_run
from tfrec_feedback.schema import Schema

SCHEMA = small_schema()
SMALL = {"embedding_dim": 4, "num_heads": 1, "deep_units": [8]}
BATCH = 10


def random_requests(count, seed=0):
    """Unknown ids, empty and too long histories; every hundredth request has 300 candidates."""
    rng = np.random.default_rng(seed)
    return [random_request(rng, 300 if i % 100 == 7 else None) for i in range(count)]


def batches(requests):
    return [requests[i : i + BATCH] for i in range(0, len(requests), BATCH)]


@pytest.fixture(scope="module")
def model():
    return perturbed(build_model("dfn", SCHEMA, **SMALL))


@pytest.fixture(scope="module")
def version(model, tmp_path_factory):
    return publish(model, tmp_path_factory.mktemp("export") / "dfn", version=7)


@pytest.fixture(scope="module")
def loaded(version):
    return tf.saved_model.load(str(version))


@pytest.fixture(scope="module")
def target(version):
    with FeedbackServer(version.parent, "dfn") as server:
        yield server.target


def expected_scores(model, requests):
    """Keras logits and a sigmoid: `{task: [N]}` of every request."""
    scores = []
    for batch in batches(requests):
        features = tensors(SCHEMA, batch)
        values = {task: tf.sigmoid(x).numpy() for task, x in model(features).items()}
        for r, count in enumerate(features["num_candidates"].numpy()):
            scores.append({task: x[r, :count] for task, x in values.items()})
    return scores


def split(scores, batch):
    """`[R, N]` scores by request, after checking that what is padded scores 0."""
    counts = encode_requests(SCHEMA, batch)["num_candidates"]
    for values in scores.values():
        padded = np.arange(values.shape[1])[None] >= counts[:, None]
        assert not values[padded].any()
    return [{t: x[r, :count] for t, x in scores.items()} for r, count in enumerate(counts)]


def as_rows(batch):
    """The arrays of `predict_rows`: each candidate with its user's part."""
    arrays = encode_requests(SCHEMA, batch)
    counts = arrays["num_candidates"]
    user = np.repeat(np.arange(len(counts)), counts)
    candidate = np.concatenate([np.arange(count) for count in counts])
    candidates = {spec.name for spec in SCHEMA.inputs() if "N" in spec.axes}
    rows = {
        spec.name: arrays[spec.name][user, candidate]
        if spec.name in candidates
        else arrays[spec.name][user]
        for spec in SCHEMA.row_inputs()
    }
    return rows, np.cumsum(counts)[:-1]


def split_rows(scores, ends):
    parts = {task: np.split(values, ends) for task, values in scores.items()}
    return [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]


def in_process(loaded, name, arrays):
    constants = {
        n: tf.constant(a, tf.string if a.dtype == object else None) for n, a in arrays.items()
    }
    return {task: x.numpy() for task, x in loaded.signatures[name](**constants).items()}


def over_grpc(target, name, arrays):
    request = wire.PredictRequest(model_spec={"name": "dfn", "signature_name": name})
    for key, array in arrays.items():
        request.inputs[key].CopyFrom(to_proto(array))
    channel = Channel(target)
    answer = channel.call(wire.PREDICT, request, deadline=time.monotonic() + 60)
    channel.close()
    return {task: from_proto(proto) for task, proto in answer.outputs.items()}


def all_signatures(call, requests):
    """Scores of every request by signature; `call` takes a signature's name and its arrays."""
    scores = {name: [] for name in ("rank", "serving_default", "rank_examples", "predict_rows")}
    for batch in batches(requests):
        for name in ("rank", "serving_default"):
            scores[name] += split(call(name, encode_requests(SCHEMA, batch)), batch)
        records = np.array([request_record(SCHEMA, request) for request in batch], object)
        scores["rank_examples"] += split(call("rank_examples", {"examples": records}), batch)
        rows, ends = as_rows(batch)
        scores["predict_rows"] += split_rows(call("predict_rows", rows), ends)
    return scores


def check_all(model, loaded, target, requests):
    expected = expected_scores(model, requests)
    here = all_signatures(lambda name, arrays: in_process(loaded, name, arrays), requests)
    there = all_signatures(lambda n, arrays: over_grpc(target, n, arrays), requests)
    with FeedbackClient(target, "dfn", timeout=60) as client:
        there["client, derived schema"] = client.rank_many(requests)
        records = [request_record(SCHEMA, request) for request in requests]
        there["client, records"] = client.rank_examples(records)
    with FeedbackClient(target, "dfn", SCHEMA, timeout=60) as client:
        there["client, given schema"] = [client.rank(**request) for request in requests[:5]]
    for where, scores in [*here.items(), *there.items()]:
        assert len(scores) == (5 if where.endswith("given schema") else len(requests))
        for values, wanted in zip(scores, expected, strict=False):
            assert sorted(values) == ["ctr", "dislike"]
            assert_close(values, wanted, 1e-5)


def test_every_signature_scores_as_keras_does_in_process_and_over_grpc(model, loaded, target):
    check_all(model, loaded, target, random_requests(200))


def test_a_dislike_head_is_exported_too(tmp_path):
    model = perturbed(build_model("dfn_click", SCHEMA, dislike_head=True, **SMALL))
    loaded = tf.saved_model.load(str(publish(model, tmp_path / "dfn", version=1)))
    requests = random_requests(20, seed=1)
    with FeedbackServer(tmp_path / "dfn", "dfn") as server:
        check_all(model, loaded, server.target, requests)
    scores = expected_scores(model, requests)
    assert max(np.abs(s["ctr"] + s["dislike"] - 1).max() for s in scores) > 0.01


def test_a_user_memory_is_exported_as_trained_and_never_written_by_scoring(tmp_path):
    memory = {"memory_size": 9, "word_size": 4, "controller_units": 6}
    model = build_model("dumn", SCHEMA, embedding_dim=4, deep_units=[8], user_memory=memory)
    model = perturbed(model)
    state = model.user_memory.memory("dislike").memory.numpy()
    version = publish(model, tmp_path / "dfn", version=1)
    loaded = tf.saved_model.load(str(version))
    requests = random_requests(20, seed=1)
    with FeedbackServer(tmp_path / "dfn", "dfn") as server:
        check_all(model, loaded, server.target, requests)
    operations = {
        operation.type
        for signature in loaded.signatures.values()
        for graph in (signature.graph, *signature.graph._functions.values())
        for operation in getattr(graph, "graph", graph).get_operations()
    }
    assert "ReadVariableOp" in operations
    assert not {kind for kind in operations if kind.startswith("Assign")}
    stored = [v for v in tf.train.list_variables(str(version / "variables" / "variables"))]
    shapes = [shape for _, shape in stored]
    assert shapes.count([9, 4]) == 4
    reader = tf.train.load_checkpoint(str(version / "variables" / "variables"))
    kept = [reader.get_tensor(name) for name, shape in stored if shape == [9, 4]]
    assert any(np.array_equal(value, state) for value in kept)


def test_padding_with_the_first_element_changes_nothing(loaded):
    batch = random_requests(6, seed=2)
    arrays = encode_requests(SCHEMA, batch)
    padded = {
        name: np.concatenate([a, np.repeat(a[:, :1], 3, axis=1)], axis=1)
        if {"N", "T"} & set(spec.axes)
        else a
        for (name, a), spec in zip(arrays.items(), SCHEMA.inputs(), strict=True)
    }
    assert padded["item_id"].shape[1] == arrays["item_id"].shape[1] + 3
    assert padded["click_tag"].shape[1] == arrays["click_tag"].shape[1] + 3
    scores = [split(in_process(loaded, "rank", a), batch) for a in (arrays, padded)]
    for before, after in zip(*scores, strict=True):
        assert_close(after, before, 1e-5)


def test_only_the_last_events_of_a_long_history_count(loaded):
    """T is 5: seven events score as their last five, and two as two."""
    wide = small_schema(max_length=20)
    rng = np.random.default_rng(3)
    request = random_request(rng, num_candidates=4, longest=1)
    items = {"item_id": rng.choice(20, 7) + 100, "tag": [["art"], [], ["music"], [], [], [], []]}

    def scores(events):
        part = {name: list(values)[events] for name, values in items.items()}
        given = {**request, "histories": {"click": part, "dislike": part}}
        return in_process(loaded, "rank", encode_requests(wide, [given]))

    assert_close(scores(slice(0, 7)), scores(slice(2, 7)), 1e-6)
    shorter = scores(slice(5, 7))
    assert np.abs(shorter["ctr"] - scores(slice(2, 7))["ctr"]).max() > 1e-5


@pytest.mark.parametrize("name", ["rank", "predict_rows", "rank_examples"])
def test_no_rows_give_no_scores(target, name):
    empty = {
        "rank": encode_requests(SCHEMA, []),
        "predict_rows": {k: v[:0] for k, v in as_rows(random_requests(1, seed=4))[0].items()},
        "rank_examples": {"examples": np.zeros([0], object)},
    }[name]
    scores = over_grpc(target, name, empty)
    assert sorted(scores) == ["ctr", "dislike"]
    assert all(len(values) == 0 for values in scores.values())


def test_no_candidates_give_no_scores(loaded):
    arrays = encode_requests(SCHEMA, random_requests(2, seed=5))
    for spec in SCHEMA.inputs():
        if "N" in spec.axes:
            arrays[spec.name] = arrays[spec.name][:, :0]
    arrays["num_candidates"][:] = 0
    assert in_process(loaded, "rank", arrays)["ctr"].shape == (2, 0)


def test_a_moved_version_still_loads(model, version, tmp_path):
    moved = tmp_path / "elsewhere" / "9"
    shutil.copytree(version, moved)
    assert sorted(path.name for path in (moved / "assets").iterdir()) == ["item_id.txt", "tag.txt"]
    (moved / "assets" / "item_id.txt").write_text(
        "".join(f"{item}\n" for item in reversed(range(100, 120)))
    )
    batch = random_requests(5, seed=6)
    before, after = (
        LoadedModel("dfn", path).run("rank", encode_requests(SCHEMA, batch))["ctr"]
        for path in (version, moved)
    )
    expected = np.concatenate([s["ctr"] for s in expected_scores(model, batch)])
    np.testing.assert_allclose(before[before > 0], expected, rtol=1e-4)
    # The copy reads its own files: with the items renumbered it scores differently.
    assert np.abs(before - after).max() > 1e-4


def test_the_published_schema_finds_its_vocabularies(version):
    schema = Schema.from_json(version / "assets.extra" / "schema.json")
    assert schema.inputs()[0] == SCHEMA.inputs()[0]
    assert [s.name for s in schema.inputs()] == [s.name for s in SCHEMA.inputs()]
    for table in ("item_id", "tag"):
        assert schema.vocabulary(table) == SCHEMA.vocabulary(table)
    assert schema.with_inline_vocabularies() == SCHEMA


def test_published_versions_are_never_overwritten(model, version):
    before = {p: p.read_bytes() for p in version.rglob("*") if p.is_file()}
    with pytest.raises(ExportError, match="Version 7 is already published"):
        publish(model, version.parent, version=7)
    assert {p: p.read_bytes() for p in version.rglob("*") if p.is_file()} == before
    assert [p.name for p in version.parent.iterdir()] == ["7"]


@pytest.mark.parametrize("wrong", [0, -1, 2**63])
def test_versions_are_positive(model, tmp_path, wrong):
    with pytest.raises(ExportError, match=f"positive integer of 63 bits, got {wrong}"):
        publish(model, tmp_path / "dfn", version=wrong)
    assert not (tmp_path / "dfn").exists()


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_interrupted_publication_leaves_nothing(model, tmp_path, monkeypatch, error):
    def interrupted(scorer, path, **_):
        tf.io.gfile.makedirs(f"{path}/variables")
        raise error("in the middle")

    monkeypatch.setattr(tf.saved_model, "save", interrupted)
    monkeypatch.setattr(RequestScorer, "signatures", lambda scorer: {})  # tracing takes seconds
    with pytest.raises(error):
        publish(model, tmp_path, version=4)
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_published_with_what_belongs_to_it(tiny_run, tiny_version):
    assert tiny_version.name == "3"
    extra = tiny_version / "assets.extra"
    assert {p.name for p in extra.iterdir()} >= {"schema.json", "config.toml", "run.json"}
    assert (extra / "config.toml").read_text() == (tiny_run / "config.toml").read_text()
    model, _ = load_run(tiny_run)
    schema = Schema.from_json(extra / "schema.json")
    assert schema.with_inline_vocabularies() == model.schema.with_inline_vocabularies()
    assert list(dataclasses.asdict(schema)) == list(dataclasses.asdict(model.schema))


def test_a_folder_without_a_finished_run_is_not_published(tmp_path):
    with pytest.raises(RunError, match="No run in"):
        export_run(tmp_path, tmp_path / "models")
