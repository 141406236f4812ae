"""What the pictures say, read from the figures."""

import numpy as np
import pytest

from tfrec_feedback import pictures
from tfrec_feedback.interests import Interests

R = 12


def interests(**changes):
    """Twelve requests of three users; nothing purified, reads in three directions."""
    rng = np.random.default_rng(0)
    vectors = {name: rng.normal(size=(R, 3)) for name in ("click", "dislike")}
    reads = np.eye(3)[np.arange(R) % 3] + rng.normal(0.0, 0.01, (R, 3))
    given = {
        "pooled": vectors,
        "short_term": dict(vectors),
        "read": {"click": reads, "dislike": reads},
        "read_weights": {},
        "length": {name: np.full(R, 2) for name in vectors},
        "labels": {},
        "users": np.array(["ann", "bob", "eve"] * (R // 3)),
    }
    return Interests(**{**given, **changes})


def texts(figure):
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def titles(figure):
    return [ax.get_title() for ax in figure.axes if ax.get_visible()]


def test_purification_is_shown_with_the_cosine_before_and_after():
    # Clicks at 60 degrees to dislikes, cosine 1/2, lose what lies along them.
    scale = np.linspace(1.0, 2.0, R)[:, None]
    turned = np.linspace(0.0, 3.0, R)
    across = np.stack([np.zeros(R), np.cos(turned), np.sin(turned)], axis=1)
    dislikes = np.tile([1.0, 0.0, 0.0], (R, 1)) * scale
    clicks = 0.5 * dislikes + 0.75**0.5 * across * scale
    found = pictures.purification(
        interests(
            pooled={"click": clicks, "dislike": dislikes},
            short_term={"click": across, "dislike": dislikes},
        )
    )
    assert titles(found) == [
        "before, 12 requests: mean |cosine| of click and dislike 0.50",
        "after, 12 requests: mean |cosine| of click and dislike 0.00",
    ]
    assert sorted(texts(found)) == ["click", "click", "dislike", "dislike"]


def test_purification_needs_users_with_both_histories():
    purified = {"click": np.ones([R, 3]), "dislike": np.ones([R, 3])}
    lengths = {"click": np.full(R, 2), "dislike": np.array([1, 1, 1] + [0] * (R - 3))}
    with pytest.raises(pictures.NothingToDrawError, match="'click and dislike': 3"):
        pictures.purification(interests(short_term=purified, length=lengths))
    with pytest.raises(pictures.NothingToDrawError, match="does not purify"):
        pictures.purification(interests())


def test_users_are_named_in_the_picture_of_their_reads():
    found = pictures.long_term(interests())
    assert sorted(texts(found)) == ["ann", "ann", "bob", "bob", "eve", "eve"]
    assert titles(found)[0].startswith("memory of click: mean cosine of reads 0.2")


def test_a_collapsed_memory_is_one_point_not_a_cloud_of_rounding_errors():
    same = np.ones([R, 3]) + np.random.default_rng(0).normal(0.0, 1e-7, (R, 3))
    found = pictures.long_term(interests(read={"click": same}))
    assert titles(found) == ["memory of click: mean cosine of reads 1.0000"]
    assert texts(found) == ["all users read the same vector"]


def test_users_of_one_request_are_no_picture():
    alone = np.array([str(i) for i in range(R)])
    with pytest.raises(pictures.NothingToDrawError, match="fewer than two users"):
        pictures.long_term(interests(users=alone))


def test_snapshots_are_columns_in_the_order_of_training():
    same = {name: np.ones([R, 3]) * [1, i, 2] for i, name in enumerate(("click", "dislike"))}
    found = pictures.over_training({0: interests(), 1500: interests(read=same)})
    assert titles(found) == [
        "short-term, step 0",
        "short-term, step 1,500",
        "long-term, step 0",
        "long-term, step 1,500",
    ]
    shown = texts(found)
    assert (shown.count("click"), shown.count("dislike")) == (4, 4)
    assert shown.count("large dot: all users have this one vector") == 1


def test_the_grid_says_its_values_and_the_best():
    found = pictures.sensitivity({(16, 8): [0.5, 0.75], (64, 8): [0.75], (16, 32): [0.5]})
    cells = {(t.get_position()): t for t in found.axes[0].texts}
    assert {at: t.get_text() for at, t in cells.items()} == {
        (0, 0): "0.6250\n2 seeds",
        (1, 0): "0.7500",
        (0, 1): "0.5000",
    }
    bold = [at for at, t in cells.items() if t.get_fontweight() == "bold"]
    assert bold == [(1, 0)]
    assert (found.axes[0].get_xlabel(), found.axes[0].get_ylabel()) == (
        "memory slots M",
        "word size W",
    )
    assert [label.get_text() for label in found.axes[0].get_xticklabels()] == ["16", "64"]
    with pytest.raises(pictures.NothingToDrawError, match="no finished"):
        pictures.sensitivity({})


def test_the_same_seed_gives_the_same_layout():
    vectors = np.random.default_rng(0).normal(size=(30, 5))
    np.testing.assert_array_equal(pictures.tsne(vectors, 0), pictures.tsne(vectors, 0))
    np.testing.assert_array_equal(pictures.tsne(np.ones([20, 5]), 0), np.zeros([20, 2]))
