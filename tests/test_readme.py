"""What the README tells people to type is typed here."""

import json
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from serving.client import FeedbackClient
from serving.server import FeedbackServer
from tests.data.logs import prepared_simulation
from tests.data.ratings import write_ratings
from tfrec_feedback.data.sources.simulated import simulate

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [text for of, text in found if of == language]


def run(command, folder):
    arguments = [sys.executable, *shlex.split(command, comments=True)[1:]]
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=600)


def test_the_commands_of_the_road_run_as_written(tmp_path):
    events = simulate(num_users=60, num_items=80, num_days=6, seed=1).events
    columns = ["user_id", "item_id", "timestamp", "click", "like", "dislike", "context_hour"]
    events[columns].to_parquet(tmp_path / "log.parquet")
    (tmp_path / "request.json").write_text(blocks("json")[0])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    commands = next(b for b in blocks("") if "pipelines.prepare" in b).replace("8500", port)
    server = None
    try:
        for command in commands.strip().splitlines():
            if "serving.server" in command:
                arguments = [sys.executable, *shlex.split(command)[1:]]
                server = subprocess.Popen(
                    arguments, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
                )
                assert server.stdout.readline()
                continue
            done = run(command, tmp_path)
            assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"
        ranked = done.stdout
        version = next(path.name for path in (tmp_path / "models/dfn").iterdir() if path.is_dir())
        production = next(b for b in blocks("") if "serving.publish" in b)
        production = production.replace("8500", port).replace("VERSION", version)
        for command in production.replace("--rate 50", "--rate 50 --seconds 2").splitlines():
            done = run(command, tmp_path)
            assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    finally:
        if server is not None:
            server.terminate()
            server.wait(timeout=60)
    for item in json.loads(blocks("json")[0])["candidates"]["item_id"]:
        assert str(item) in ranked
    # These blocks go on from the first one's data and run.
    for block in [b for b in blocks("") if "pipelines.visualize" in b]:
        for command in block.strip().splitlines():
            done = run(command, tmp_path)
            assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"
    assert (tmp_path / "runs/dumn/pictures/long_term.png").is_file()
    assert (tmp_path / "runs/tce/pictures/denoising_drops.png").is_file()


def test_the_road_of_interactions_runs_as_written(tmp_path):
    write_ratings(tmp_path / "ml-100k")
    for command in next(b for b in blocks("") if "adt-ratings" in b).strip().splitlines():
        done = run(command.replace("--output runs", "--set train.epochs=1 --output runs"), tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"
    (version,) = (tmp_path / "models/gmf").iterdir()
    assert 'client.top_k({"user_id": 7}, exclude=[11])' in README
    with (
        FeedbackServer(version.parent, "gmf") as server,
        FeedbackClient(server.target, "gmf", timeout=60) as client,
    ):
        ids, scores = client.top_k({"user_id": 7}, exclude=[11])
    assert len(ids) == len(scores) > 10
    assert 11 not in ids


def test_the_python_example_runs_as_written(tmp_path):
    example = README.split("<!-- python example -->")[1].split("```python\n")[1].split("```")[0]
    assert len([line for line in example.splitlines() if line.strip()]) < 20
    prepared_simulation(tmp_path / "data/simulated")
    script = tmp_path / "example.py"
    script.write_text(example)
    done = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_benchmarks_run_as_written(tmp_path):
    # A log far smaller than the suite's own, where the suite would have put it.
    prepared_simulation(tmp_path / "runs/benchmark/simulated/data")
    commands = "".join(b for b in blocks("") if "pipelines.benchmark" in b).strip().splitlines()
    simulated = [command for command in commands if "simulated" in command]
    assert len(commands) == len(simulated) + 1 == 5
    for command in simulated:
        done = run(command, tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"
    written = {path.name for path in (tmp_path / "runs/benchmark/simulated").iterdir()}
    assert {"table.csv", "report.html", "importance-fm.csv"} <= written


@pytest.mark.parametrize("target", re.findall(r"\]\((docs/[^)]+)\)", README))
def test_links_lead_somewhere(target):
    assert (ROOT / target).is_file()
