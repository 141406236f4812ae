import json
import subprocess
import sys

import pytest

from serving.client_command import main
from tests.serving.fake_server import FakeServer
from tests.serving.tiny_model import CTR, REQUEST, record


@pytest.fixture
def fake():
    with FakeServer(labels={"canary": 9}, bias={9: 100.0}) as server:
        yield server


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "request.json"
    path.write_text(json.dumps(REQUEST))
    return path


def run(path, target, *options, model="tiny"):
    return main(["--target", target, "--model", model, "--request", str(path), *options])


def test_a_person_sees_the_candidates_ranked(fake, path, capsys):
    assert run(path, fake.target, "--top-k", "2") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "Request 0: 2 of 3 candidates, best first".split()
    assert lines[1] == ["rank", "candidate", "ctr", "dislike"]
    assert lines[2:4] == [["1", "12", "56.0000", "0.0000"], ["2", "10", "55.0000", "0.5000"]]
    assert lines[4:] == [[]]


def test_a_program_reads_json(fake, path, capsys):
    assert run(path, fake.target, "--json", "--label", "canary") == 0
    (line,) = capsys.readouterr().out.splitlines()
    ranked = json.loads(line)["ranking"]
    assert [row["candidate"] for row in ranked] == [12, 10, 3]
    assert [row["ctr"] for row in ranked] == [100 + CTR[1], 100 + CTR[0], 100 + CTR[2]]


def test_records_are_scored_by_the_real_model(server, tmp_path, capsys):
    import tensorflow as tf

    path = tmp_path / "golden.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(record(3, [2, 4], [0.5, 0.25]))
    assert run(path, server.target, "--version", "7", "--json") == 0
    ranked = json.loads(capsys.readouterr().out)["ranking"]
    assert [(row["candidate"], row["ctr"]) for row in ranked] == [(4, 5.0), (2, 4.0)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "line 1, column 2: not valid JSON"),
        ("[]", "holds no requests"),
        ("[" * 100_000, "not readable as JSON"),
        ('{"context": {}, "candidates": []}', "missing ['city', 'hour']"),
        ('{"context": {"hour": 1, "city": "\\u001b[2J"}, "candidates": {"item_id": 4}}', "missing"),
    ],
)
def test_a_wrong_request_is_named_and_exits_with_2(fake, path, capsys, content, expected):
    path.write_text(content)
    assert run(path, fake.target) == 2
    out, errors = capsys.readouterr()
    assert out == ""
    assert errors.startswith("Error: ") and expected in errors
    assert "Traceback" not in errors and "\x1b" not in errors


def test_a_missing_file_and_half_an_identity_exit_with_2(fake, tmp_path, path, capsys):
    assert run(tmp_path / "none.json", fake.target) == 2
    assert "No file" in capsys.readouterr().err
    assert run(path, fake.target, "--client-key", str(path)) == 2
    assert "needs both client_certificate and client_key" in capsys.readouterr().err


def test_a_server_that_fails_exits_with_1_and_says_what_to_do(fake, path, capsys):
    assert run(path, fake.target, model="other") == 1
    assert "NOT_FOUND" in capsys.readouterr().err
    assert run(path, "127.0.0.1:1", "--attempts", "1") == 1
    assert "Check that a server runs at 127.0.0.1:1" in capsys.readouterr().err


def test_labels_cannot_command_the_terminal(fake, path, capsys, monkeypatch):
    monkeypatch.setattr(
        "serving.client_command.ranking",
        lambda *_: [{"rank": 1, "candidate": "\x1b]0;pwned\x07\n", "ctr": 0.5}],
    )
    assert run(path, fake.target) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\\x1b]0;pwned\\x07\\n" in out


@pytest.mark.parametrize("options", [[], ["--top-k", "0"], ["--label", "a", "--version", "1"]])
def test_wrong_options_exit_with_2(path, capsys, options):
    with pytest.raises(SystemExit) as stop:
        main(["--target", "a:1", "--request", str(path), *options])
    assert stop.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_the_module_runs_from_the_shell(fake, path):
    command = [sys.executable, "-m", "serving.client", "--target", fake.target, "--model", "tiny"]
    done = subprocess.run(
        [*command, "--request", str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "56.0000" in done.stdout


def test_a_reader_that_has_seen_enough_is_no_failure(fake, tmp_path):
    path = tmp_path / "requests.json"
    path.write_text(json.dumps([REQUEST] * 2000))  # more than a pipe holds
    command = f"{sys.executable} -m serving.client --target {fake.target} --model tiny"
    shell = f"set -o pipefail; {command} --request {path} | head -n 2"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Request 0: 3 of 3 candidates")
