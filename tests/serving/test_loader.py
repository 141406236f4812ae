import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from serving.graph_import import import_in_steps
from serving.loader import LoadedModel, ModelError, find_version
from tests.serving.calling import RecordingSteps
from tests.serving.tiny_model import CTR, DISLIKE, REQUEST, SCHEMA, record
from tfrec_feedback.requests import encode_requests


def publish(base, *names):
    for name in names:
        (base / name).mkdir(parents=True)
        (base / name / "saved_model.pb").touch()


def test_the_highest_integer_is_served_and_other_names_are_ignored(tmp_path):
    publish(tmp_path, "9", "10", ".tmp-30", "backup", "1.5", "-40", "²")
    (tmp_path / "99").touch()  # a file is no version
    assert find_version(tmp_path) == tmp_path / "10"


def test_a_version_can_be_named(tmp_path):
    publish(tmp_path, "9", "10")
    assert find_version(tmp_path, 9) == tmp_path / "9"
    with pytest.raises(ModelError, match=r"No version 8 in .*; there are \[9, 10\]"):
        find_version(tmp_path, 8)


def test_folders_without_a_version_are_refused_saying_what_was_found(tmp_path):
    publish(tmp_path, ".tmp-3")
    with pytest.raises(ModelError, match=r"expected folders named by integers, found \['.tmp-3'\]"):
        find_version(tmp_path)
    with pytest.raises(ModelError, match="No folder"):
        find_version(tmp_path / "none")


def test_a_version_without_a_model_is_refused(tmp_path):
    (tmp_path / "1").mkdir()
    with pytest.raises(ModelError, match=r"holds no saved_model\.pb"):
        find_version(tmp_path)


def test_a_corrupt_model_is_refused_naming_its_folder(tmp_path):
    publish(tmp_path, "1")
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"garbage")
    with pytest.raises(ModelError, match=r"/1 cannot be loaded"):
        LoadedModel("tiny", tmp_path / "1")


def test_a_loaded_model_gives_the_scores_worked_out_by_hand(base_path, tmp_path):
    moved = shutil.copytree(base_path / "7", tmp_path / "8")
    model = LoadedModel("tiny", moved)
    scores = model.run("serving_default", encode_requests(SCHEMA, [REQUEST]))
    assert model.version == 8
    np.testing.assert_allclose(scores["ctr"], [CTR])
    np.testing.assert_allclose(scores["dislike"], [DISLIKE])
    assert set(model.signatures) == {
        "serving_default",
        "rank",
        "predict_rows",
        "rank_examples",
        "slow",
    }
    model.close()


def test_a_run_with_a_deadline_gives_the_same_and_is_stopped_when_it_passes(base_path):
    model = LoadedModel("tiny", base_path / "7")
    inputs = {"rank": encode_requests(SCHEMA, [REQUEST])}
    inputs["rank_examples"] = {"examples": np.array([record(21, [2, 3], [0.5, 1.0])], object)}
    for signature, batch in inputs.items():
        free = model.run(signature, batch)
        for seconds in (60.0, 1e9):
            np.testing.assert_array_equal(model.run(signature, batch, seconds)["ctr"], free["ctr"])
    with pytest.raises(tf.errors.DeadlineExceededError):
        model.run("slow", {"iterations": np.array([10**9])}, 0.01)
    model.close()


def test_what_the_graph_refuses_is_an_error_of_tensorflow(base_path):
    model = LoadedModel("tiny", base_path / "7")
    with pytest.raises(tf.errors.InvalidArgumentError):
        model.run("rank_examples", {"examples": np.array([b"no example"], object)})
    model.close()


def test_a_graph_is_imported_in_steps_and_nothing_is_lost(templates, monkeypatch):
    data = (templates[1] / "saved_model.pb").read_bytes()
    graph_def = saved_model_pb2.SavedModel.FromString(data).meta_graphs[0].graph_def
    functions = {function.signature.name for function in graph_def.library.function}
    nodes = {node.name: node.op for node in graph_def.node}
    import_graph_def, steps = tf.graph_util.import_graph_def, []

    def watched(part, name):
        steps.append((len(part.library.function), len(part.node)))
        import_graph_def(part, name=name)

    monkeypatch.setattr(tf.graph_util, "import_graph_def", watched)
    with tf.Graph().as_default() as graph:
        import_in_steps(graph_def)
    assert steps == [(1, 0)] * len(functions) + [(0, len(nodes))]
    assert {node.name: node.type for node in graph.get_operations()} == nodes
    assert {f.signature.name for f in graph.as_graph_def().library.function} == functions
    calls = [node for node in graph.get_operations() if "PartitionedCall" in node.type]
    # What calls give is not inferred: for a real model that holds Python's lock for 40 ms each.
    assert calls and all(call.get_attr("_disable_call_shape_inference") for call in calls)


def test_loading_pauses_after_each_function_and_prepares_what_ranks_in_steps(templates):
    data = (templates[1] / "saved_model.pb").read_bytes()
    graph_def = saved_model_pb2.SavedModel.FromString(data).meta_graphs[0].graph_def
    steps = RecordingSteps()
    model = LoadedModel("scaled", templates[1], steps=steps)
    assert steps.pauses == len(graph_def.library.function) > 0
    assert steps.runs == len(model._callables) == 2
    # A signature is passed over once by TensorFlow's optimiser, not twice.
    options = model._session._config.graph_options.rewrite_options
    assert options.meta_optimizer_iterations == options.ONE
    model.close()


def test_a_model_that_is_not_written_as_tensorflow_2_does_is_loaded_whole(tmp_path):
    v1 = tf.compat.v1
    with v1.Session(graph=tf.Graph()) as session:
        with session.graph.as_default():
            x = v1.placeholder(tf.float32, [None], "x")
            weight = v1.get_variable("weight", initializer=tf.constant(3.0))
            session.run(v1.global_variables_initializer())
            v1.saved_model.simple_save(session, str(tmp_path / "1"), {"x": x}, {"y": weight * x})
    model = LoadedModel("v1", tmp_path / "1")
    assert model.run("serving_default", {"x": np.float32([2.0])})["y"].tolist() == [6.0]
    model.close()
