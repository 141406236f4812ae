import csv
import dataclasses
import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from pipelines.console import benchmark_table
from tests.benchmark.examples_of_cells import cell, study
from tfrec_feedback import metrics
from tfrec_feedback.benchmark.cells import Timing
from tfrec_feedback.benchmark.comparison import compare_cells, write_csv
from tfrec_feedback.benchmark.measured import Difference

LABELS, USERS = [0, 1, 0, 1], [7, 7, 8, 8]
ALL_RIGHT, HALF_RIGHT = [1, 2, 1, 2], [1, 2, 2, 1]  # AUC 1 and 0.5, GAUC 1 and 0.5


def rows_of(comparison):
    return {row.label: row for row in comparison.rows}


def with_row(made, label, change):
    """The cells with one changed by `change(predictions)`."""
    return [
        dataclasses.replace(c, predictions=change(c.predictions)) if c.label == label else c
        for c in made
    ]


def test_means_and_deviations_over_seeds_can_be_checked_by_hand():
    # Three of four pairs won: AUC 0.75. Mean of 1 and 0.75, deviation 0.25 / sqrt(2).
    three = [1, 2, 3, 4]
    found = compare_cells(
        [
            cell("fm", 0, HALF_RIGHT, LABELS, USERS),
            cell("fm", 1, HALF_RIGHT, LABELS, USERS),
            cell("dfn", 1, three, LABELS, USERS),
            cell("dfn", 0, ALL_RIGHT, LABELS, USERS),
        ],
        {"dfn": Timing(5000.0, 2.5)},
    )
    fm, dfn = found.rows
    assert (fm.label, dfn.label, found.best, dfn.seeds) == ("fm", "dfn", "dfn", (0, 1))
    assert dfn.ctr_auc == pytest.approx((0.875, 0.25 / math.sqrt(2)))
    assert dfn.gauc == (1.0, 0.0)
    assert fm.ctr_auc == (0.5, 0.0) and fm.gauc == (0.5, 0.0)
    assert (dfn.samples_per_second, dfn.latency_ms) == (5000.0, 2.5)
    assert fm.latency_ms is None and fm.dislike_auc is None
    assert fm.gauc_difference.value == -0.5 and fm.auc_difference.value == -0.375
    assert dfn.auc_difference is None and dfn.gauc_difference is None
    assert (found.exposures, found.users, found.ranked_users) == (4, 2, 2)


def test_improvement_is_measured_from_a_coin_in_percent_of_the_base():
    made = study({"fm": 3.0, "dfn": 1.0})
    rows = rows_of(compare_cells(made, {}))
    fm, dfn = (rows[label].ctr_auc.mean for label in ("fm", "dfn"))
    assert rows["dfn"].rela_impr == pytest.approx(100 * ((dfn - 0.5) / (fm - 0.5) - 1))
    assert rows["fm"].rela_impr == 0.0
    without = compare_cells(made, {}, base="din")
    assert without.base is None and all(row.rela_impr is None for row in without.rows)


def test_the_table_is_ranked_by_auc_and_rows_keep_their_order():
    found = compare_cells(study({"middle": 1.0, "worst": 4.0, "best": 0.3}), {})
    assert [row.label for row in found.rows] == ["middle", "worst", "best"]
    assert [row.label for row in found.ranked()] == ["best", "middle", "worst"]


def test_one_seed_is_tested_as_by_delong_and_has_his_interval():
    a, b = study({"a": 0.5, "b": 1.0}, seeds=1)
    found = compare_cells([a, b], {}, confidence=0.9)
    labels = a.predictions.labels["ctr"]
    test = metrics.delong_test(labels, b.predictions.logits["ctr"], a.predictions.logits["ctr"])
    row = rows_of(found)["b"]
    assert found.best == "a"
    assert row.auc_difference.value == pytest.approx(test.auc_a - test.auc_b)
    assert row.auc_difference.p_value == pytest.approx(test.p_value)
    interval = metrics.auc_interval(labels, b.predictions.logits["ctr"], 0.9)
    assert row.ctr_auc_interval == pytest.approx(interval)
    assert math.isnan(row.ctr_auc.deviation)


def test_seeds_that_repeat_each_other_are_no_further_evidence():
    once = study({"a": 0.9, "b": 1.0}, seeds=1)
    thrice = [dataclasses.replace(c, seed=seed) for c in once for seed in range(3)]
    one, three = (rows_of(compare_cells(made, {}))["b"] for made in (once, thrice))
    assert three.auc_difference == pytest.approx(one.auc_difference)
    assert three.gauc_difference == pytest.approx(one.gauc_difference)
    assert three.ctr_auc_interval == pytest.approx(one.ctr_auc_interval)


def test_gauc_is_resampled_over_users_after_seeds_are_averaged():
    made = study({"a": 0.5, "b": 1.0})
    row = rows_of(compare_cells(made, {}))["b"]
    labels, users = made[0].predictions.labels["ctr"], made[0].predictions.users
    by_user = []
    weights = metrics.grouped_auc_report(labels, labels, users).weights
    for label in "ab":
        reports = [
            metrics.grouped_auc_report(labels, c.predictions.logits["ctr"], users)
            for c in made
            if c.label == label
        ]
        by_user.append(np.mean([report.aucs for report in reports], axis=0))
    kept = weights > 0
    difference, weights = (by_user[1] - by_user[0])[kept], weights[kept]
    assert row.gauc_difference.value == pytest.approx(np.average(difference, weights=weights))
    assert row.gauc.mean == pytest.approx(np.average(by_user[1][kept], weights=weights))
    rng, draws = np.random.default_rng(1), []
    for _ in range(4000):
        drawn = rng.integers(kept.sum(), size=kept.sum())
        draws.append(np.average(by_user[1][kept][drawn], weights=weights[drawn]))
    ends = np.quantile(draws, [0.025, 0.975])
    np.testing.assert_allclose(row.gauc_interval[1:], ends, atol=0.005)
    assert row.gauc_difference.p_value == pytest.approx(2 / 2001)


def test_p_values_are_corrected_for_all_rows_but_the_best():
    found = compare_cells(study({"a": 0.5, "b": 0.7, "c": 0.75, "d": 3.0}), {})
    rows = [row for row in found.rows if row.label != found.best]
    assert len(rows) == 3
    for name in ("auc_difference", "gauc_difference"):
        differences = [getattr(row, name) for row in rows]
        expected = metrics.multiple.holm([d.p_value for d in differences])
        assert [d.corrected for d in differences] == pytest.approx(expected)
    worst = rows_of(found)["d"].auc_difference
    assert worst.corrected == pytest.approx(3 * worst.p_value)
    assert not found.is_tied(worst)


def test_rows_that_rank_alike_are_tied_without_doubt():
    made = study({"a": 0.5, "b": 2.0})
    twins = [dataclasses.replace(c, label="twin") for c in made if c.label == "a"]
    found = compare_cells([*made, *twins], {})
    twin = rows_of(found)["twin"]
    assert found.best == "a"
    assert twin.auc_difference == twin.gauc_difference == (0.0, 1.0, 1.0)
    assert found.is_tied(twin.auc_difference)
    assert not found.is_tied(rows_of(found)["b"].auc_difference)
    assert not found.is_tied(rows_of(found)["a"].auc_difference)


def test_it_is_the_corrected_p_value_that_tells_rows_apart():
    found = compare_cells(study({"a": 1.0}), {})
    assert found.is_tied(Difference(-0.01, p_value=0.03, corrected=0.06))
    assert not found.is_tied(Difference(-0.01, p_value=0.01, corrected=0.04))
    assert not found.is_tied(Difference(-0.01, p_value=math.nan, corrected=math.nan))


def test_equal_models_are_rarely_found_to_differ():
    wrong = 0
    for seed in range(60):
        found = compare_cells(study({"a": 1.0, "b": 1.0}, rows=300, users=50, seed=seed), {})
        (other,) = (row for row in found.rows if row.label != found.best)
        wrong += other.auc_difference.p_value < 0.1
    assert wrong / 60 <= 0.2  # Below 0.1 on average: seeds that differ make it conservative.


def test_many_rows_are_resampled_so_often_that_a_difference_survives_the_correction():
    made = study({f"m{i}": 1.0 for i in range(41)}, seeds=1, rows=40, users=10)
    draws = compare_cells(made, {}).num_resamples
    assert draws == 4100 and 2 / (draws + 1) * 40 < 0.05


def test_dislike_auc_is_of_the_models_that_have_the_task():
    made = study({"fm": 1.0, "dumn": 0.5}, dislike=("dumn",))
    rows = rows_of(compare_cells(made, {}))
    of_dumn = [c.predictions for c in made if c.label == "dumn"]
    expected = [metrics.auc(p.labels["dislike"], p.logits["dislike"]) for p in of_dumn]
    assert rows["dumn"].dislike_auc.mean == pytest.approx(np.mean(expected))
    assert rows["fm"].dislike_auc is None


def test_without_users_of_both_classes_there_is_no_gauc_but_an_auc():
    users = [1, 2, 1, 2]  # one has no click, the other nothing else
    made = [cell(label, 0, x, LABELS, users) for label, x in (("a", ALL_RIGHT), ("b", HALF_RIGHT))]
    found = compare_cells(made, {})
    b = rows_of(found)["b"]
    assert found.ranked_users == 0 and b.ctr_auc.mean == 0.5
    assert math.isnan(b.gauc.mean) and math.isnan(b.gauc_difference.p_value)
    assert not found.is_tied(b.gauc_difference)


def test_other_exposures_are_refused():
    made = study({"a": 1.0, "b": 1.0})
    for change in (
        lambda p: dataclasses.replace(p, users=p.users + 1),
        lambda p: dataclasses.replace(p, labels={"ctr": p.labels["ctr"][::-1]}),
    ):
        with pytest.raises(ValueError, match="'b', seed 0 was not scored on the same exposures"):
            compare_cells(with_row(made, "b", change), {})


def test_other_seeds_missing_seeds_and_repeated_cells_are_refused():
    made = study({"a": 1.0, "b": 1.0})
    with pytest.raises(ValueError, match=r"'b' has seeds \[0\], 'a' \[0, 1\]"):
        compare_cells(made[:-1], {})
    with pytest.raises(ValueError, match=r"'b' has seeds \[0, 1, 1\]"):
        compare_cells([*made, made[-1]], {})
    with pytest.raises(ValueError, match=r"'a' has seeds \[0, 0\]"):
        compare_cells([made[0], made[0]], {})


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="no cells to compare"):
        compare_cells([], {})
    with pytest.raises(ValueError, match="All 4 test exposures have one class of 'ctr'"):
        compare_cells([cell("a", 0, ALL_RIGHT, [0] * 4, USERS)], {})
    made = [cell("a", 0, ALL_RIGHT, LABELS, USERS)]
    moved = with_row(made, "a", lambda p: dataclasses.replace(p, logits={"dislike": p.users}))
    with pytest.raises(ValueError, match=r"'a', seed 0 has tasks \['dislike'\]"):
        compare_cells(moved, {})
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1"):
        compare_cells(made, {}, confidence=95)


def test_the_csv_holds_plain_numbers_and_empty_cells(tmp_path):
    made = study({"fm": 2.0, "dfn, dislike_weight=5": 0.5})
    made = [dataclasses.replace(c, settings={"optimizer.learning_rate": 0.002}) for c in made]
    found = compare_cells(made, {"fm": Timing(100.0, 1.5)})
    write_csv(found, tmp_path / "table.csv")
    with open(tmp_path / "table.csv", newline="", encoding="utf-8") as file:
        dfn, fm = csv.DictReader(file)
    assert dfn["label"] == "dfn, dislike_weight=5"
    row = rows_of(found)["fm"]
    assert float(fm["ctr_auc"]) == row.ctr_auc.mean
    assert float(fm["gauc_p_corrected"]) == row.gauc_difference.corrected
    assert float(fm["ctr_auc_low"]) == row.ctr_auc_interval.low
    assert (fm["latency_ms"], dfn["latency_ms"]) == ("1.5", "")
    assert dfn["ctr_auc_p"] == dfn["gauc_difference"] == fm["dislike_auc"] == ""
    assert json.loads(fm["settings"]) == {"optimizer.learning_rate": 0.002}


def test_the_printed_table_marks_the_best_and_what_is_tied():
    made = study({"fm": 3.0, "dfn": 0.5, "dfn [2]": 0.505})
    found = compare_cells(made, {"dfn": Timing(12345.6, 2.5)})
    text = io.StringIO()
    Console(file=text, width=160).print(benchmark_table(found, "Simulated"))
    lines = {
        line.split("│")[1].strip(): line for line in text.getvalue().splitlines() if "│" in line
    }
    assert list(lines) == [row.label for row in found.ranked()]
    assert "12,346" in lines["dfn"] and "2.50" in lines["dfn"]
    assert f"{rows_of(found)['fm'].ctr_auc.mean:.4f}" in lines["fm"]
    assert "≈" not in lines["fm"]
    (second,) = {"dfn", "dfn [2]"} - {found.best}
    assert "≈" in lines[second] and "≈" not in lines[found.best]
    assert "dislike" not in text.getvalue() and "RelaImpr against fm" in text.getvalue()
