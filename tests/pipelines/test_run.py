import json
import os
import re
from pathlib import Path

from pipelines.run import main
from tests.pipelines.conftest import failed, invoke


def test_the_whole_road_ends_with_a_ranking_over_grpc(tiny_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # The server, a process of its own, finds the packages where they are not installed.
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[2]}:{os.getenv('PYTHONPATH', '')}")
    overrides = [
        f"data.directory='{tiny_data.directory}'",
        "train.epochs=1",
        "model.name=dfn_no_feedback",
        "model.embedding_dim=4",
        "model.deep_units=[8]",
        "model.dislike_head=false",
    ]
    options = [part for override in overrides for part in ("--set", override)]
    result = invoke(main, *options)
    assert result.exit_code == 0, (result.output, result.exception)
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("dfn_no_feedback-")
    (version,) = (tmp_path / "models" / "dfn_no_feedback").iterdir()
    report = json.loads((version / "assets.extra" / "metrics.json").read_text())
    assert f"{report['tasks']['ctr']['auc']['value']:.4f}" in result.output
    user, target = re.search(r"user (\d+) at ([\d.]+:\d+)", result.output).groups()
    assert int(user) >= 0
    row = re.compile(r"\s+(\d+)\W+(\d+)\W+(0\.\d{4})\W+(0\.\d{4})\W*$", re.M)
    ranked = row.findall(result.output[result.output.index(target) :])
    assert [int(rank) for rank, *_ in ranked] == list(range(1, 11))
    clicks = [float(ctr) for _, _, ctr, _ in ranked]
    assert clicks == sorted(clicks, reverse=True)
    # Without a head of its own the dislike score is the reverse of the click score.
    assert all(abs(float(c) + float(d) - 1) < 2e-4 for _, _, c, d in ranked)


def test_wrong_options_are_one_line(tmp_path):
    assert failed(invoke(main, "--set", "data.dir=x"), "unknown key 'data.dir'")
    assert failed(invoke(main, "--config", tmp_path / "none.toml"), "No configuration at")
    missing = f"data.directory='{tmp_path / 'none'}'"
    assert failed(invoke(main, "--set", missing), "No manifest.json in")
