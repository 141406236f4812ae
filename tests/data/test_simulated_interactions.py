import time
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from tfrec_feedback.data.sources import load_interaction_source
from tfrec_feedback.data.sources.simulated_interactions import simulate_interactions


@pytest.fixture(scope="module")
def source():
    return simulate_interactions(num_users=2000, num_items=1000, seed=3)


def everything(source):
    return pd.concat([source.splits[name] for name in ("train", "validation", "test_noisy")])


def test_equal_seeds_give_equal_interactions_and_others_do_not():
    first, second, other = (simulate_interactions(60, 80, seed=seed) for seed in (1, 1, 2))
    for name, frame in first.splits.items():
        pd.testing.assert_frame_equal(frame, second.splits[name])
    assert not first.splits["train"].equals(other.splits["train"])
    assert first.settings == {
        "num_users": 60,
        "num_items": 80,
        "interactions_per_user": 20.0,
        "false_positive_share": 0.2,
        "seed": 1,
    }


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_as_many_interactions_are_false_as_was_asked_for(share):
    source = simulate_interactions(2000, 1000, false_positive_share=share)
    found = everything(source)
    assert abs((~found["clean"]).mean() - share) < 0.015
    assert len(found) / 2000 == pytest.approx(20, rel=0.05)


def test_clean_splits_are_the_clean_part_of_noisy_ones(source):
    for clean, noisy in (("validation_clean", "validation"), ("test", "test_noisy")):
        frame = source.splits[noisy]
        assert 0 < (~frame["clean"]).sum()
        expected = frame[frame["clean"]].reset_index(drop=True)
        pd.testing.assert_frame_equal(source.splits[clean], expected)


def test_nobody_takes_an_item_twice_and_everybody_has_something_to_train_on(source):
    found = everything(source)
    assert not found.duplicated(["user", "item"]).any()
    assert set(found["user"]) == set(source.splits["train"]["user"]) == set(range(1, 2001))
    assert found["item"].between(1, 1000).all()
    assert len(found) == source.report.rows
    assert found.groupby("user").size().max() <= 500


def test_false_positives_are_of_few_items_and_popularity_is_skewed(source):
    found = everything(source)
    by_item = found.groupby("item")["clean"].agg(["size", "mean"])
    popular = by_item.sort_values("size", ascending=False)
    assert popular["size"].head(100).sum() > 0.25 * popular["size"].sum()
    often = by_item[by_item["size"] >= 20]
    # Clickbait: some items mostly fool, and others never do.
    assert often["mean"].quantile(0.05) < 0.6
    assert often["mean"].quantile(0.75) > 0.9


def test_what_others_took_tells_what_satisfies_and_not_what_fools():
    source = simulate_interactions(num_users=1000, num_items=300, seed=3)
    train, test = source.splits["train"], source.splits["test_noisy"]
    matrix = np.zeros((1001, 301), np.float32)
    matrix[train["user"], train["item"]] = 1.0
    expected = matrix.sum(axis=1, keepdims=True) * matrix.sum(axis=0) / matrix.sum() + 1e-6
    matrix = (matrix - expected) / expected**0.5
    directions = np.linalg.eigh(matrix.T @ matrix)[1][:, -4:]
    scores = matrix @ directions @ directions.T
    # Compared with what other users score for the item: its popularity plays no part.
    scores = (scores - scores.mean(axis=0)) / scores.std(axis=0)
    likely = scores[test["user"], test["item"]]
    clean = test["clean"].to_numpy()
    assert likely[clean].mean() > 0.3
    assert likely[clean].mean() > likely[~clean].mean() + 0.4


def test_a_hundred_thousand_users_and_items_take_seconds_and_little_memory():
    tracemalloc.start()
    start = time.process_time()
    source = simulate_interactions(100_000, 100_000)
    seconds, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(everything(source)) == pytest.approx(2_000_000, rel=0.02)
    assert peak < 1 << 30
    assert seconds < 60  # about 3 where nothing else runs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_users": 0}, "must be positive"),
        ({"interactions_per_user": 0}, "must be positive"),
        ({"num_items": 79}, "a quarter of the items"),
        ({"false_positive_share": 0.6}, r"in \[0, 0.5\]"),
        ({"false_positive_share": -0.1}, r"in \[0, 0.5\]"),
    ],
)
def test_impossible_worlds_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        simulate_interactions(**options)


def test_tiny_worlds_leave_everybody_something_unseen():
    found = everything(simulate_interactions(20, 12, interactions_per_user=3))
    assert found.groupby("user").size().max() <= 6


def test_the_source_is_loaded_by_name():
    source = load_interaction_source("simulated-interactions", num_users=9, num_items=90, seed=4)
    assert source.name == "simulated-interactions"
    assert source.splits["train"]["user"].nunique() == 9
