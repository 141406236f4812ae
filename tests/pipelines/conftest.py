import shutil

import pytest
import typer
from typer.testing import CliRunner

from pipelines import train

CHEAP_MODEL = ["--model", "dfn_no_feedback", "--set", "model.embedding_dim=4"]
CHEAP_MODEL += ["--set", "model.deep_units=[8]", "--set", "train.epochs=1"]


def invoke(main, *arguments):
    app = typer.Typer()
    app.command()(main)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def failed(result, *expected):
    """Checks that a command ended with code 1, one error and no traceback."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.output
    for text in expected:
        assert text in result.stderr
    return True


@pytest.fixture(scope="session")
def trained(tiny_data, tmp_path_factory):
    """What the command printed, and the folder of its run."""
    run = tmp_path_factory.mktemp("trained") / "run"
    result = invoke(train.main, "--data", tiny_data.directory, "--output", run, *CHEAP_MODEL)
    return result, run


@pytest.fixture
def run_copy(trained, tmp_path):
    """The run's folder, to be written to."""
    return shutil.copytree(trained[1], tmp_path / "run")


@pytest.fixture
def data_copy(tiny_data, tmp_path):
    """The prepared folder, to be damaged."""
    return shutil.copytree(tiny_data.directory, tmp_path / "2024-01-01")


@pytest.fixture
def damaged(data_copy):
    """A prepared folder with one flipped bit in the first record of each split, and the files."""
    files = {}
    for split in ("train", "validation", "test"):
        files[split] = sorted((data_copy / split).iterdir())[0]
        data = bytearray(files[split].read_bytes())
        data[20] ^= 1
        files[split].write_bytes(data)
    return data_copy, files
