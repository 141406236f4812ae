"""Versions and their labels: `serving.versions`, and the command around it."""

import json
import os

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2
from typer.testing import CliRunner

from serving import versions
from serving.model_config import read_config_file
from serving.publish import app
from serving.versions import VersionError


@pytest.fixture
def base(tmp_path):
    """Versions 1, 2 and 10, and what no server looks at."""
    base = tmp_path / "dfn"
    for number in ("1", "2", "10", "007", ".tmp-11", "notes"):
        (base / number / "assets.extra").mkdir(parents=True)
        (base / number / "saved_model.pb").write_bytes(b"x" * 1000)
    run = {"config": {"model": {"name": "dfn"}}, "export": {"time": "2026-03-04T05:06:00+00:00"}}
    (base / "10" / "assets.extra" / "run.json").write_text(json.dumps(run))
    return base


def command(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def current(base):
    return {label: numbers[0] for label, numbers in versions.read_labels(base).items()}


def test_versions_are_listed_by_number_and_described(base):
    found = versions.list_versions(base)
    assert [version.number for version in found] == [10, 2, 1]
    assert (found[0].model, found[0].published.hour, found[0].complete) == ("dfn", 5, True)
    assert (found[1].model, found[1].size) == ("", 1000)


def test_the_list_shows_labels_and_what_is_incomplete(base):
    (base / "2" / "saved_model.pb").unlink()
    versions.promote(base, 10, "canary")
    shown = command("list", base)
    assert shown.exit_code == 0
    lines = {line.split()[1]: line for line in shown.output.splitlines() if "│" in line}
    assert "canary" in lines["10"] and "2026-03-04 05:06" in lines["10"]
    assert "incomplete" in lines["2"]
    assert "incomplete" not in lines["1"]


def test_labels_move_and_go_back(base):
    for number in (1, 2, 10):
        assert command("promote", base, number, "--label", "stable").exit_code == 0
    command("promote", base, 10, "--label", "canary")
    assert current(base) == {"stable": 10, "canary": 10}
    back = command("rollback", base)
    assert back.exit_code == 0 and "stable is version 2 again" in back.output
    assert current(base) == {"stable": 2, "canary": 10}
    assert versions.rollback(base, "stable") == (2, 1)


def test_rolling_back_passes_over_versions_that_are_gone(base):
    for number in (1, 2, 10):
        versions.promote(base, number, "stable")
    (base / "2" / "saved_model.pb").unlink()
    assert versions.rollback(base, "stable") == (10, 1)
    with pytest.raises(VersionError, match="no earlier version"):
        versions.rollback(base, "stable")
    assert current(base) == {"stable": 1}


def test_promoting_again_is_not_remembered_twice(base):
    for number in (1, 2, 1, 1, 2):
        versions.promote(base, number, "stable")
    assert versions.read_labels(base) == {"stable": [2, 1]}


def test_old_versions_are_removed_and_labelled_ones_stay(base):
    versions.promote(base, 1, "stable")
    removed = command("prune", base, "--keep", 1)
    assert removed.exit_code == 0 and "[2]" in removed.output
    assert sorted(os.listdir(base)) == [".tmp-11", "007", "1", "10", "labels.json", "notes"]
    assert versions.prune(base, 1) == []


def test_incomplete_versions_are_not_counted_among_those_that_stay(base):
    (base / "10" / "saved_model.pb").unlink()
    assert versions.prune(base, 1) == [1]
    assert versions.prune(base, 5) == []
    assert {"2", "10"} <= set(os.listdir(base))


def test_numbers_of_more_than_64_bits_are_no_versions(base):
    (base / str(2**63)).mkdir()
    assert max(version.number for version in versions.list_versions(base)) == 10


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["promote", 3, "--label", "stable"], "No version 3"),
        (["promote", 1, "--label", "best"], "Unknown label 'best'"),
        (["promote", 2, "--label", "stable"], "not complete"),
        (["rollback"], "nothing to roll back"),
    ],
)
def test_what_cannot_be_done_says_why_and_changes_nothing(base, arguments, says):
    (base / "2" / "saved_model.pb").unlink()
    verb, *rest = arguments
    result = command(verb, base, *rest)
    assert result.exit_code == 1
    assert says in result.output
    assert not (base / "labels.json").exists()


def test_a_folder_without_versions_is_named(tmp_path):
    assert f"No version in {tmp_path}" in command("list", tmp_path).output
    assert "No folder" in command("list", tmp_path / "nothing").output


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"stable": []}', '{"stable": ["1"]}', '{"stable": 1}']
)
def test_damaged_labels_are_reported(base, text):
    (base / "labels.json").write_text(text)
    with pytest.raises(VersionError, match=r"labels\.json is damaged"):
        versions.read_labels(base)


def test_the_rendered_file_serves_labelled_versions_and_both_servers_read_it(base, tmp_path):
    versions.promote(base, 1, "stable")
    versions.promote(base, 10, "canary")
    output = tmp_path / "models.config"
    assert command("render", base, "--output", output).exit_code == 0
    parsed = text_format.Parse(output.read_text(), model_server_config_pb2.ModelServerConfig())
    (config,) = parsed.model_config_list.config
    assert (config.name, config.base_path) == ("dfn", "/models/dfn")
    assert dict(config.version_labels) == {"stable": 1, "canary": 10}
    assert list(config.model_version_policy.specific.versions) == [1, 10]
    (ours,) = read_config_file(output)
    assert dict(ours.labels) == {"stable": 1, "canary": 10}


def test_without_labels_the_highest_version_is_served(base):
    text = command("render", base, "--name", 'odd "name"', "--base-path", "/srv/x").output
    parsed = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    (config,) = parsed.model_config_list.config
    assert (config.name, config.base_path) == ('odd "name"', "/srv/x")
    assert config.model_version_policy.latest.num_versions == 1
    assert not config.version_labels


def test_labels_on_versions_that_are_gone_are_not_rendered(base):
    versions.promote(base, 10, "stable")
    (base / "10").rename(base / "gone")
    for verb in ("render", "list"):
        result = command(verb, base)
        assert result.exit_code == 1
        assert "gone" in result.output and "10" in result.output


def test_a_file_that_cannot_be_written_leaves_the_old_one(base, monkeypatch):
    versions.promote(base, 1, "stable")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        versions.promote(base, 2, "stable")
    assert current(base) == {"stable": 1}
    assert not [name for name in os.listdir(base) if name.startswith(".labels")]
