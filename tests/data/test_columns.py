import numpy as np
import pandas as pd
import pytest

from tfrec_feedback.data.columns import convert, infer_types, is_multi_valued, split_values
from tfrec_feedback.data.events import FILE, LINE, EventLogError, Malformed
from tfrec_feedback.data.manifest import Report
from tfrec_feedback.schema import Buckets, Feature, Hashing, Identity


def infer(values, multi_valued=None):
    frame = pd.DataFrame({"item_x": values}, dtype="str")
    frame[FILE], frame[LINE] = "log.csv", range(2, len(frame) + 2)
    malformed, report = Malformed(frame), Report()
    typed = infer_types(frame, malformed, multi_valued)["item_x"]
    return typed.loc[malformed.drop(report, strict=False).index], report


@pytest.mark.parametrize(
    ("text", "values", "kind"),
    [
        (["1", "-2", "9007199254740993"], [1, -2, 9007199254740993], "i"),
        (["9223372036854775807", "-9223372036854775808"], [2**63 - 1, -(2**63)], "i"),
        (["9223372036854775808", "1", ""], ["9223372036854775808", "1", ""], "O"),
        (["9" * 5000, "1"], ["9" * 5000, "1"], "O"),
        (["1.0", "2.0"], [1.0, 2.0], "f"),
        (["1.0", "2", "2.5"], [1.0, 2.0, 2.5], "f"),
        (["1", ""], [1, -1], "i"),
        (["1", "2.5", ""], [1.0, 2.5, -1.0], "f"),
        (["1", "a", ""], ["1", "a", ""], "O"),
        (["", ""], ["", ""], "O"),
    ],
)
def test_types_are_guessed_from_all_values(text, values, kind):
    typed, report = infer(text)
    assert typed.tolist() == values
    assert typed.dtype.kind == kind
    assert not report.malformed


@pytest.mark.parametrize("bad", ["nan", "inf", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_malformed(bad):
    typed, report = infer(["1", bad, "2.5"])
    assert typed.tolist() == [1.0, 2.5]
    assert report.examples == [
        f"log.csv, line 3, column 'item_x': expected a finite number, got {bad!r}."
    ]


def test_a_bar_makes_a_column_multi_valued():
    assert infer(["a|b", "c", ""])[0].tolist() == [("a", "b"), ("c",), ()]
    assert infer(["1|2", "3"])[0].tolist() == [(1, 2), (3,)]
    assert infer([f"{2**63 - 1}|2"])[0].tolist() == [(2**63 - 1, 2)]
    assert infer([f"{2**63}|2", "3"])[0].tolist() == [(str(2**63), "2"), ("3",)]
    assert infer(["a|b", "c"], frozenset())[0].tolist() == ["a|b", "c"]
    assert infer(["a", "c"], frozenset({"item_x"}))[0].tolist() == [("a",), ("c",)]


def test_ids_are_never_multi_valued():
    frame = pd.DataFrame({"user_id": ["a|b", "c"], FILE: "f", LINE: [2, 3]})
    assert infer_types(frame, Malformed(frame))["user_id"].tolist() == ["a|b", "c"]


def infer_ids(name, *values):
    frame = pd.DataFrame({name: values}, dtype="str").assign(
        **{FILE: "f", LINE: range(len(values))}
    )
    malformed, report = Malformed(frame), Report()
    typed = infer_types(frame, malformed)[name]
    return typed.loc[malformed.drop(report, strict=False).index].tolist()


def test_ids_are_integers_or_text_and_never_floats():
    snowflakes = [1234567890123456700 + i for i in range(20)]
    assert infer_ids("user_id", *map(str, snowflakes)) == snowflakes
    hashes = [str(2**64 - 1 - i) for i in range(20)]
    assert infer_ids("item_id", *hashes, "7") == [*hashes, "7"]
    assert infer_ids("user_id", "12.0", "7", "1e3", "nan") == [12, 7, 1000]
    assert infer_ids("item_id", "12.0", "a", "1.5") == ["12.0", "a", "1.5"]
    assert infer_ids("request_id", "12.0", "007") == ["12", "007"]


@pytest.mark.parametrize("name", ["user_id", "item_id", "request_id"])
@pytest.mark.parametrize("bad", ["1.5", "1.2345678901234568e+18", "9007199254740992.0", "1e999"])
def test_ids_that_are_rounded_numbers_are_refused(name, bad):
    with pytest.raises(EventLogError, match=rf"'{name}' should hold integers or text.*Write the"):
        infer_ids(name, "1", bad, "2")


def test_splitting_keeps_text_when_one_value_is_not_a_number():
    column = split_values(pd.Series(["1,2", "x", ""]), ",")
    assert column.tolist() == [("1", "2"), ("x",), ()]
    assert is_multi_valued(column)


def test_a_column_becomes_what_its_feature_holds():
    numbers = pd.Series([1, 2])
    assert convert(numbers, Feature("x", Hashing(5))).tolist() == ["1", "2"]
    assert convert(numbers, Feature("x", Buckets((0.5,)))).dtype == np.float32
    assert convert(pd.Series(["3"]), Feature("x", Identity(5))).tolist() == [3]


def test_a_multi_valued_column_is_cut_to_its_feature():
    column = pd.Series([(1, 2, 3), (), (4,)])
    feature = Feature("x", Hashing(5), max_values=2)
    assert convert(column, feature).tolist() == [("1", "2"), (), ("4",)]
    single = convert(pd.Series(["a", ""]), feature)
    assert single.tolist() == [("a",), ()]


@pytest.mark.parametrize(
    ("values", "encoding", "message"),
    [
        (["a"], Identity(5), "should hold int64 values"),
        ([1.5], Identity(5), "whole numbers, got 1.5"),
        ([2.0**53, 1.0], Identity(5), "whole numbers, got 9007199254740992.0"),
        (["9223372036854775808", "1"], Identity(5), "whole numbers, got 9223372036854775808"),
        (["9223372036854775808", "-1"], Identity(5), "whole numbers, got 9223372036854775808"),
        (["18446744073709551616", "1"], Identity(5), "whole numbers, got 18446744073709551616"),
        ([np.inf], Buckets((1.0,)), "not finite"),
        ([1e300], Buckets((1.0,)), "beyond float32"),
        ([(1,)], Identity(5), "multi-valued"),
    ],
)
def test_values_that_do_not_fit_are_refused_by_name(values, encoding, message):
    with pytest.raises(EventLogError, match=rf"'item_x'.*{message}"):
        convert(pd.Series(values), Feature("item_x", encoding))
