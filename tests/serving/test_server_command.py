"""The command of the embedded server: its options, its signals, and what it says."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import tensorflow as tf

from serving import server_wire, wire
from serving.server import _reload
from serving.warmup import MAX_RECORDS, WARMUP_FILE
from tests.serving.calling import connected, refusal, wait_until
from tests.serving.scaled_model import publish, publish_corrupt, rank_request


@contextlib.contextmanager
def command(*options):
    """Runs the server; yields its process, what it printed, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "serving.server", "--port", "0", *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        ready = json.loads(process.stdout.readline())
        yield SimpleNamespace(process=process, ready=ready, target=ready["target"])
    finally:
        process.kill()
        process.communicate()


def config(base, **labels):
    written = "".join(
        f'version_labels {{ key: "{key}" value: {value} }}' for key, value in labels.items()
    )
    return f"""model_config_list {{ config {{
        name: "scaled" base_path: "{base}" model_version_policy {{ all {{}} }} {written} }} }}"""


def test_sighup_reads_the_config_file_again_and_a_wrong_one_changes_nothing(templates, tmp_path):
    base, path = tmp_path / "scaled", tmp_path / "models.config"
    publish(templates[1], base, 1)
    publish(templates[2], base, 2)
    path.write_text(config(base, stable=1))
    options = ("--model-config-file", path, "--poll-seconds", 0, "--load-retry-seconds", 0)
    with command(*options) as server, connected(server) as caller:
        assert server.ready["models"] == {"scaled": [1, 2]}

        def label_answers(label, version):
            try:
                return caller.version(version_label=label) == version
            except Exception:
                return False

        assert label_answers("stable", 1)
        path.write_text(config(base, stable=2, canary=1))
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: label_answers("canary", 1) and label_answers("stable", 2), "it is read")
        for wrong in ("model_config_list {", config(base, stable=7), config(tmp_path / "none")):
            path.write_text(wrong)
            server.process.send_signal(signal.SIGHUP)
        path.write_text(config(base, last=2))  # after the wrong ones a right one still works
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: label_answers("last", 2), "it is read")
        gone = refusal(caller, wire.PREDICT, rank_request([1], version_label="stable"))
        assert gone[0] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("reached", [min, max], ids=["main-thread", "another-thread"])
def test_sighup_looks_for_versions(templates, tmp_path, reached):
    base = tmp_path / "scaled"
    publish(templates[1], base, 1)
    options = ("--model-base-path", base, "--model-name", "scaled", "--poll-seconds", 0)
    with command(*options) as server, connected(server) as caller:
        publish(templates[2], base, 2)
        assert caller.version() == 1
        # Linux takes the number of a thread, too, and hands it the signal.
        os.kill(reached(map(int, os.listdir(f"/proc/{server.process.pid}/task"))), signal.SIGHUP)
        wait_until(lambda: caller.version() == 2, "version 2 serves")


def test_sigterm_is_heard_while_a_version_loads(templates, tmp_path):
    base = tmp_path / "scaled"
    publish(templates[1], base, 1)
    slow = publish(templates[2], tmp_path, 2)
    (slow / WARMUP_FILE).parent.mkdir()
    log = server_wire.PredictionLog()
    log.predict_log.request.CopyFrom(rank_request([1], "slow_rank", rounds=20_000))
    with tf.io.TFRecordWriter(str(slow / WARMUP_FILE)) as writer:
        for _ in range(MAX_RECORDS):
            writer.write(log.SerializeToString())
    options = ("--model-base-path", base, "--model-name", "scaled", "--poll-seconds", 0)
    with command(*options) as server, connected(server) as caller:
        slow.rename(base / "2")
        server.process.send_signal(signal.SIGHUP)
        loading = (server_wire.LOADING, 0)
        wait_until(lambda: caller.states().get(2) == loading, "version 2 loads")
        server.process.send_signal(signal.SIGHUP)  # one more is to come
        server.process.send_signal(signal.SIGTERM)
        said = server.process.communicate(timeout=120)[1]
        assert server.process.returncode == 0
    assert "Stopping" in said and "version 2 is not served" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_has_not_started_stops_at_once(tmp_path, number):
    publish_corrupt(tmp_path, 1)
    waits = ("--max-load-retries", 9, "--load-retry-seconds", 600)
    options = ("--model-base-path", tmp_path, "--model-name", "scaled", *waits)
    program = (
        "import typer, serving.embedded as embedded\n"
        "from serving.server import main\n"
        "look = embedded.check_complete\n"
        "embedded.check_complete = lambda path: (print('loading', flush=True), look(path))\n"
        "typer.run(main)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "loading\n"
        process.send_signal(number)
        said = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    assert process.returncode == 0
    assert "Traceback" not in said


def test_a_reload_that_fails_in_a_way_nobody_foresaw_is_logged(tmp_path, caplog):
    class Manager:
        def reload(self, configs):
            raise PermissionError("a folder nobody may read")

    path = tmp_path / "models.config"
    path.write_text(config(tmp_path))
    _reload(SimpleNamespace(manager=Manager()), path)
    assert "The list of models stays as it was" in caplog.text
    assert "nobody may read" in caplog.text


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "pass --model-base-path and --model-name, or --model-config-file"),
        (["--model-base-path", "x"], "pass --model-base-path and --model-name"),
        (
            ["--model-config-file", "x", "--model-name", "y"],
            "--model-config-file names the models: pass it alone",
        ),
        (
            ["--model-base-path", "x", "--model-name", "y", "--tls-key", "z"],
            "--tls-key and --tls-cert go together",
        ),
        (["--model-config-file", "none.config"], "none.config is no readable list of models"),
    ],
)
def test_options_that_do_not_go_together_are_explained(options, expected):
    done = subprocess.run(
        [sys.executable, "-m", "serving.server", *options], capture_output=True, text=True
    )
    said = re.sub(r"[\s│]+", " ", done.stderr)
    assert done.returncode != 0
    assert expected in said
    assert "Traceback" not in done.stderr


def test_the_help_names_every_option_by_what_it_is_about():
    done = subprocess.run(
        [sys.executable, "-m", "serving.server", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    for words in (
        *("Models", "Limits", "Loading", "TLS", "Metrics, health and request log"),
        *("--model-config-file", "--max-concurrent-calls", "--tls-client-ca", "--http-port"),
        *("--request-log-rate", "--drain-seconds"),
    ):
        assert words in done.stdout


def test_garbage_is_not_looked_for_among_what_was_imported():
    program = (
        "import gc, pathlib, typer\n"
        "from serving.server import Settings, serve\n"
        "try: serve([], pathlib.Path('none'), ('127.0.0.1', 0), Settings(), 0)\n"
        "except typer.Exit: print(gc.get_freeze_count())\n"
    )
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert int(found.stdout) > 100_000
