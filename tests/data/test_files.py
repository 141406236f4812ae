import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.logs import small_events
from tfrec_feedback.data.events import EventLogError
from tfrec_feedback.data.grouping import group_requests
from tfrec_feedback.data.sources import load_interaction_source, load_source
from tfrec_feedback.data.sources.files import read_events
from tfrec_feedback.data.vocabulary import infer_schema

HEADER = "user_id,item_id,timestamp,click,like,dislike,item_tags,item_price\n"


def write(tmp_path, *lines, name="log.csv", header=HEADER):
    path = tmp_path / name
    path.write_text(header + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_a_csv_log_is_typed(tmp_path):
    path = write(tmp_path, "7,a,5,1,0,0,x|y,1.5", "8,b,6,0,0,1,,", "7,c,7,0,1,0,z,2")
    source = read_events(path)
    events = source.events
    assert events["user_id"].tolist() == [7, 8, 7]
    assert events["item_id"].tolist() == ["a", "b", "c"]
    assert events["item_tags"].tolist() == [("x", "y"), (), ("z",)]
    assert events["item_price"].tolist() == [1.5, -1.0, 2.0]
    assert source.report.rows == 3
    assert source.files == (path,)


def test_lines_are_counted_as_an_editor_counts_them(tmp_path):
    rows = ["7,a,5,1,0,0,x,1", "7,a,6,1,0,0,x,1,extra,extra", "", "7,a,7,5,0,0,x,1"]
    report = read_events(write(tmp_path, *rows)).report
    assert report.rows == 4
    assert report.malformed == {
        "too many fields in the line": 1,
        "user_id: expected a value": 1,
        "click: expected 0 or 1": 1,
    }
    assert [e.split(":")[0] for e in report.examples] == [
        "log.csv, line 3",
        "log.csv, line 4, column 'user_id'",
        "log.csv, line 5, column 'click'",
    ]


@pytest.mark.parametrize("row", ["7,a,6,1,0,0,x,1,extra", "7,a,6,5,0,0,x,1", "7,a,6,1,0,0,x,inf"])
def test_strict_stops_at_the_line(tmp_path, row):
    path = write(tmp_path, "7,a,5,1,0,0,x,1.5", row)
    with pytest.raises(EventLogError, match=r"log\.csv, line 3"):
        read_events(path, strict=True)
    assert len(read_events(path).events) == 1


def test_exact_duplicates_are_dropped_and_counted(tmp_path):
    row = "7,a,5,1,0,0,x|y,1.5"
    source = read_events(write(tmp_path, row, row, "7,a,5,1,0,0,x,1.5", row))
    assert len(source.events) == 2
    assert source.report.duplicates == 2


def test_a_folder_is_read_file_by_file(tmp_path):
    write(tmp_path, "7,2,5,1,0,0,x,1", name="b.csv")
    write(tmp_path, "7,1,4,9,0,0,x,1", "7,1,4,1,0,0,x,1", name="a.csv")
    source = read_events(tmp_path)
    assert source.events["item_id"].tolist() == [1, 2]
    assert source.report.examples[0].startswith("a.csv, line 2")


def test_tabs_separate_a_tsv(tmp_path):
    path = write(
        tmp_path, "7\ta\t5\t1\t0\t0\tx\t1", name="log.tsv", header=HEADER.replace(",", "\t")
    )
    assert read_events(path).events["item_id"].tolist() == ["a"]


def test_a_parquet_log_keeps_its_types(tmp_path):
    small_events().to_parquet(tmp_path / "log.parquet")
    source = read_events(tmp_path / "log.parquet")
    pd.testing.assert_frame_equal(
        source.events, small_events().astype({"user_id": "str", "user_country": "str"})
    )


def test_missing_parquet_values_are_filled_and_integers_stay_integers(tmp_path):
    big = 9007199254740993
    table = pa.table(
        {
            "user_id": ["1", "2", None],
            "item_id": pa.array([big, 2, 3], pa.int64()),
            "timestamp": pa.array([1, 2, 3], pa.timestamp("ms")),
            **{flag: pa.array([True, False, False]) for flag in ("click", "like", "dislike")},
            "item_kind": pa.array([big, None, 3], pa.int64()),
            "item_name": pa.array([None, "b", "c"]).dictionary_encode(),
            "item_tags": pa.array([[1, 2], None, []], pa.list_(pa.int64())),
            "item_price": pa.array([None, 2.5, 3.5], pa.float32()),
        }
    )
    pq.write_table(table, tmp_path / "log.parquet")
    source = read_events(tmp_path / "log.parquet")
    events = source.events
    assert events["user_id"].tolist() == ["1", "2"]
    assert events["item_id"].tolist() == [big, 2]
    assert events["timestamp"].tolist() == [1, 2]
    assert events["item_kind"].tolist() == [big, -1]
    assert events["item_kind"].dtype == np.int64
    assert events["item_name"].tolist() == ["", "b"]
    assert events["item_tags"].tolist() == [(1, 2), ()]
    assert events["item_price"].tolist() == [-1.0, 2.5]
    assert source.report.malformed == {"user_id: expected a value": 1}


def parquet(tmp_path, **columns):
    length = len(next(iter(columns.values())))
    counted = ("user_id", "item_id", "timestamp")
    table = {name: list(range(length)) for name in counted}
    table |= {flag: [0] * length for flag in ("click", "like", "dislike")}
    pq.write_table(pa.table({**table, **columns}), tmp_path / "log.parquet")
    return read_events(tmp_path / "log.parquet")


@pytest.mark.parametrize("name", ["user_id", "item_id"])
def test_whole_parquet_floats_of_ids_are_integers(tmp_path, name):
    source = parquet(
        tmp_path, **{name: pa.array([12.0, None, 7.0]), "item_length": [1.0, 2.0, 3.0]}
    )
    assert source.events[name].tolist() == [12, 7]
    assert source.events[name].dtype == "int64"
    assert source.report.malformed == {f"{name}: expected a value": 1}
    assert source.events["item_length"].dtype == "float64"


def test_whole_parquet_floats_of_requests_are_the_integers_they_were(tmp_path):
    source = parquet(tmp_path, user_id=[1, 1], request_id=[5.0, 7.0])
    assert group_requests(source.events).request_id.tolist() == ["5", "7"]


@pytest.mark.parametrize("name", ["user_id", "item_id", "request_id"])
@pytest.mark.parametrize(
    ("bad", "dtype"), [(1.5, "float64"), (2.0**53, "float64"), (2.0**24, "float32"), (np.inf, "f8")]
)
def test_parquet_ids_that_are_rounded_numbers_are_refused(tmp_path, name, bad, dtype):
    with pytest.raises(EventLogError, match=f"'{name}' should hold integers or text"):
        parquet(tmp_path, **{name: np.array([1.0, bad], dtype)})


def test_unsigned_parquet_integers_are_text_where_they_do_not_fit(tmp_path):
    big = 2**63
    source = parquet(
        tmp_path,
        user_id=pa.array([big, big + 1, 3], pa.uint64()),
        item_id=pa.array([1, 2, 3], pa.uint64()),
        item_maker=pa.array([big, None, 3], pa.uint64()),
        item_tags=pa.array([[big, 1], None, [3]], pa.list_(pa.uint64())),
        item_colours=pa.array([[2, 1], None, [3]], pa.list_(pa.uint64())),
    )
    events = source.events
    assert events["user_id"].tolist() == [str(big), str(big + 1), "3"]
    assert events["item_id"].tolist() == [1, 2, 3]
    assert events["item_maker"].tolist() == [str(big), "", "3"]
    assert events["item_tags"].tolist() == [(str(big), "1"), (), ("3",)]
    assert events["item_colours"].tolist() == [(2, 1), (), (3,)]
    assert [f.dtype for f in infer_schema(source, np.arange(3), 5).features] == [
        *["string", "int64", "string", "string", "int64"]
    ]


def test_large_ids_of_a_csv_keep_users_apart(tmp_path):
    ids = [1234567890123456700 + i for i in range(20)]
    source = read_events(write(tmp_path, *(f"{i},a,5,1,0,0,x,1" for i in ids)))
    assert source.events["user_id"].tolist() == ids
    assert infer_schema(source, np.arange(20), 5).feature("user_id").dtype == "int64"


def test_infinite_parquet_numbers_are_malformed(tmp_path):
    events = small_events()
    events.loc[2, "item_price"] = np.inf
    events.to_parquet(tmp_path / "log.parquet")
    report = read_events(tmp_path / "log.parquet").report
    assert report.examples == [
        "log.parquet, line 3, column 'item_price': expected a finite number, got inf."
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"holds\) no \.csv, \.tsv or \.parquet"),
        ({"a.csv": b""}, "cannot be read"),
        ({"a.csv": b"user_id\xff\n"}, "cannot be read as UTF-8"),
        ({"a.parquet": b"no"}, "cannot be read as Parquet"),
        ({"a.csv": b"user_id\n1\n"}, "missing columns"),
        ({"a.csv": b"x\n", "b.parquet": b""}, "keep one kind"),
        ({"a.csv": HEADER.encode() + b"7,1,4,1,0,0,x,1\n", "b.csv": b"x\n1\n"}, "must be the same"),
    ],
)
def test_unusable_files_are_named(tmp_path, files, message):
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(EventLogError, match=message):
        read_events(tmp_path)


def test_the_source_s_name_and_path_are_checked(tmp_path):
    with pytest.raises(EventLogError, match=r"Unknown source 'event'.*Did you mean 'events'"):
        load_source("event", tmp_path)
    with pytest.raises(EventLogError, match="needs `--input`"):
        load_source("events")
    with pytest.raises(EventLogError, match="No such file"):
        load_source("events", tmp_path / "none.csv")


def test_a_simulation_reads_nothing(tmp_path):
    with pytest.raises(EventLogError, match=r"'simulated' is simulated and reads nothing, got"):
        load_source("simulated", tmp_path)
    with pytest.raises(EventLogError, match="'simulated-interactions' is simulated"):
        load_interaction_source("simulated-interactions", tmp_path)


def test_a_simulated_log_comes_with_its_truth():
    source = load_source("simulated", num_users=20, num_items=30, num_days=2, seed=3)
    assert source.truth is not None
    assert len(source.truth) == len(source.events) == source.report.rows
    assert source.settings == {"num_users": 20, "num_items": 30, "num_days": 2, "seed": 3}
    assert all(isinstance(tags, tuple) for tags in source.events["item_tags"])
