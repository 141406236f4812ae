import pytest

from tests.data.logs import real_data
from tfrec_feedback.data.events import EventLogError
from tfrec_feedback.data.sources import load_interaction_source, load_source
from tfrec_feedback.data.sources.adt_ratings import read_ratings


def write(folder, **files):
    """`train_rating="1 2 3; 4 5"` becomes `small.train.rating` of two rows."""
    for name, text in files.items():
        rows = "".join(row.strip().replace(" ", "\t") + "\n" for row in text.split(";"))
        (folder / f"small.{name.replace('_', '.')}").write_text(rows)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(
        tmp_path,
        train_rating="7 1 5; 7 2 2; 8 1 3",
        valid_noisy="7 3 1; 8 2 4",
        valid_rating="8 2 5",
        test_negative="7 4 5",
        test_noisy="7 4 5; 8 5 1",
    )


def rows(frame):
    return list(frame.itertuples(index=False, name=None))


def test_every_file_is_a_split_and_ratings_below_3_are_false_positives(folder):
    source = read_ratings(folder)
    assert {name: rows(frame) for name, frame in source.splits.items()} == {
        "train": [(7, 1, True), (7, 2, False), (8, 1, True)],
        "validation": [(7, 3, False), (8, 2, True)],
        "validation_clean": [(8, 2, True)],
        "test": [(7, 4, True)],
        "test_noisy": [(7, 4, True), (8, 5, False)],
    }
    assert source.settings == {"clean_rating": 3.0}
    assert source.report.rows == 9
    assert [file.name for file in source.files][0] == "small.train.rating"


def test_the_least_clean_rating_can_be_given(folder):
    source = read_ratings(folder, clean_rating=4)
    assert source.splits["train"]["clean"].tolist() == [True, False, False]
    assert source.settings == {"clean_rating": 4.0}


def test_flags_say_0_for_a_false_positive_and_nothing_for_the_unknown(tmp_path):
    files = {"train_rating": "1 1 1; 1 2 0; 1 3", "valid_rating": "1 4 0", "test_negative": "1 5"}
    source = read_ratings(write(tmp_path, **files))
    assert source.splits["train"]["clean"].tolist() == [True, False, True]
    assert source.settings == {"clean_rating": 1.0}


def test_the_only_validation_file_is_the_noisy_one(tmp_path):
    files = {"train_rating": "1 1 1", "valid_rating": "1 4 0; 1 5 1", "test_negative": "1 6"}
    source = read_ratings(write(tmp_path, **files))
    assert list(source.splits) == ["train", "validation", "test"]
    assert rows(source.splits["validation"]) == [(1, 4, False), (1, 5, True)]


def test_tuples_of_the_published_test_file_are_read_and_what_follows_is_not(folder):
    text = "(7, 4)\t55\t56\t57\n(8,5)\n(9; 1)\t2\n"
    (folder / "small.test.negative").write_text(text)
    source = read_ratings(folder)
    assert rows(source.splits["test"]) == [(7, 4, True), (8, 5, True)]
    assert source.report.malformed == {"user: expected a whole number": 1}
    assert "small.test.negative, line 3, column 'user'" in source.report.examples[0]
    assert "got '(9; 1)'" in source.report.examples[0]


def test_the_first_of_repeated_pairs_counts(folder):
    write(folder, train_rating="7 1 1; 7 1 5; 8 1 5; 7 1 1")
    source = read_ratings(folder)
    assert rows(source.splits["train"]) == [(7, 1, False), (8, 1, True)]
    assert source.report.duplicates == 2


def test_malformed_rows_are_counted_shown_and_dropped(folder):
    write(folder, train_rating="7 1 5; 7 x 5; ; 8 2 good; 9; -1 4 3; 8 2 5 extra")
    source = read_ratings(folder)
    assert rows(source.splits["train"]) == [(7, 1, True), (8, 2, True)]
    assert source.report.rows == 13
    assert source.report.malformed == {
        "user: expected a whole number": 2,
        "item: expected a whole number": 2,
        "value: expected a number (a rating, or 0 or 1), or nothing": 1,
    }
    first, second, third = source.report.examples[:3]
    assert "small.train.rating, line 2, column 'item': expected a whole number, got 'x'" in first
    assert "line 3, column 'user': expected a whole number, got nothing" in second
    assert "line 4, column 'value'" in third
    with pytest.raises(EventLogError, match=r"line 2, column 'item'.*without `--strict`"):
        read_ratings(folder, strict=True)


def test_a_folder_without_data_or_with_several_is_refused(tmp_path):
    with pytest.raises(EventLogError, match="No such folder"):
        read_ratings(tmp_path / "none")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(EventLogError, match=r"holds none. Files there: \['notes.txt'\]"):
        read_ratings(tmp_path)
    write(tmp_path, train_rating="1 1 1")
    with pytest.raises(EventLogError, match=r"not both small.test.negative and one of"):
        read_ratings(tmp_path)
    write(tmp_path, test_negative="1 2 1")
    with pytest.raises(EventLogError, match="one of small.valid.noisy and small.valid.rating"):
        read_ratings(tmp_path)
    (tmp_path / "other.train.rating").write_text("1\t1\t1\n")
    with pytest.raises(EventLogError, match=r"several data sets, \['other', 'small'\]"):
        read_ratings(tmp_path)


@pytest.mark.parametrize(("train", "shown"), [("", "nothing to train on"), ("a b c", "line 1")])
def test_an_empty_train_split_is_refused(folder, train, shown):
    (folder / "small.train.rating").write_text(train.replace(" ", "\t"))
    with pytest.raises(EventLogError, match=shown):
        read_ratings(folder)


def test_what_is_not_text_is_refused(folder):
    (folder / "small.test.negative").write_bytes(b"1\t2\xff\t3\n")
    with pytest.raises(EventLogError, match=r"small.test.negative is not UTF-8"):
        read_ratings(folder)


def test_sources_of_interactions_and_of_logs_are_told_apart(folder):
    assert load_interaction_source("adt-ratings", folder).name == "adt-ratings"
    with pytest.raises(EventLogError, match="`load_interaction_source`"):
        load_source("adt-ratings", folder)
    with pytest.raises(EventLogError, match="`load_source`"):
        load_interaction_source("events", folder)
    with pytest.raises(EventLogError, match="Did you mean 'adt-ratings'"):
        load_interaction_source("adt-rating", folder)
    with pytest.raises(EventLogError, match="needs `--input`"):
        load_interaction_source("adt-ratings")


def test_the_published_ratings_have_their_published_counts():
    source = read_ratings(real_data("ml-100k"))
    assert {name: len(frame) for name, frame in source.splits.items()} == {
        "train": 79_619,
        "validation": 9_901,
        "validation_clean": 1_707,
        "test": 3_594,
        "test_noisy": 20_293,
    }
    assert (source.report.rows, source.report.duplicates) == (115_114, 0)
    assert not source.report.malformed
    assert int((~source.splits["train"]["clean"]).sum()) == 12_649
    assert source.splits["test"]["clean"].all()
    users, items = source.catalogue()
    assert (len(users), len(items)) == (943, 1611)
