import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tfrec_feedback.data.events import EventLogError
from tfrec_feedback.data.grouping import RequestTable
from tfrec_feedback.data.protobuf import encode_example
from tfrec_feedback.data.shards import can_fork, plan_shards, write_shards, write_truth
from tfrec_feedback.data.tfrecord import read_records

ROOT = Path(__file__).parents[2]


class Encoder:
    """Stands in for a RecordEncoder: request r is the record of r; request 13 cannot be encoded."""

    def encode(self, requests):
        for request in requests.tolist():
            if request == 13:
                raise ValueError("request 13")
            yield encode_example({"r": ("int64", [request])})


def table(*splits):
    split = np.repeat(np.arange(3), splits).astype(np.int8)
    rows = np.arange(len(split))
    ids = rows.astype(str).astype(object)
    return RequestTable(rows, np.arange(len(split) + 1), rows, rows, split, ids, rows)


def test_shards_come_back_in_the_order_of_the_tasks(tmp_path):
    tasks, done = plan_shards(table(6, 3, 2), seed=0, shards=2), []
    written = write_shards(tmp_path, tasks, Encoder(), 1, done.append)
    assert [shard.file for shard in written] == [task.file for task in tasks]
    assert [shard.records for shard in written] == [3, 3, 2, 1, 1, 1]
    assert len(done) == 6
    assert done[-1] == 11
    for task in tasks:
        expected = list(Encoder().encode(task.requests))
        assert [record for _, record in read_records(tmp_path / task.file)] == expected


def write_with_a_failure(folder, workers):
    write_shards(folder, plan_shards(table(20, 0, 0), seed=0, shards=4), Encoder(), workers)


def test_a_failing_shard_stops_the_writing(tmp_path):
    with pytest.raises(ValueError, match="request 13"):
        write_with_a_failure(tmp_path, workers=1)


def test_a_failing_worker_stops_the_writing(tmp_path):
    # In a process of its own, which can be forked whatever else the tests have loaded.
    code = (
        "import pathlib, sys; from tests.data.test_shards import can_fork, write_with_a_failure; "
        "can_fork() or sys.exit('cannot fork'); "
        f"write_with_a_failure(pathlib.Path({str(tmp_path)!r}), workers=2)"
    )
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert run.returncode == 1
    assert "ValueError: request 13" in run.stderr


def test_a_shard_holds_at_most_25000_requests_and_none_is_empty():
    tasks = plan_shards(table(25_001, 25_000, 0), seed=0, shards=None)
    assert [task.split for task in tasks] == ["train", "train", "validation"]
    assert [len(t.requests) for t in plan_shards(table(2, 1, 0), seed=0, shards=5)] == [1, 1, 1]


def test_a_process_with_tensorflow_does_not_fork(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", sys)
    assert not can_fork()


def test_a_truth_of_another_length_than_the_log_is_refused(tmp_path):
    events, truth = pd.DataFrame({"item_id": [1, 2]}), pd.DataFrame({"click_probability": [0.5]})
    with pytest.raises(EventLogError, match="one row an event"):
        write_truth(tmp_path, events, truth)
