import pandas as pd
import pytest

from tests.data.logs import small_events, small_source
from tfrec_feedback.data.events import (
    FILE,
    LINE,
    EventLogError,
    check_columns,
    clean_events,
    whole_ids,
)
from tfrec_feedback.data.manifest import Report

GOOD = {"user_id": "u", "item_id": "i", "timestamp": "5", "click": "1", "like": "0", "dislike": "0"}


def log(*changes):
    frame = pd.DataFrame([{**GOOD, **change} for change in changes], dtype="str")
    frame[FILE], frame[LINE] = "log.csv", range(2, len(frame) + 2)
    return frame


def test_well_formed_rows_get_their_types():
    events = clean_events(log({"sampling_rate": "0.5"}), Report())
    row = events.iloc[0]
    assert (row["timestamp"], row["click"], row["sampling_rate"]) == (5, 1, 0.5)
    assert events["timestamp"].dtype == events["click"].dtype == "int64"


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("timestamp", "soon", "whole milliseconds since 1970"),
        ("timestamp", "1.5", "whole milliseconds since 1970"),
        ("timestamp", "-1", "whole milliseconds since 1970"),
        ("timestamp", "inf", "whole milliseconds since 1970"),
        ("click", "2", "0 or 1"),
        ("dislike", "yes", "0 or 1"),
        ("user_id", "", "a value"),
        ("item_id", "", "a value"),
        ("request_id", "", "a value"),
        ("sampling_rate", "0", r"a number in \(0, 1\]"),
        ("sampling_rate", "1.5", r"a number in \(0, 1\]"),
        ("sampling_rate", "nan", r"a number in \(0, 1\]"),
        ("split", "dev", "one of"),
    ],
)
def test_a_malformed_row_is_dropped_and_named(column, value, expected):
    good = {"request_id": "r", "sampling_rate": "1", "split": "train"}
    frame, report = log(good, {**good, column: value}, good), Report()
    events = clean_events(frame, report)
    assert events[LINE].tolist() == [2, 4]
    assert sum(report.malformed.values()) == 1
    got = repr(value) if value else "nothing"
    assert report.examples[0].startswith(f"log.csv, line 3, column {column!r}: expected")
    assert report.examples[0].endswith(f"got {got}.")
    with pytest.raises(EventLogError, match=rf"line 3, column '{column}': expected {expected}"):
        clean_events(frame, Report(), strict=True)


def test_a_row_with_two_faults_counts_once():
    report = Report()
    clean_events(log({"user_id": "", "click": "7"}, {"click": "7"}, {}), report)
    assert report.malformed == {"user_id: expected a value": 1, "click: expected 0 or 1": 1}


def test_only_the_first_examples_are_kept_in_file_order():
    report = Report()
    clean_events(log(*[{"click": "7"}] * 9, {"user_id": ""}), report)
    assert report.malformed["click: expected 0 or 1"] == 9
    assert [e.split(",")[1] for e in report.examples] == [f" line {n}" for n in range(2, 7)]


def test_missing_and_unknown_columns_are_answered_with_the_closest():
    with pytest.raises(EventLogError, match=r"missing columns \['click'\].*Did you mean 'clicks'"):
        check_columns("log.csv", [*(set(GOOD) - {"click"}), "clicks"])
    with pytest.raises(EventLogError, match=r"unknown column 'sampling'.*'sampling_rate'"):
        check_columns("log.csv", [*GOOD, "sampling"])
    with pytest.raises(EventLogError, match="more than once"):
        check_columns("log.csv", [*GOOD, "item_a", "item_a"])


def test_a_source_tells_context_from_candidate_columns():
    source = small_source()
    assert source.context_columns == ("user_id", "context_hour", "user_country")
    assert source.candidate_columns == ("item_id", "item_tags", "item_price")


@pytest.mark.parametrize("name", ["user_id", "item_id", "request_id"])
def test_a_source_refuses_ids_that_are_floats(name):
    events = small_events().assign(**{name: [1.0, 2.0, 3.0, 1.0, 4.0, 3.0]})
    with pytest.raises(EventLogError, match=f"small: column '{name}' .*got floats.*whole_ids"):
        small_source(events)
    assert small_source(events.assign(**{name: whole_ids(name, events[name])})).events is not None


def test_history_features_are_the_id_and_what_is_not_a_float():
    assert small_source().history_features == ("item_id", "item_tags")
    wide = small_events().assign(item_a=1, item_b=1, item_c=1)
    assert small_source(wide).history_features == ("item_id", "item_tags", "item_a", "item_b")
