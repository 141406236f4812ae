import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pipelines.prepare import main
from tests.data.logs import real_data, small_events
from tfrec_feedback.data.manifest import load_manifest
from tfrec_feedback.data.sources.kuairand import LOG_FILE, USER_FILE, VIDEO_FILE

ROOT = Path(__file__).parents[2]
app = typer.Typer()
app.command()(main)


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.csv"
    events = small_events()
    events["item_tags"] = events["item_tags"].map("|".join)
    events.to_csv(path, index=False)
    with path.open("a") as file:
        file.write("ann,1,soon,1,0,0,8,se,a,1.5\n")
    return path


def test_a_log_is_prepared_and_summed_up(log, tmp_path):
    result = run("--source", "events", "--input", log, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "rows read 7, malformed 1, duplicates dropped 0, kept 6" in result.output
    assert "log.csv, line 8, column 'timestamp'" in result.output
    assert "peak memory" in result.output
    assert sum(s.requests for s in load_manifest(tmp_path / "out").splits.values()) == 5


def test_options_reach_the_data(log, tmp_path):
    out = tmp_path / "out"
    options = ["--history-length", 3, "--lag", 0.5, "--split", "0.6,0.2,0.2", "--shards", 2]
    options += ["--samples", 2, "--histories", "click, all"]
    options += ["--sessions", 5, "--session-gap", 10]
    result = run("--source", "events", "--input", log, "--output", out, *options)
    assert result.exit_code == 0, result.output
    manifest = load_manifest(out)
    assert [len(split.shards) for split in manifest.splits.values()] == [2, 1, 1]
    assert manifest.schema().history("click").max_length == 3
    assert manifest.options["lag_seconds"] == 0.5
    assert manifest.options["session_gap_minutes"] == 10.0
    assert [(h.name, h.num_samples, h.num_sessions) for h in manifest.schema().histories] == [
        ("click", 2, 5),
        ("all", 2, 5),
    ]
    again = run(
        "--source", "events", "--input", log, "--output", tmp_path / "b", "--schema",
        out / "schema.json",
    )  # fmt: skip
    assert again.exit_code == 0, again.output
    assert load_manifest(tmp_path / "b").schema() == manifest.schema()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--source", "event"], "Did you mean 'events'"),
        (["--source", "events"], "needs `--input`"),
        (["--source", "events", "--input", "none.csv"], "No such file"),
        (["--source", "events", "--input", "LOG", "--strict"], "line 8"),
        (["--source", "events", "--input", "LOG", "--split", "0.8,0.2"], "three shares"),
        (["--source", "events", "--input", "LOG", "--histories", "click,lik"], "mean 'like'"),
        (["--source", "events", "--input", "LOG", "--histories", ""], "History '' cannot be built"),
        (["--source", "events", "--input", "LOG", "--num-users", "3"], "--num-users"),
        (["--source", "events", "--input", "LOG", "--session-gap", "0"], "must be above 0, got 0"),
        (["--source", "events", "--input", "LOG", "--schema", "none.json"], "No schema at"),
        (
            ["--source", "events", "--input", "LOG", "--schema", "s.json", "--history-length", "5"]
            + ["--samples", "0", "--sessions", "3", "--histories", "click", "--session-gap", "9"],
            "--history-length, --samples, --sessions, --histories: not with `--schema`",
        ),
        (["--source", "simulated", "--input", "LOG"], "simulated and reads nothing"),
    ],
)
def test_mistakes_end_in_one_clear_line(log, tmp_path, options, message):
    options = [log if option == "LOG" else option for option in options]
    result = run(*options, "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_what_is_read_is_never_in_the_output_folder(tmp_path, overwrite):
    events = small_events().drop(columns="item_tags")
    for name in ("train", "validation", "test"):
        events.to_parquet(tmp_path / f"{name}.parquet")
    (tmp_path / "schema.json").write_text("{}")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    log = ["--source", "events", "--input", tmp_path]
    schema = ["--source", "simulated", "--schema", tmp_path / "schema.json"]
    for arguments in (log, schema):
        result = run(*arguments, "--output", tmp_path, *overwrite)
        assert result.exit_code == 1
        assert "is to be read, so it must not be in the output folder" in result.output
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_any_error_of_the_input_ends_in_one_clear_line(log, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("a worker was killed")

    monkeypatch.setattr("pipelines.prepare.prepare", broken)
    result = run("--source", "events", "--input", log, "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert "Error: a worker was killed" in result.output


@pytest.mark.parametrize(("split", "noted"), [("0.8,0,0.2", True), ("0.6,0.2,0.2", False)])
def test_a_log_without_a_validation_split_is_prepared_with_a_note(log, tmp_path, split, noted):
    out = tmp_path / "out"
    result = run("--source", "events", "--input", log, "--output", out, "--split", split)
    assert result.exit_code == 0, result.output
    assert ("the validation split is empty, and training needs one" in result.output) == noted
    assert (load_manifest(out).split("validation").requests == 0) == noted


@pytest.fixture
def ratings(tmp_path):
    folder = tmp_path / "ratings"
    folder.mkdir()
    files = {"train.rating": "1 1 5\n1 2 2\n2 1 4\n2 1 4\nx 1 1\n", "valid.rating": "2 3 5\n"}
    for name, text in {**files, "test.negative": "1 4 5\n"}.items():
        (folder / f"small.{name}").write_text(text.replace(" ", "\t"))
    return folder


def test_interactions_are_prepared_and_summed_up(ratings, tmp_path):
    out = tmp_path / "out"
    result = run("--source", "adt-ratings", "--input", ratings, "--output", out)
    assert result.exit_code == 0, result.output
    assert "rows read 7, malformed 1, duplicates dropped 1" in result.output
    assert "small.train.rating, line 5, column 'user'" in result.output
    table = [line.split("│")[1:-1] for line in result.output.splitlines() if "│" in line]
    cells = {row[0].strip(): [int(cell) for cell in row[1:]] for row in table}
    assert cells == {"train": [3, 2, 2, 1], "validation": [1, 1, 1, 0], "test": [1, 1, 1, 0]}
    manifest = load_manifest(out)
    assert (manifest.format, manifest.options) == ("interactions", {"clean_rating": 3.0})
    again = ["--source", "adt-ratings", "--input", ratings, "--output", out, "--clean-rating", 5]
    assert "already holds prepared data" in run(*again).output
    assert run(*again, "--overwrite").exit_code == 0
    assert load_manifest(out).split("train").feedback == {"click": 3, "false_positive": 2}


def test_interactions_are_simulated(tmp_path):
    arguments = ["--source", "simulated-interactions", "--num-users", 30, "--num-items", 100]
    result = run(*arguments, "--seed", 4, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    manifest = load_manifest(tmp_path / "out")
    assert manifest.split("train").users == 30
    assert manifest.options["seed"] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--source", "adt-ratings"], "needs `--input`"),
        (["--source", "adt-ratings", "--input", "none"], "No such folder: none"),
        (["--source", "adt-ratings", "--input", "LOG", "--strict"], "line 5, column 'user'"),
        (
            ["--source", "adt-ratings", "--input", "LOG", "--lag", "0", "--seed", "0"],
            "--lag, --seed: not for `--source adt-ratings`, which takes --source, --output, "
            "--overwrite, --input, --clean-rating, --strict.",
        ),
        (["--source", "adt-ratings", "--input", "LOG", "--num-items", "3"], "--num-items: not for"),
        (["--source", "simulated-interactions", "--input", "LOG"], "--input: not for"),
        (["--source", "simulated-interactions", "--strict"], "--strict: not for"),
        (["--source", "simulated-interactions", "--num-days", "3"], "--num-days: not for"),
        (["--source", "simulated-interactions", "--num-items", "7"], "a quarter of the items"),
        (["--source", "simulated", "--clean-rating", "3"], "--clean-rating: only for"),
        (["--source", "adt-rating"], "Did you mean 'adt-ratings'"),
    ],
)
def test_mistakes_about_interactions_end_in_one_clear_line(ratings, tmp_path, options, message):
    options = [ratings if option == "LOG" else option for option in options]
    result = run(*options, "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_the_published_ratings_are_prepared(tmp_path):
    folder = real_data("ml-100k")
    result = run("--source", "adt-ratings", "--input", folder, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "rows read 115,114, malformed 0, duplicates dropped 0" in result.output
    for count in ("79,619", "9,901", "1,707", "3,594", "20,293", "12,649"):
        assert count in result.output


def test_forked_workers_write_the_same_bytes_as_one_process(tmp_path):
    # In a process of its own: one that has TensorFlow loaded does not fork.
    outputs = {}
    for workers in (1, 2):
        out = tmp_path / str(workers)
        arguments = ["--source", "simulated", "--num-users", 30, "--num-items", 40, "--num-days", 3]
        arguments += ["--shards", 3, "--workers", workers, "--output", out, "--check-leaks"]
        command = [sys.executable, "-m", "pipelines.prepare", *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, timeout=120, cwd=ROOT)
        files = sorted(p for p in out.rglob("*") if p.is_file())
        outputs[workers] = {p.relative_to(out): p.read_bytes() for p in files}
    assert outputs[1] == outputs[2]
    assert len([p for p in outputs[1] if p.suffix == ".tfrecord"]) == 9


def test_preparing_does_not_load_tensorflow():
    code = "import sys, pipelines.prepare; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120, cwd=ROOT).returncode == 0


def test_a_cut_of_the_published_log_is_prepared_without_leaks(tmp_path):
    folder, cut = real_data("kuairand-pure"), tmp_path / "cut"
    cut.mkdir()
    for name in (USER_FILE, VIDEO_FILE):
        (cut / name).write_bytes((folder / name).read_bytes())
    with (folder / LOG_FILE).open() as file:
        lines = [line for _, line in zip(range(6000), file, strict=False)]
    (cut / LOG_FILE).write_text("".join(lines))
    out = tmp_path / "out"
    result = run("--source", "kuairand-pure", "--input", cut, "--output", out, "--check-leaks")
    assert result.exit_code == 0, result.output
    manifest = load_manifest(out)
    kept = sum(split.candidates for split in manifest.splits.values())
    assert kept + manifest.report.duplicates == manifest.report.rows == 5999
    assert all(split.requests for split in manifest.splits.values())
