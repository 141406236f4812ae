import pytest

from tests.data.logs import real_data
from tfrec_feedback.data.events import EventLogError
from tfrec_feedback.data.grouping import group_requests
from tfrec_feedback.data.leaks import check_names
from tfrec_feedback.data.sources.kuairand import (
    FEEDBACK_FILE,
    LOG_FILE,
    USER_FILE,
    VIDEO_FILE,
    read_feedback,
    read_pure,
)
from tfrec_feedback.data.vocabulary import infer_schema

LOG_COLUMNS = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,is_forward,"
    "is_hate,play_time_ms,duration_ms,tab"
)
LOG = [
    "1,10,20220503,2300,1000,1,0,0,0,0,0,9,5000,1",
    "1,10,20220503,2300,1000,1,0,0,0,0,0,9,5000,1",  # an exact duplicate
    "1,11,20220504,0,2000,0,0,1,0,0,0,9,5000,2",
    "2,99,20220506,900,3000,0,0,0,0,0,1,9,5000,4",  # neither user nor video is described
    "1,10,20220506,900,4000,2,0,0,0,0,0,9,5000,1",
    "1,x,20220506,900,4000,1,0,0,0,0,0,9,5000,1",
]
ONEHOT = ",".join(f"onehot_feat{i}" for i in range(18))
USER_COLUMNS = (
    "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,"
    f"follow_user_num_range,fans_user_num_range,friend_user_num_range,register_days_range,{ONEHOT}"
)
USERS = ["1,full_active,0,-124,1,500+,0,0,730+," + ",".join(["1.0"] * 17) + ","]
VIDEO_COLUMNS = "video_id,author_id,video_type,upload_dt,upload_type,video_duration,music_type,tag"
VIDEOS = ['10,5,NORMAL,2022-04-09,Web,12500.0,9.0,"3,68,7,8"', "11,6,NORMAL,2022-05-05,,,,"]


@pytest.fixture
def folder(tmp_path):
    files = ((LOG_FILE, LOG_COLUMNS, LOG), (USER_FILE, USER_COLUMNS, USERS))
    for name, header, rows in (*files, (VIDEO_FILE, VIDEO_COLUMNS, VIDEOS)):
        (tmp_path / name).write_text("\n".join([header, *rows]) + "\n")
    return tmp_path


def test_feedback_and_splits_are_those_of_the_log(folder):
    source = read_pure(folder)
    flags = source.events[["click", "like", "dislike"]].to_numpy().tolist()
    assert flags == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert source.events["split"].tolist() == ["train", "validation", "test"]
    assert source.events["context_hour"].tolist() == [23, 0, 9]
    assert source.events["context_weekday"].tolist() == [1, 2, 4]  # Tuesday, Wednesday, Friday


def test_rows_are_read_malformed_duplicate_or_kept(folder):
    report = read_pure(folder).report
    assert (report.rows, report.duplicates) == (6, 1)
    assert report.malformed == {
        "video_id: expected a whole number": 1,
        "is_click: expected 0 or 1": 1,
    }
    assert "line 6, column 'is_click': expected 0 or 1, got '2'" in report.examples[0]
    with pytest.raises(EventLogError, match="line 6"):
        read_pure(folder, strict=True)


def test_users_and_videos_are_joined_and_what_is_unknown_is_missing(folder):
    events = read_pure(folder).events
    assert events["user_active_degree"].tolist() == ["full_active", "full_active", ""]
    assert events["user_onehot_feat0"].tolist() == [1, 1, -1]
    assert events["user_onehot_feat17"].tolist() == [-1, -1, -1]
    assert events["item_author_id"].tolist() == [5, 6, -1]
    assert events["item_tag"].tolist() == [(3, 68, 7), (), ()]
    assert events["item_duration"].tolist() == [12.5, -1.0, -1.0]


def test_a_video_s_age_never_looks_forward(folder):
    # Video 10 is 24 days old; video 11 is dated after its exposure; 99 has no date.
    assert read_pure(folder).events["item_age_days"].tolist() == [24.0, -1.0, -1.0]


def test_missing_files_and_columns_are_named(folder):
    (folder / LOG_FILE).write_text("user_id,video_id\n1,2\n")
    with pytest.raises(EventLogError, match=r"has no columns \['date'"):
        read_pure(folder)
    (folder / USER_FILE).unlink()
    with pytest.raises(EventLogError, match=f"{USER_FILE} is missing"):
        read_pure(folder)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        (LOG_FILE, "tab"),
        (USER_FILE, "follow_user_num_range"),
        (USER_FILE, "onehot_feat17"),
        (USER_FILE, "user_id"),
        (VIDEO_FILE, "tag"),
        (VIDEO_FILE, "video_id"),
    ],
)
def test_a_file_without_a_column_is_named(folder, name, column):
    text = (folder / name).read_text()
    (folder / name).write_text(text.replace(column, f"{column}_", 1))
    with pytest.raises(EventLogError, match=rf"{name} has no columns \['{column}'\]; it has"):
        read_pure(folder)


def test_a_rated_log_without_durations_is_refused(tmp_path):
    header = "user_id\tvideo_id\tdate\thourmin\ttime_ms\tis_click\tlabel"
    (tmp_path / FEEDBACK_FILE).write_text(f"{header}\n1\t2\t20220410\t800\t100\t0\t1\n")
    with pytest.raises(EventLogError, match=r"has no columns \['duration_ms'\]"):
        read_feedback(tmp_path)


def test_explicit_feedback_is_split_by_user_in_time_order(tmp_path):
    header = "user_id\tvideo_id\tdate\thourmin\ttime_ms\tis_click\tduration_ms\tlabel"
    rows = [f"1\t{n}\t20220410\t800\t{100 - n}\t0\t5000\t{n % 2}" for n in range(10)]
    (tmp_path / FEEDBACK_FILE).write_text("\n".join([header, *rows]) + "\n")
    source = read_feedback(tmp_path)
    # Row n is the (9 - n)-th in time.
    assert source.events["split"].tolist() == ["test"] * 2 + ["validation"] + ["train"] * 7
    assert source.events["like"].tolist() == [0, 1] * 5
    assert source.events["dislike"].tolist() == [1, 0] * 5
    assert source.events["item_duration"].tolist() == [5.0] * 10


def test_the_published_log_has_its_published_counts():
    source = read_pure(real_data("kuairand-pure"))
    assert (source.report.rows, source.report.duplicates) == (228_329, 5_460)
    assert not source.report.malformed
    assert len(source.events) == 222_869
    table = group_requests(source.events)
    assert round(len(source.events) / len(table), 2) == 1.01
    schema = infer_schema(source, table.rows_of("train"), 30)
    assert schema.feature("item_tag").max_values == 3
    assert not check_names(schema, source.post_exposure)


def test_the_rated_log_has_its_published_counts():
    source = read_feedback(real_data("kuairand-27k-feedback"))
    assert (source.report.rows, source.report.duplicates) == (41_828, 116)
    assert source.events["user_id"].nunique() == 664
    shares = source.events["split"].value_counts(normalize=True)
    assert [round(shares[s], 2) for s in ("train", "validation", "test")] == [0.71, 0.1, 0.19]
    assert (source.events["user_active_degree"] != "").all()
