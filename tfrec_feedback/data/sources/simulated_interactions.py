"""Simulated interactions whose false positives are known, of any size.

Users and items have factors; items have a popularity, a quality and a clickbait strength. Users see
items in the order of popularity, roughly (Zipf, exponent 0.6), some by chance:

    preference p  = sigmoid(2.5 taste . item + 0.6 quality - 1.5)
    satisfied     ~ Bernoulli(p)
    interaction   = satisfied, or fooled: not satisfied, with b = scale * clickbait

`scale` makes the asked-for share of false positives; clickbait is shown more than it deserves.
Users stop when they have had enough: activities are spread (gamma), from 5 interactions (fewer
where users run out of items) to half of all items.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tfrec_feedback.data.interactions import Interactions
from tfrec_feedback.data.manifest import Report

_NUM_FACTORS = 4  # Few enough to be learned from some 20 interactions a user.
_ZIPF = 0.6
_CHANCE = 0.3  # Share of exposures that do not look at popularity.
_FEWEST = 5
_SPARE = 2.0  # Exposures drawn for every one that is needed on average.
_CHUNK = 1_000_000  # Exposures held at once.
_FRACTIONS = (0.8, 0.9)  # Up to where train and validation reach.

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class _World:
    """U users and I items; a lower item number is shown more."""

    taste: Floats  # [U, K]
    factors: Floats  # [I, K]
    quality: Floats  # [I]
    clickbait: Floats  # [I], in [0, 1]
    item_ids: Ints  # [I], so that ids do not say how popular an item is


def simulate_interactions(
    num_users: int = 1000,
    num_items: int = 500,
    interactions_per_user: float = 20.0,
    false_positive_share: float = 0.2,
    seed: int = 0,
) -> Interactions:
    """Simulates interactions with false positives: clicks on what did not satisfy.

    A tenth of the interactions is validation and a tenth test (`test_noisy`, and `test` without
    false positives); the others, and the first of every user, are train. 100,000 users, as many
    items and 2 million interactions take some seconds and a few hundred MB.

    Args:
        num_users: U.
        num_items: I.
        interactions_per_user: mean, of all splits together; about as many where there are many
            more items than that, fewer where users run out of items they like.
        false_positive_share: expected share of false positives among interactions.
        seed: equal seeds and arguments give equal interactions.

    Returns:
        The interactions; ids from 1.

    Raises:
        ValueError: for numbers that are not positive, items too few for the interactions, and a
            share that is not in [0, 0.5].

    Example:
        >>> source = simulate_interactions(num_users=50, num_items=100, seed=7)
        >>> list(source.splits)
        ['train', 'validation', 'validation_clean', 'test', 'test_noisy']
        >>> bool(source.splits["test"]["clean"].all())
        True
    """
    settings = {
        "num_users": num_users,
        "num_items": num_items,
        "interactions_per_user": interactions_per_user,
        "false_positive_share": false_positive_share,
        "seed": seed,
    }
    if min(num_users, num_items, interactions_per_user) <= 0:
        raise ValueError(f"Numbers of users, items and interactions must be positive: {settings}.")
    if interactions_per_user > num_items / 4:
        raise ValueError(
            f"interactions_per_user must be at most a quarter of the items, got "
            f"{interactions_per_user} for num_items = {num_items}."
        )
    if not 0 <= false_positive_share <= 0.5:
        raise ValueError(f"false_positive_share must be in [0, 0.5], got {false_positive_share}.")
    rng = np.random.default_rng(seed)
    world = _make_world(rng, num_users, num_items)
    spread = rng.gamma(1.5, max(interactions_per_user - _FEWEST, 0.0) / 1.5, size=num_users)
    wanted = np.round(min(_FEWEST, interactions_per_user) + spread).astype(np.int64)
    wanted = np.clip(wanted, 1, max(num_items // 2, 1))
    frame = _interact(rng, world, wanted, false_positive_share)
    return Interactions(
        "simulated-interactions", _split(rng, frame), Report(rows=len(frame)), settings=settings
    )


def _make_world(rng: np.random.Generator, num_users: int, num_items: int) -> _World:
    clickbait, quality = rng.beta(0.6, 1.8, size=num_items), rng.normal(size=num_items)
    appeal = 0.5 * quality + 2.0 * clickbait + rng.normal(size=num_items)
    shown_most_first = np.argsort(-appeal)
    factors = rng.standard_normal((num_items, _NUM_FACTORS), np.float32)
    return _World(
        taste=rng.standard_normal((num_users, _NUM_FACTORS), np.float32),
        factors=factors / np.float32(_NUM_FACTORS**0.5),
        quality=quality[shown_most_first].astype(np.float32),
        clickbait=clickbait[shown_most_first].astype(np.float32),
        item_ids=rng.permutation(num_items).astype(np.int64) + 1,
    )


def _expose(rng: np.random.Generator, num_items: int, size: int) -> Ints:
    """Draws items: by popularity, whose distribution inverts in closed form, or by chance."""
    power = np.where(rng.random(size) < _CHANCE, 1.0, 1.0 / (1.0 - _ZIPF))
    return (num_items * rng.random(size) ** power).astype(np.int64)


def _preference(world: _World, user: Ints, item: Ints) -> Floats:
    match = np.einsum("nk,nk->n", world.taste[user], world.factors[item])
    return 1.0 / (1.0 + np.exp(1.5 - 2.5 * match - 0.6 * world.quality[item]))


def _calibrate(rng: np.random.Generator, world: _World, share: float) -> tuple[float, float]:
    """Returns the scale that makes the share, and how many exposures end in an interaction."""
    size = 100_000
    user = rng.integers(len(world.taste), size=size)
    item = _expose(rng, len(world.factors), size)
    preference = _preference(world, user, item)
    satisfied, clickbait = preference.mean(), world.clickbait[item]
    low, high = 0.0, 1e4
    for _ in range(50):  # Halving: a probability cannot exceed 1, so there is no closed form.
        scale = (low + high) / 2
        fooled = ((1 - preference) * np.minimum(scale * clickbait, 1)).mean()
        enough = fooled * (1 - share) > satisfied * share
        low, high = (low, scale) if enough else (scale, high)
    return low, float(satisfied + fooled)


def _interact(rng: np.random.Generator, world: _World, wanted: Ints, share: float) -> pd.DataFrame:
    """Exposes users, some at a time, until they have what they wanted."""
    scale, rate = _calibrate(rng, world, share)
    exposures = np.ceil(_SPARE * wanted / rate).astype(np.int64)
    chunk = (exposures.cumsum() - 1) // _CHUNK
    parts = []
    for users in np.split(np.arange(len(wanted)), np.flatnonzero(np.diff(chunk)) + 1):
        user = np.repeat(users, exposures[users])
        item = _expose(rng, len(world.factors), len(user))
        satisfied = rng.random(len(user)) < _preference(world, user, item)
        fooled = rng.random(len(user)) < scale * world.clickbait[item]
        taken = np.flatnonzero(satisfied | fooled)
        # What has been taken is not taken again.
        _, first = np.unique(user[taken] * len(world.factors) + item[taken], return_index=True)
        taken = taken[np.sort(first)]
        counts = np.bincount(user[taken] - users[0], minlength=len(users))
        number = np.arange(len(taken)) - np.repeat(counts.cumsum() - counts, counts)
        kept = number < wanted[user[taken]]
        taken, number = taken[kept], number[kept]
        parts.append((user[taken] + 1, world.item_ids[item[taken]], satisfied[taken], number))
    names = ("user", "item", "clean", "number")
    columns = zip(names, zip(*parts, strict=True), strict=True)
    return pd.DataFrame({name: np.concatenate(values) for name, values in columns})


def _split(rng: np.random.Generator, frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    number = frame.pop("number").to_numpy()
    place = np.searchsorted(_FRACTIONS, rng.random(len(frame)), side="right")
    place[number == 0] = 0  # Nobody is without a train interaction.
    train, validation, test = (frame[place == n].reset_index(drop=True) for n in range(3))
    return {
        "train": train,
        "validation": validation,
        "validation_clean": validation[validation["clean"]].reset_index(drop=True),
        "test": test[test["clean"]].reset_index(drop=True),
        "test_noisy": test,
    }
