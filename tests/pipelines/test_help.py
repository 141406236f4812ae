import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Runs a command as `python -m` does, and says whether TensorFlow was loaded on the way.
PROBE = """
import runpy, sys
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_module(sys.argv[0], run_name="__main__")
finally:
    print("tensorflow loaded:", "tensorflow" in sys.modules)
"""


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("prepare", "--history-length"),
        ("train", "--skip-corrupt"),
        ("evaluate", "--split"),
        ("export", "--version"),
        ("score", "--requests"),
        ("run", "--models"),
        ("visualize", "--grid"),
        ("benchmark", "--drop-feedback"),
    ],
)
def test_help_is_shown_without_waiting_for_tensorflow(command, option):
    done = subprocess.run(
        [sys.executable, "-c", PROBE, f"pipelines.{command}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"COLUMNS": "120", "NO_COLOR": "1", "PATH": "/usr/bin"},
    )
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout
    assert option in done.stdout
    assert "tensorflow loaded: False" in done.stdout


def test_the_servers_help_is_shown():
    done = subprocess.run(
        [sys.executable, "-m", "serving.server", "--help"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"COLUMNS": "120", "NO_COLOR": "1", "PATH": "/usr/bin"},
    )
    assert done.returncode == 0, done.stderr
    assert "--model-base-path" in done.stdout
    assert done.stderr == ""
