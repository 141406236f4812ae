import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from serving.loadtest import is_loopback, main
from serving.loadtest_load import Load
from serving.loadtest_swap import SwapError, publish_copy, rehearse
from serving.loadtest_tune import (
    TuneError,
    Tuning,
    _knobs,
    _server_flags,
    embedded_server,
    tune,
)
from serving.records import golden_file
from tests.serving.fake_server import FakeServer
from tests.serving.tiny_model import REQUEST, record


@pytest.fixture
def requests_json(tmp_path):
    path = tmp_path / "requests.json"
    path.write_text(json.dumps([REQUEST, REQUEST | {"histories": {}}]))
    return path


@pytest.fixture
def versions(tmp_path):
    """A folder of versions whose only one, 3, holds a file in a folder."""
    folder = tmp_path / "models" / "3" / "assets"
    folder.mkdir(parents=True)
    (folder / "tokens.txt").write_text("a\n")
    return folder.parents[1]


def run(*options):
    return main([str(option) for option in ("--model", "tiny", *options)])


def test_the_open_loop_is_reported_in_every_form(requests_json, tmp_path, capsys):
    with FakeServer() as server:
        code = run(
            "--target", server.target, "--requests", requests_json, "--seconds", 0.5,
            "--rate", 20, 40, "--candidates", 1, 5,
            "--json", tmp_path / "r.json", "--html", tmp_path / "r.html",
        )  # fmt: skip
        sizes = {r.inputs["item_id"].tensor_shape.dim[1].size for r in server.requests}
    assert code == 0
    assert sizes == {1, 5}
    report = json.loads((tmp_path / "r.json").read_text())
    settings = [run["settings"] for run in report["runs"]]
    assert settings == [{"rate": r, "candidates": c} for c in (1, 5) for r in (20.0, 40.0)]
    for one in report["runs"]:
        assert one["failed"] == 0 < one["calls"]
        ms = one["latency_ms"]
        assert 0 < ms["p50"] <= ms["p90"] <= ms["p99"] <= ms["max"]
    out = capsys.readouterr().out
    assert "rate 20, candidates 5" in out and "p99 ms" in out
    html = (tmp_path / "r.html").read_text()
    assert html.count("<polyline") == 4
    assert "<script" not in html and not re.search(r"(?:src|href)\s*=|url\(", html)


def test_the_closed_loop_sweeps_concurrency_over_records_of_the_real_model(server, tmp_path):
    import tensorflow as tf

    path = tmp_path / "golden.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(record(3, [2, 4], [0.5, 0.25]))
    code = run(
        "--target", server.target, "--requests", path, "--seconds", 0.3, "--closed",
        "--concurrency", 1, 3, "--json", tmp_path / "r.json",
    )  # fmt: skip
    assert code == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert [run["settings"]["concurrency"] for run in report["runs"]] == [1, 3]
    assert all(run["failed"] == 0 < run["calls"] for run in report["runs"])
    assert report["runs"][0]["versions"] == [7]


def test_the_golden_requests_of_the_newest_version_are_sent(server, tmp_path, capsys):
    import tensorflow as tf

    for version, items in ((9, [1]), (10, [2, 4])):
        path = golden_of(tmp_path / str(version))
        path.parent.mkdir(parents=True)
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(record(3, items, [0.5] * len(items)))
    assert golden_file(tmp_path) == golden_of(tmp_path / "10")
    assert golden_file(tmp_path / "9") == golden_of(tmp_path / "9")
    (tmp_path / ".tmp-11").mkdir()
    options = ["--target", server.target, "--seconds", 0.3, "--rate", 30]
    assert run(*options, "--requests", tmp_path) == 0
    assert "1 requests." in capsys.readouterr().out
    (tmp_path / "11").mkdir()
    assert run(*options, "--requests", tmp_path) == 2
    assert f"{tmp_path / '11'} holds no assets.extra/golden_requests" in capsys.readouterr().err
    golden_of(tmp_path / "9").write_bytes((8).to_bytes(8, "little") + b"0123" + b"x" * 8 + b"0123")
    assert run(*options, "--requests", tmp_path / "9") == 2
    assert "record 0: expected one integer 'num_candidates'" in capsys.readouterr().err


def golden_of(version):
    return version / "assets.extra" / "golden_requests.tfrecord"


@pytest.mark.parametrize(
    ("target", "loopback"),
    [
        ("localhost:8500", True),
        ("127.0.0.1:8500", True),
        ("127.9.8.7:1", True),
        ("[::1]:8500", True),
        ("unix:/tmp/socket", True),
        ("10.0.0.1:8500", False),
        ("0.0.0.0:8500", False),
        ("localhost.example.com:8500", False),
        ("127.0.0.1.example.com:8500", False),
        ("dns:///ranker:8500", False),
        ("ranker", False),
        ("localhost", False),
    ],
)
def test_only_certain_loopback_addresses_are_loaded(target, loopback, requests_json, capsys):
    assert is_loopback(target) == loopback
    if not loopback:
        with pytest.raises(SystemExit) as stop:
            run("--target", target, "--requests", requests_json)
        assert stop.value.code == 2
        assert "--allow-remote" in capsys.readouterr().err


def test_a_remote_address_is_tried_when_it_is_allowed(requests_json, capsys):
    options = ["--allow-remote", "--timeout", 0.2, "--requests", requests_json]
    # 0.0.0.0 counts as remote; nobody listens on port 1.
    assert run("--target", "0.0.0.0:1", *options) == 1
    assert "UNAVAILABLE" in capsys.readouterr().err


def test_wrong_options_and_requests_exit_with_2(requests_json, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        run("--requests", requests_json)
    with FakeServer() as server:
        base = ["--target", server.target, "--seconds", 0.2]
        assert run(*base, "--requests", tmp_path / "none.json") == 2
        assert "No file" in capsys.readouterr().err
        assert run(*base, "--requests", requests_json, "--candidates", 0) == 2
        assert run(*base, "--requests", requests_json, "--rate", *range(1, 60)) == 2
        assert "are too many" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--closed", "--rate", 5], "--rate: of no use for --closed"),
        (["--concurrency", 3, "--p99-ms", 5], "--concurrency, --p99-ms: of no use for an open"),
        (["--flags", "flags.txt"], "--flags: of no use for an open loop"),
        (["--rehearse-swap", "x", "--closed"], "--rehearse-swap and --closed do not go together"),
        (["--rehearse-swap", "x", "--candidates", 10], "--candidates: of no use for --rehearse"),
        (["--rehearse-swap", "x", "--rate", 5, 6], "--rehearse-swap takes one --rate"),
        (["--json", "none/report.json"], "there is no folder none"),
    ],
)
def test_options_that_a_load_has_no_use_for_are_refused(options, says, capsys):
    with pytest.raises(SystemExit) as stop:
        run("--target", "localhost:1", "--requests", "x", *options)
    assert stop.value.code == 2
    assert says in capsys.readouterr().err


def test_options_that_tuning_has_no_use_for_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run("--tune", tmp_path, "--seed", 3, "--timeout", 1)
    assert "--seed, --timeout: of no use for --tune" in capsys.readouterr().err


def test_a_load_without_a_call_says_so(requests_json, capsys):
    with FakeServer() as server:
        options = ["--target", server.target, "--requests", requests_json]
        assert run(*options, "--rate", 0.001, "--seconds", 0.2) == 2
    assert "raise --rate or --seconds" in capsys.readouterr().err


def swap(server, folder, seconds=2.4, rate=40.0):
    load = Load(server.target, "tiny", [REQUEST, REQUEST | {"histories": {}}], seconds)
    return rehearse(load, rate, folder, threads=8)


def test_a_swap_is_rehearsed_and_answers_of_either_version_are_right(versions):
    with FakeServer(base=versions, swap_delay=0.4, bias={4: 1.0}) as server:
        found = swap(server, versions / "3")
    assert (versions / "4" / "assets" / "tokens.txt").read_text() == "a\n"
    assert (found["failed"], found["wrong"]) == (0, 0)
    assert (found["swap"]["from"], found["swap"]["to"]) == (3, 4)
    assert 0.6 < found["swap"]["published_at"] < found["swap"]["served_at"] - 0.3
    assert found["before"]["versions"] == [3] and found["after"]["versions"] == [4]
    assert all(found[part]["calls"] > 0 for part in ("before", "during", "after"))
    parts = sum(found[part]["calls"] for part in ("before", "during", "after"))
    assert parts == len(found["timeline"])


def test_wrong_and_failed_answers_of_a_swap_are_found(versions, requests_json, tmp_path, capsys):
    with FakeServer(base=versions, swap_delay=0.3) as server:
        server.wrong_while_swapping = True
        code = run(
            "--target", server.target, "--requests", requests_json, "--seconds", 2.4,
            "--rate", 40, "--rehearse-swap", versions / "3", "--html", tmp_path / "r.html",
        )  # fmt: skip
    assert code == 1
    failed, wrong = re.search(r"(\d+) failed, (\d+) wrong", capsys.readouterr().out).groups()
    assert int(failed) == 0 < int(wrong)
    assert f"{wrong} wrong answers" in (tmp_path / "r.html").read_text()


def test_a_version_that_never_answers_is_an_error(versions):
    with (
        FakeServer(base=versions, swap_delay=60) as server,
        pytest.raises(SwapError, match="Version 4 did not answer within the load.* --seconds"),
    ):
        swap(server, versions / "3", seconds=0.6)


def test_a_copy_is_published_all_at_once_or_not_at_all(versions, monkeypatch):
    assert publish_copy(versions / "3") == (versions / "4").resolve()
    assert publish_copy(versions / "3", 9).name == "9"
    with pytest.raises(SwapError, match="Version 9 is already published"):
        publish_copy(versions / "3", 9)
    with pytest.raises(SwapError, match="no published version"):
        publish_copy(versions)

    def fails(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(shutil, "copytree", fails)
    with pytest.raises(OSError, match="disk full"):
        publish_copy(versions / "3")
    assert sorted(entry.name for entry in versions.iterdir()) == ["3", "4", "9"]


def measured_as(table):
    """Stands in for measuring: `(throughput, p99, failed)` by workers, more at 128 rows a chunk
    or 2 inter-op threads, and half the throughput for one caller."""

    def measured(tuning, settings):
        throughput, p99, failed = table[settings["--workers"]]
        bonus = 15.0 if settings.get("--chunk-rows") == 128 else 0.0
        bonus += 5.0 if settings.get("--tensorflow-inter-op") == 2 else 0.0
        return [
            {
                "settings": {**settings, "callers": callers},
                "throughput": (throughput + bonus) * share,
                "failed": failed,
                "calls": 9,
                "latency_ms": {"p50": p99 / 2, "p99": p99, "max": p99},
            }
            for callers, share in ((1, 0.5), (4, 1.0))
        ]

    return measured


def test_the_best_setting_is_the_fastest_within_the_target(monkeypatch, tmp_path, requests_json):
    table = {1: (100.0, 5.0, 0), 2: (150.0, 9.0, 0), 4: (300.0, 40.0, 0), 8: (400.0, 1.0, 7)}
    asked = []

    def carried(tuning, settings, throughput):
        asked.append((settings, throughput))
        runs = []
        for rate, p99 in ((0.9 * throughput, 30.0), (0.7 * throughput, 8.0)):
            latency = {"p50": 1.0, "p99": p99, "max": p99}
            shared = {"throughput": rate, "failed": 0, "calls": 9, "latency_ms": latency}
            runs.append({"settings": {"rate": rate}, **shared})
        return runs

    monkeypatch.setattr("serving.loadtest_tune._measured", measured_as(table))
    monkeypatch.setattr("serving.loadtest_tune._carried", carried)
    monkeypatch.setattr(
        "serving.loadtest_tune._server_flags",
        lambda: {"--workers", "--chunk-rows", "--tensorflow-inter-op"},
    )
    monkeypatch.setattr("serving.loadtest_tune.usable_cores", lambda: 2)
    tuning = Tuning(tmp_path, "tiny", [REQUEST], p99_ms=10.0)
    found = tune(tuning)
    # Two inter-op threads gain 5 of 150: that is noise, and the flag is left out.
    assert found["flags"] == ["--workers", "2", "--chunk-rows", "128"] and found["within"]
    assert asked == [({"--workers": 2, "--chunk-rows": 128}, 165.0)]
    assert found["rate"] == 0.7 * 165.0
    tried = [run["settings"].get("--tensorflow-inter-op") for run in found["runs"]]
    assert {1, 2} <= set(tried)
    options = ["--tune", tmp_path, "--requests", requests_json, "--flags", tmp_path / "flags"]
    assert run(*options, "--p99-ms", 10) == 0
    assert shlex.split((tmp_path / "flags").read_text()) == found["flags"]
    # No setting answers within a millisecond but the one that fails: the closest is named.
    assert run(*options, "--p99-ms", 0.5) == 1
    assert shlex.split((tmp_path / "flags").read_text())[:2] == ["--workers", "1"]


def test_tuning_measures_servers_of_its_own(base_path, monkeypatch):
    monkeypatch.setattr("serving.loadtest_tune._server_flags", lambda: {"--workers"})
    monkeypatch.setattr(
        "serving.loadtest_tune._knobs", lambda: {"--workers": [1], "--no-such-flag": [1]}
    )
    options = {"p99_ms": 5000.0, "seconds": 0.3, "concurrency": (1, 2)}
    found = tune(Tuning(base_path, "tiny", [REQUEST], **options))
    assert found["within"] and found["flags"] == ["--workers", "1"]
    settings = [run["settings"] for run in found["runs"]]
    assert settings[:2] == [{"--workers": 1, "callers": callers} for callers in (1, 2)]
    assert settings[2:] == [{"rate": found["rate"]}]
    assert all(run["versions"] == [7] and run["failed"] == 0 for run in found["runs"])
    monkeypatch.setattr("serving.loadtest_tune._knobs", lambda: {"--no-such-flag": [1]})
    with pytest.raises(TuneError, match="none of the flags"):
        tune(Tuning(base_path, "tiny", [REQUEST], **options))


def test_the_flags_that_are_swept_are_read_off_the_server():
    known = _server_flags()
    assert "--workers" in known
    assert {"--workers", "--chunk-rows"} <= set(_knobs())


def test_a_server_that_does_not_start_says_why(tmp_path):
    with (
        pytest.raises(TuneError, match="No version in"),
        embedded_server(tmp_path, "tiny"),
    ):
        pass


def test_the_module_runs_from_the_shell():
    command = [sys.executable, "-m", "serving.loadtest", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--rehearse-swap" in done.stdout
