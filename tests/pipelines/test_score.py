import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import typer
from rich.console import Console
from typer.testing import CliRunner

from pipelines.score import main, ranking_table
from serving.client_requests import candidate_labels, load_requests, ranking
from serving.server import FeedbackServer
from tests.serving.tiny_model import REQUEST, SCHEMA, export_tiny_model, record
from tfrec_feedback.requests import RequestError

SCORES = {"ctr": np.array([0.25, 0.75, 0.5]), "dislike": np.array([0.125, 0.0, 1.0])}


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    base = tmp_path_factory.mktemp("models")
    export_tiny_model(base / "1")
    with FeedbackServer(base, "tiny") as server:
        yield server.target


@pytest.fixture
def requests_json(tmp_path) -> Path:
    path = tmp_path / "requests.json"
    path.write_text(json.dumps(REQUEST))
    return path


def run(*options, model="tiny"):
    app = typer.Typer()
    app.command()(main)
    return CliRunner().invoke(app, ["--model", model, *map(str, options)])


def cells(output: str) -> list[list[str]]:
    """The rows of the printed tables, without the frame."""
    rows = [re.split(r"\s*[│┃]\s*", line.strip(" │┃")) for line in output.splitlines()]
    return [row for row in rows if len(row) > 1]


def test_candidates_are_ranked_by_click_score():
    assert ranking([10, 11, 12], SCORES, top=2) == [
        {"rank": 1, "candidate": 11, "ctr": 0.75, "dislike": 0.0},
        {"rank": 2, "candidate": 12, "ctr": 0.5, "dislike": 1.0},
    ]


def test_ties_keep_the_order_of_the_candidates():
    rows = ranking(["a", "b", "c"], {"ctr": np.array([0.5, 0.75, 0.5])})
    assert [row["candidate"] for row in rows] == ["b", "a", "c"]


def test_without_a_click_score_the_first_task_ranks():
    rows = ranking([10, 11], {"like": np.array([0.25, 0.5])})
    assert [row["candidate"] for row in rows] == [11, 10]


def test_candidates_are_called_by_item_id_or_first_feature():
    assert candidate_labels({"price": [1.0], "item_id": [7]}) == [7]
    assert candidate_labels({"video": [8], "price": [1.0]}) == [8]
    assert candidate_labels([{"price": 1.0, "item_id": 7}, {"video": 8}]) == [7, 8]
    assert candidate_labels(["a"]) == ["a"]


def test_the_table_prints_labels_as_they_are():
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(ranking_table(["[red]x[/red]", b"y", "z"], SCORES, title="Request 0"))
    text = console.export_text()
    assert "Request 0" in text
    assert cells(text) == [
        ["rank", "candidate", "ctr", "dislike"],
        ["1", "y", "0.7500", "0.0000"],
        ["2", "z", "0.5000", "1.0000"],
        ["3", "[red]x[/red]", "0.2500", "0.1250"],
    ]


def test_no_candidates_give_a_table_of_no_rows():
    assert ranking_table([], {"ctr": np.zeros(0)}).row_count == 0


def test_the_command_prints_the_ranking(target, requests_json):
    result = run("--target", target, "--requests", requests_json, "--top", 2)
    assert result.exit_code == 0, result.stderr
    assert cells(result.stdout)[1:] == [
        ["1", "12", "56.0000", "0.0000"],
        ["2", "10", "55.0000", "1.5000"],
    ]


def test_lists_and_lines_of_requests_print_one_ranking_each(target, tmp_path):
    listed, lines = tmp_path / "r.json", tmp_path / "r.jsonl"
    listed.write_text(json.dumps([REQUEST, REQUEST]))
    lines.write_text(f"{json.dumps(REQUEST)}\n\n{json.dumps(REQUEST)}\n")
    for path in (listed, lines):
        result = run("--target", target, "--requests", path, "--json", "--top", 1)
        best = {"rank": 1, "candidate": 12, "ctr": 56.0, "dislike": 0.0}
        assert [json.loads(line) for line in result.stdout.splitlines()] == [
            {"request": 0, "ranking": [best]},
            {"request": 1, "ranking": [best]},
        ]


def test_a_schema_file_is_used(target, requests_json, tmp_path):
    SCHEMA.to_json(tmp_path / "schema.json")
    options = ["--target", target, "--requests", requests_json, "--schema"]
    assert run(*options, tmp_path / "schema.json").exit_code == 0
    result = run(*options, tmp_path / "none.json")
    assert result.exit_code == 2
    assert "No schema at" in result.stderr


def test_records_are_scored_through_rank_examples(target, tmp_path):
    path = tmp_path / "r.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(record(3, [2, 4], [0.5, 0.25]))
        writer.write(record(5, [8], [1.0]))
    result = run("--target", target, "--requests", path, "--json")
    assert [json.loads(line)["ranking"] for line in result.stdout.splitlines()] == [
        [
            {"rank": 1, "candidate": 4, "ctr": 5.0, "dislike": 0.25},
            {"rank": 2, "candidate": 2, "ctr": 4.0, "dislike": 0.5},
        ],
        [{"rank": 1, "candidate": 8, "ctr": 9.0, "dislike": 1.0}],
    ]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("r.json", '{"context": {},\n "candidates": }', "line 2, column 16: not valid JSON"),
        ("r.jsonl", '{}\n{"a": 1}\n{"b"}\n', "line 3, column 5: not valid JSON"),
        ("r.json", "[]", "holds no requests"),
        ("r.jsonl", "\n", "holds no requests"),
        ("r.json", b"\xff", "not UTF-8"),
    ],
)
def test_files_that_hold_no_requests_are_refused_with_the_line(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RequestError, match=expected):
        load_requests(path)


@pytest.mark.parametrize("name", ["none.json", "none.tfrecord"])
def test_a_missing_file_is_exit_code_2(target, tmp_path, name):
    result = run("--target", target, "--requests", tmp_path / name)
    assert result.exit_code == 2
    assert "No file" in result.stderr


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("r.json", b'{"candidates": {"item_id": [1]}}', "context is missing"),
        ("r.json", b"[3]", "request 0: expected a mapping"),
        ("r.tfrecord", b"no records at all", "claims more bytes"),
        ("r.tfrecord", b"", "holds no requests"),
    ],
)
def test_requests_that_do_not_fit_are_exit_code_2(target, tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_bytes(content)
    result = run("--target", target, "--requests", path)
    assert result.exit_code == 2
    assert expected in result.stderr.replace("\n", " ")


def test_an_unknown_model_is_exit_code_1(target, requests_json):
    result = run("--target", target, "--requests", requests_json, model="other")
    assert result.exit_code == 1
    assert "NOT_FOUND" in result.stderr


def test_a_server_that_is_not_there_is_an_error_without_traceback(requests_json):
    command = [sys.executable, "-m", "pipelines.score", "--target", "127.0.0.1:1"]
    command += ["--model", "tiny", "--timeout", "0.2", "--requests", str(requests_json)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "UNAVAILABLE" in done.stderr
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr
