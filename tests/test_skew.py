"""The skew check: every road gives training's scores, and whatever differs is found."""

import shutil
import socket

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from serving.probe import main as probe
from serving.server import FeedbackServer
from serving.skew import TOLERANCE, main, measure
from tfrec_feedback.roads import compare
from tfrec_feedback.runs import MODEL_FILE, load_run

WAYS = [
    "serving_default",
    "rank",
    "rank, padded with the first element",
    "rank, bucketed",
    "rank, in chunks",
    "predict_rows",
    "rank_examples",
    "classify",
    "regress",
]


@pytest.fixture(scope="module")
def server(tiny_version):
    with FeedbackServer(tiny_version.parent, "tiny") as server:
        yield server


def skew(*arguments):
    app = typer.Typer()
    app.command()(main)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_all_roads_give_the_scores_of_keras(tiny_run, tiny_version, server):
    version, found = measure(tiny_run, server.target, "tiny", tiny_version.parent)
    assert version == 3
    assert [(row.road, row.way) for row in found] == [
        ("golden file", "scores at export"),
        *((road, way) for road in ("SavedModel", "C++ session", "gRPC") for way in WAYS),
    ]
    assert max(row.worst for row in found) <= TOLERANCE


def test_the_command_prints_the_table_and_ends_well(tiny_run, server):
    result = skew("--run", tiny_run, "--target", server.target, "--model", "tiny")
    assert result.exit_code == 0, result.output
    for way in WAYS:
        assert way in result.output
    assert "C++ session" not in result.output


def test_a_server_of_another_model_is_found(tiny_run, server, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    model, _ = load_run(run)
    for variable in model.trainable_variables:
        variable.assign(variable * 1.01)
    model.save(run / MODEL_FILE, save_format="keras")
    result = skew("--run", run, "--target", server.target, "--model", "tiny")
    assert result.exit_code == 1
    assert "Skew: gRPC" in result.output


@pytest.mark.parametrize(
    ("scores", "worst"),
    [
        ({"ctr": np.float32([0.5, 0.5])}, 0.25),
        ({"ctr": np.float32([0.5])}, np.inf),
        ({"ctr": np.float32([0.5, np.nan])}, np.inf),
        ({}, np.inf),
    ],
)
def test_missing_and_nan_scores_are_infinitely_wrong(scores, worst):
    reference = [{"ctr": np.float32([0.25, 0.5])}]
    assert compare("road", "way", [scores], reference).worst == worst


def test_a_server_that_is_not_there_is_no_skew(tiny_run):
    result = skew("--run", tiny_run, "--target", f"localhost:{free_port()}", "--model", "tiny")
    assert result.exit_code == 2
    assert "Error" in result.output


def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def test_the_probe_tells_a_server_from_none(server, capsys):
    with pytest.raises(SystemExit) as serving:
        probe(server.target, 5.0)
    assert serving.value.code == 0
    assert "SERVING" in capsys.readouterr().out
    with pytest.raises(SystemExit) as nothing:
        probe(f"127.0.0.1:{free_port()}", 1.0)
    assert nothing.value.code == 1
