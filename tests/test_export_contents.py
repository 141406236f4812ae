"""What stands in a published version beside the signatures that `test_export` compares."""

import json
import os
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from serving.loader import LoadedModel
from serving.tensors import from_proto
from tests.examples import random_request, request_record, small_schema
from tests.layers.conformance import assert_close
from tests.models.conformance import perturbed
from tfrec_feedback import export
from tfrec_feedback.data.manifest import load_manifest
from tfrec_feedback.data.tfrecord import read_records
from tfrec_feedback.export import export_run, publish
from tfrec_feedback.golden import expected_scores
from tfrec_feedback.models import build_model
from tfrec_feedback.runs import load_run
from tfrec_feedback.skew import score_records
from tfrec_feedback.warmup import BUCKETS, MOST_RECORDS

SCHEMA = small_schema()
PREDICTED = ("serving_default", "rank", "predict_rows", "rank_examples")


@pytest.fixture(scope="module")
def model():
    small = {"embedding_dim": 4, "num_heads": 1, "deep_units": [8]}
    return perturbed(build_model("dfn_click", SCHEMA, dislike_head=True, **small))


@pytest.fixture(scope="module")
def version(model, tmp_path_factory):
    return publish(model, tmp_path_factory.mktemp("contents") / "dfn", version=7)


@pytest.fixture(scope="module")
def loaded(version):
    model = LoadedModel("dfn", version)
    yield model
    model.close()


def warmup(version):
    path = version / "assets.extra" / "tf_serving_warmup_requests"
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(path))]
    return [prediction_log_pb2.PredictionLog.FromString(record) for record in records]


def golden(version):
    path = version / "assets.extra" / "golden_requests.tfrecord"
    return [record for _, record in read_records(path)]


def test_signatures_say_which_api_they_answer(version):
    saved = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    (graph,) = saved.meta_graphs
    methods = {n: d.method_name for n, d in graph.signature_def.items() if n[:2] != "__"}
    assert methods == {
        **dict.fromkeys(PREDICTED, "tensorflow/serving/predict"),
        "regress": "tensorflow/serving/regress",
        "classify": "tensorflow/serving/classify",
    }
    # The keys that TensorFlow Serving looks for.
    assert list(graph.signature_def["regress"].inputs) == ["inputs"]
    assert list(graph.signature_def["regress"].outputs) == ["outputs"]
    assert list(graph.signature_def["classify"].inputs) == ["inputs"]
    assert sorted(graph.signature_def["classify"].outputs) == ["classes", "scores"]


def test_regress_and_classify_score_the_first_candidate_of_every_record(model, loaded):
    rng = np.random.default_rng(0)
    records = [request_record(SCHEMA, random_request(rng, count)) for count in (1, 4, 0, 2)]
    scores = score_records(model, records)
    expected = {t: [s[t][0] if len(s[t]) else 0.0 for s in scores] for t in ("ctr", "dislike")}
    assert np.abs(np.subtract(expected["ctr"], expected["dislike"])).max() > 0.01
    inputs = {"inputs": np.array(records, object)}
    regressed = loaded.run("regress", inputs)["outputs"]
    assert_close(regressed, np.float32(expected["ctr"]), 1e-6)
    classified = loaded.run("classify", inputs)
    assert classified["classes"].tolist() == [[b"ctr", b"dislike"]] * 4
    assert_close(classified["scores"], np.float32([*expected.values()]).T, 1e-6)


@pytest.mark.parametrize("signature", ["regress", "classify"])
def test_records_without_candidates_and_no_records_are_answered(loaded, signature):
    none = np.array([request_record(SCHEMA, random_request(np.random.default_rng(1), 0))], object)
    for records in (none, none[:0]):
        for values in loaded.run(signature, {"inputs": records}).values():
            assert len(values) == len(records)
            assert values.dtype == object or not values.any()


def test_every_signature_is_warmed_up_in_every_bucket(version):
    seen = {}
    for log in warmup(version):
        kind = log.WhichOneof("log_type")
        request = getattr(log, kind).request
        assert request.model_spec.name == "dfn"
        if kind == "predict_log":
            arrays = {name: from_proto(proto) for name, proto in request.inputs.items()}
            last = {"rank_examples": "examples"}.get(request.model_spec.signature_name, "item_id")
            size = arrays[last].shape[-1]
            if last == "examples":
                size = tf.train.Example.FromString(arrays[last][0]).features.feature["item_id"]
                size = len(size.int64_list.value)
            seen.setdefault(request.model_spec.signature_name, []).append(size)
        else:
            assert kind == f"{request.model_spec.signature_name}_log"
            size = len(request.input.example_list.examples)
            seen.setdefault(request.model_spec.signature_name, []).append(size)
    filters = [log.predict_log.request.output_filter for log in warmup(version)]
    assert [list(names) for names in filters if names] == [["ctr"], ["dislike"]]
    assert seen.pop("serving_default") == [*BUCKETS, 256, 256]
    assert seen == dict.fromkeys((*PREDICTED[1:], "regress", "classify"), list(BUCKETS))
    assert len(warmup(version)) <= MOST_RECORDS


def test_what_is_warmed_up_with_runs(version, loaded):
    for log in warmup(version):
        kind = log.WhichOneof("log_type")
        request = getattr(log, kind).request
        name = request.model_spec.signature_name
        if kind == "predict_log":
            inputs = {key: from_proto(proto) for key, proto in request.inputs.items()}
        else:
            examples = [e.SerializeToString() for e in request.input.example_list.examples]
            inputs = {"inputs": np.array(examples, object)}
        assert set(inputs) == set(loaded.signatures[name].inputs)
        values = loaded.run(name, inputs)
        scores = next(x for key, x in values.items() if key != "classes")
        assert np.isfinite(scores).all()
        assert (scores != 0).all()


def test_golden_requests_expect_what_keras_answers(model, version):
    records = golden(version)
    expected = [expected_scores(record) for record in records]
    found = score_records(model, records)
    for wanted, got in zip(expected, found, strict=True):
        assert sorted(wanted) == ["ctr", "dislike"]
        assert_close(got, wanted, 0)
    assert max(len(scores["ctr"]) for scores in expected) == 300


def test_a_run_is_published_with_requests_of_its_test_split(tiny_run, tiny_version, tiny_data):
    described = json.loads((tiny_version / "assets.extra" / "run.json").read_text())
    assert described["export"]["golden_requests"] == "test split"
    assert described["export"]["version"] == 3
    assert described["finished"]
    schema = load_run(tiny_run)[0].schema
    logged = {
        tuple(tf.train.Example.FromString(r).features.feature["item_id"].int64_list.value)
        for path in tiny_data.shard_paths("test")
        for _, r in read_records(path)
    }
    features = [tf.train.Example.FromString(r).features.feature for r in golden(tiny_version)]
    found = [tuple(feature["item_id"].int64_list.value) for feature in features]
    assert sum(items in logged for items in found) >= 12
    names = {spec.name for spec in schema.inputs()} | {"golden/ctr", "golden/dislike"}
    assert {name for feature in features for name in feature} == names


@pytest.mark.parametrize("why", ["asked for", "data gone", "data changed"])
def test_golden_requests_are_made_up_where_the_data_is_not_at_hand(
    tiny_run, tmp_path, monkeypatch, why
):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    described = json.loads((run / "run.json").read_text())
    if why == "data gone":
        described["config"]["data"]["directory"] = str(tmp_path / "nothing")
    if why == "data changed":
        described["data_fingerprint"] = "another"
    (run / "run.json").write_text(json.dumps(described))
    given = {}
    monkeypatch.setattr(export, "publish", lambda *_, **options: given.update(options))
    export_run(run, tmp_path / "models", synthetic=why == "asked for")
    assert given["records"] == []
    assert json.loads(given["extra"]["run.json"])["export"]["golden_requests"] == "synthetic"


def test_damaged_test_records_become_no_golden_requests(tiny_run, tiny_data, tmp_path, monkeypatch):
    data = shutil.copytree(tiny_data.directory, tmp_path / "data")
    shard = load_manifest(data).shard_paths("test")[0]
    content = bytearray(shard.read_bytes())
    content[20] ^= 1
    shard.write_bytes(content)
    run = shutil.copytree(tiny_run, tmp_path / "run")
    described = json.loads((run / "run.json").read_text())
    described["config"]["data"]["directory"] = str(data)
    (run / "run.json").write_text(json.dumps(described))
    given = {}
    monkeypatch.setattr(export, "publish", lambda *_, **options: given.update(options))
    export_run(run, tmp_path / "models")
    assert len(given["records"]) == tiny_data.split("test").requests - 1


def test_everything_is_on_the_disk_before_the_version_has_its_name(model, tmp_path, monkeypatch):
    flushed = []
    real = os.rename

    def seen(source, target):
        flushed.append({p.name for p in (source / "assets.extra").iterdir()})
        assert b"tensorflow/serving/regress" in (source / "saved_model.pb").read_bytes()
        real(source, target)

    monkeypatch.setattr(os, "rename", seen)
    monkeypatch.setattr("tfrec_feedback.export.golden_records", lambda *_: [b"record"])
    publish(model, tmp_path / "dfn", version=1)
    files = {"schema.json", "tf_serving_warmup_requests", "golden_requests.tfrecord"}
    assert flushed == [files]


def test_the_graph_of_the_model_is_written_once(tiny_version):
    data = (tiny_version / "saved_model.pb").read_bytes()
    (meta_graph,) = saved_model_pb2.SavedModel.FromString(data).meta_graphs
    names = [function.signature.name for function in meta_graph.graph_def.library.function]
    for function in ("rank", "predict_rows", "rank_examples", "first_candidates"):
        assert len([n for n in names if re.fullmatch(rf"__inference__{function}_\d+", n)]) == 1
    assert not [name for name in names if "grad" in name]
