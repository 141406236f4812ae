"""New, corrupt, deleted and labelled versions, seen by callers over real gRPC."""

import contextlib
import shutil
import threading

import pytest

from serving import server_wire, wire
from serving.calls import Rejected
from serving.embedded import EmbeddedServer
from serving.loader import ModelError
from serving.manager import ModelManager, Watching
from serving.model_config import ModelConfig, VersionPolicy
from serving.server import FeedbackServer
from serving.server_wire import AVAILABLE, END
from serving.tensors import from_proto
from tests.serving.calling import (
    PATIENT,
    QUICK,
    FakeModel,
    connected,
    log_lines,
    refusal,
    wait_until,
)
from tests.serving.scaled_model import publish, publish_corrupt, rank_request


def test_versions_swap_under_load_without_a_failed_or_wrong_answer(templates, tmp_path):
    base = tmp_path / "scaled"
    publish(templates[1], base, 1)
    answers, problems, stopped = [], [], threading.Event()

    def call(server):
        with connected(server) as caller:
            while not stopped.is_set():
                try:
                    response = caller(server_wire.wire.PREDICT, rank_request([3]))
                except Exception as error:  # any failure is one too many
                    problems.append(error)
                    return
                version = response.model_spec.version.value
                scale = 2 - version % 2  # odd versions multiply by 1, even ones by 2
                score = server_wire.wire.TensorProto.FromString(
                    response.outputs["score"].SerializeToString()
                )
                answers.append((version, score.tensor_content == _content(3.0 * scale)))

    with FeedbackServer(base, "scaled", settings=QUICK) as server:
        callers = [threading.Thread(target=call, args=(server,)) for _ in range(4)]
        for thread in callers:
            thread.start()
        for version in (2, 3, 4):
            publish(templates[2 - version % 2], base, version)
            wait_until(lambda v=version: server.version == v, f"version {version} serves")
            count = len(answers)
            wait_until(lambda n=count: len(answers) > n + 4 or problems, "calls go on")
        stopped.set()
        for thread in callers:
            thread.join()
        assert not problems
        assert all(right for _, right in answers)
        assert {version for version, _ in answers} == {1, 2, 3, 4}
        with connected(server) as caller:
            wait_until(lambda: caller.states()[3] == (END, 0), "version 3 is freed")
            assert caller.states() == {1: (END, 0), 2: (END, 0), 3: (END, 0), 4: (AVAILABLE, 0)}


def _content(score: float) -> bytes:
    import numpy as np

    from serving.tensors import to_proto

    return to_proto(np.array([[score]], np.float32)).tensor_content


def test_a_version_is_freed_only_after_its_last_call(templates, tmp_path):
    base = tmp_path / "scaled"
    publish(templates[1], base, 1)
    with FeedbackServer(base, "scaled", settings=PATIENT) as server, connected(server) as caller:
        inputs = {name: from_proto(p) for name, p in rank_request([5]).inputs.items()}
        with server.manager.lease(wire.ModelSpec(name="scaled")) as held:  # as a call holds it
            publish(templates[2], base, 2)
            server.manager.rescan()
            assert caller.scores([5]) == [10.0]
            assert caller.states()[1][0] == server_wire.UNLOADING
            assert held.version == 1
            assert held.run("serving_default", inputs)["score"] == [[5.0]]
        assert caller.states()[1] == (END, 0)


def test_a_corrupt_new_version_leaves_the_old_one_serving_and_is_reported(
    templates, tmp_path, caplog
):
    base = tmp_path / "scaled"
    publish(templates[1], base, 1)
    with FeedbackServer(base, "scaled", settings=QUICK) as server, connected(server) as caller:
        publish_corrupt(base, 2)
        cut = publish(templates[2], base, 3)
        data = next((cut / "variables").glob("*.data*"))
        data.write_bytes(b"")
        (cut / "saved_model.pb").unlink()
        wait_until(lambda: {2, 3} <= set(caller.states()), "both were tried")
        wait_until(lambda: all(caller.states()[v][0] == END for v in (2, 3)), "both have ended")
        states = caller.states()
        assert states[1] == (AVAILABLE, 0)
        assert states[2][1] != 0
        assert states[3] == (END, 5)  # NOT_FOUND: the folder holds no model
        assert caller.version() == 1
        assert caller.scores([4]) == [4.0]
        for _ in range(3):
            server.manager.rescan()
        assert log_lines(caplog, "version 2 is not served") == 1, "it is not tried at every look"
        for version in (2, 3):
            assert server.metrics.loads.value(str(base / str(version)), "fail") == 1
        publish(templates[2], base, 4)
        wait_until(lambda: caller.version() == 4, "the next good version serves")


def test_a_failed_load_is_tried_again_so_many_times(templates, tmp_path):
    from serving.manager import ModelManager, Watching

    publish(templates[1], tmp_path, 1)
    tries = []

    def load(name, path, steps):
        tries.append(path)
        if len(tries) < 3:
            raise ModelError("the disk is slow today")
        return FakeModel()

    config = ModelConfig("scaled", tmp_path)
    manager = ModelManager([config], load, Watching(0, max_load_retries=2, retry_seconds=0))
    assert len(tries) == 3
    assert manager.served("scaled") == [1]
    manager.close()
    tries.clear()
    with pytest.raises(ModelError, match="slow today"):
        ModelManager([config], load, Watching(0, max_load_retries=1, retry_seconds=0))
    assert len(tries) == 2


def test_the_steps_of_a_new_version_give_way_and_those_of_the_first_do_not(templates, tmp_path):
    found = {}

    def load(name, path, steps):
        found[int(path.name)] = steps.run(threading.get_native_id) == threading.get_native_id()
        return FakeModel()

    shutil.copytree(templates[1], tmp_path / "1")
    manager = ModelManager([ModelConfig("scaled", tmp_path)], load, Watching(0, 0, 0))
    shutil.copytree(templates[1], tmp_path / "2")
    manager.rescan()
    assert found == {1: True, 2: False}
    assert manager.served("scaled") == [2]
    manager.close()


def managed(templates, base, load):
    """A manager of version 1, with version 2 to find."""
    shutil.copytree(templates[1], base / "1")
    manager = ModelManager([ModelConfig("scaled", base)], load, Watching(0, 0, 0))
    shutil.copytree(templates[1], base / "2")
    return manager


def test_whatever_a_load_raises_ends_the_version_and_nothing_else(templates, tmp_path):
    tries = []

    def load(name, path, steps):
        tries.append(int(path.name))
        if tries[-1] == 2:
            raise PermissionError("a folder nobody may read")
        return FakeModel()

    manager = managed(templates, tmp_path, load)
    for _ in range(3):
        manager.rescan()
    assert tries == [1, 2], "it is not tried at every look"
    status = manager.statuses(wire.ModelSpec(name="scaled", version={"value": 2}))[0]
    assert (status.state, status.code) == (END, 13) and "nobody may read" in status.message
    assert manager.served("scaled") == [1]
    manager.close()


@contextlib.contextmanager
def loading(manager, begun):
    """Looks for versions on another thread, from the moment that a load has begun."""
    thread = threading.Thread(target=manager.rescan, daemon=True)
    thread.start()
    assert begun.wait(60)
    yield
    thread.join(60)
    assert not thread.is_alive()


def test_a_server_that_stops_waits_for_no_load(templates, tmp_path):
    begun = threading.Event()

    def load(name, path, steps):
        while path.name == "2":
            begun.set()
            steps.pause()
        return FakeModel()

    manager = managed(templates, tmp_path, load)
    with loading(manager, begun):
        manager.halt()
    assert manager.served("scaled") == [1]
    manager.close()
    begun.clear()
    shutil.copytree(templates[1], tmp_path / "3")
    manager.rescan()
    assert not begun.is_set() and manager.served("scaled") == []
    with pytest.raises(ModelError, match="about to stop") as refused:
        manager.reload([ModelConfig("scaled", tmp_path)])
    assert refused.value.code == 14


def test_a_change_of_the_list_waits_for_a_load_no_longer_than_its_caller(templates, tmp_path):
    begun, goes_on = threading.Event(), threading.Event()

    def load(name, path, steps):
        if path.name == "2":
            begun.set()
            assert goes_on.wait(60)
        return FakeModel()

    manager = managed(templates, tmp_path, load)
    configs = [ModelConfig("renamed", tmp_path)]
    with loading(manager, begun):
        for seconds in (-1.0, 0.0, 0.05):
            with pytest.raises(ModelError, match="try again") as refused:
                manager.reload(configs, seconds)
            assert refused.value.code == 14
        assert manager.names() == ["scaled"]
        goes_on.set()
        manager.reload(configs)
    assert manager.names() == ["renamed"]
    manager.close()


def test_at_start_up_the_newest_good_version_serves_and_the_bad_one_is_reported(
    templates, tmp_path
):
    base = tmp_path / "scaled"
    publish(templates[1], base, 1)
    publish(templates[2], base, 2)
    publish_corrupt(base, 3)
    with FeedbackServer(base, "scaled", settings=QUICK) as server, connected(server) as caller:
        assert caller.version() == 2
        states = caller.states()
        assert states[2] == (AVAILABLE, 0)
        assert states[3][0] == END
        assert states[3][1] != 0
        assert 1 not in states, "one good version is enough"


def test_at_start_up_without_a_good_version_the_server_says_why(tmp_path):
    publish_corrupt(tmp_path, 3)
    with pytest.raises(ModelError, match="/3 cannot be loaded"):
        FeedbackServer(tmp_path, "scaled", settings=QUICK)


def test_a_deleted_version_is_unloaded_and_the_next_older_one_serves(templates, tmp_path):
    base = tmp_path / "scaled"
    publish(templates[1], base, 1)
    publish(templates[2], base, 2)
    with FeedbackServer(base, "scaled", settings=QUICK) as server, connected(server) as caller:
        assert caller.version() == 2
        shutil.rmtree(base / "2")
        wait_until(lambda: caller.version() == 1, "version 1 serves")
        wait_until(lambda: caller.states()[2] == (END, 0), "version 2 is unloaded")


def test_a_vanished_base_path_keeps_serving_and_is_logged_once(templates, tmp_path, caplog):
    base = tmp_path / "scaled"
    publish(templates[1], base, 1)
    with FeedbackServer(base, "scaled", settings=PATIENT) as server, connected(server) as caller:
        base.rename(tmp_path / "elsewhere")
        for _ in range(3):
            server.manager.rescan()
        assert caller.scores([7]) == [7.0]
        assert log_lines(caplog, f"No folder {base}") == 1
        (tmp_path / "elsewhere").rename(base)
        publish(templates[2], base, 2)
        server.manager.rescan()
        assert caller.version() == 2


def test_the_last_version_keeps_serving_when_its_folder_is_emptied(templates, tmp_path, caplog):
    base = tmp_path / "scaled"
    publish(templates[1], base, 1)
    with FeedbackServer(base, "scaled", settings=PATIENT) as server, connected(server) as caller:
        shutil.rmtree(base / "1")
        server.manager.rescan()
        assert caller.version() == 1
        assert log_lines(caplog, f"No version in {base}") == 1


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        (VersionPolicy(), [3]),
        (VersionPolicy(latest=2), [2, 3]),
        (VersionPolicy.all(), [1, 2, 3]),
        (VersionPolicy.specific(1, 3), [1, 3]),
    ],
)
def test_a_policy_says_which_versions_are_served(templates, tmp_path, policy, served):
    base = tmp_path / "scaled"
    for version in (1, 2, 3):
        publish(templates[1], base, version)
    config = ModelConfig("scaled", base, policy)
    with EmbeddedServer([config], settings=PATIENT) as server, connected(server) as caller:
        assert server.manager.served("scaled") == served
        assert caller.version() == max(served)
        assert [caller.version(version={"value": v}) for v in served] == served
        for version in {1, 2, 3} - set(served):
            request = rank_request([1], version={"value": version})
            code, details = refusal(caller, server_wire.wire.PREDICT, request)
            assert (code, f"version {version}" in details) == ("NOT_FOUND", True)


def test_labels_name_versions_and_unknown_ones_are_invalid(templates, tmp_path):
    base = tmp_path / "scaled"
    publish(templates[1], base, 1)
    publish(templates[2], base, 2)
    labels = {"stable": 1, "canary": 2, "next": 3}
    config = ModelConfig("scaled", base, VersionPolicy.all(), labels)
    with EmbeddedServer([config], settings=PATIENT) as server, connected(server) as caller:
        assert caller.version(version_label="stable") == 1
        assert caller.scores([6], version_label="canary") == [12.0]
        unknown = rank_request([1], version_label="beta")
        code, details = refusal(caller, server_wire.wire.PREDICT, unknown)
        assert (code, details) == (
            "INVALID_ARGUMENT",
            "Unrecognized servable version label: beta",
        )
        not_loaded = rank_request([1], version_label="next")
        assert refusal(caller, server_wire.wire.PREDICT, not_loaded)[0] == "NOT_FOUND"
        request = server_wire.wire.GetModelStatusRequest(
            model_spec={"name": "scaled", "version_label": "stable"}
        )
        status = caller(server_wire.wire.GET_MODEL_STATUS, request).model_version_status
        assert [s.version for s in status] == [1]


def test_status_of_an_unknown_model_or_version_is_not_found(templates, tmp_path):
    base = tmp_path / "scaled"
    publish(templates[1], base, 1)
    method = server_wire.wire.GET_MODEL_STATUS
    with FeedbackServer(base, "scaled", settings=PATIENT) as server, connected(server) as caller:
        for spec in ({"name": "other"}, {"name": "scaled", "version": {"value": 9}}):
            assert refusal(caller, method, method.request(model_spec=spec))[0] == "NOT_FOUND"
        assert refusal(caller, method, method.request())[0] == "INVALID_ARGUMENT"


def test_a_number_that_no_request_can_hold_is_passed_over(templates, tmp_path):
    publish(templates[1], tmp_path, 2**63)
    with pytest.raises(ModelError, match="expected folders named by integers"):
        FeedbackServer(tmp_path, "scaled", settings=PATIENT)
    publish(templates[2], tmp_path, 2**63 - 1)
    with FeedbackServer(tmp_path, "scaled", settings=PATIENT) as server, connected(server) as call:
        assert call.version() == 2**63 - 1
        assert call.states() == {2**63 - 1: (AVAILABLE, 0)}


@pytest.mark.parametrize("part", ["variables/variables.index", "assets.extra/warm_up"])
def test_a_failed_version_is_tried_again_once_any_of_its_files_changes(tmp_path, part):
    tries = []

    def load(name, path, steps):
        tries.append(int(path.name))
        if (path / part).read_text() != "whole" and path.name == "2":
            raise ModelError("half a file")
        return FakeModel()

    for version in ("1", "2"):
        file = tmp_path / version / part
        file.parent.mkdir(parents=True)
        (tmp_path / version / "saved_model.pb").touch()
        file.write_text("half")
    manager = ModelManager([ModelConfig("scaled", tmp_path)], load, Watching(0, 0, 0))
    manager.rescan()
    assert (tries, manager.served("scaled")) == ([2, 1], [1])
    file.write_text("whole")
    manager.rescan()
    assert (tries, manager.served("scaled")) == ([2, 1, 2], [2])
    manager.close()


def test_a_label_that_moves_on_while_it_is_looked_up_is_looked_up_again(templates, tmp_path):
    def config(label):
        policy = VersionPolicy.specific(label)
        return ModelConfig("scaled", tmp_path, policy, {"stable": label})

    for version in ("1", "2"):
        shutil.copytree(templates[1], tmp_path / version)
    manager = ModelManager([config(1)], lambda *_: FakeModel(), Watching(0, 0, 0))
    find, moved = manager._find, []

    def slow(spec):
        found = find(spec)
        if not moved:
            moved.append(manager.reload([config(2)]))
        return found

    manager._find = slow
    spec = wire.ModelSpec(name="scaled", version_label="stable")
    with manager.lease(spec) as model:
        assert isinstance(model, FakeModel)
    assert moved and manager.served("scaled") == [2]
    with pytest.raises(Rejected, match="version 1 of 'scaled'; this server has versions .2."):
        with manager.lease(wire.ModelSpec(name="scaled", version={"value": 1})):
            pass
    manager.close()
