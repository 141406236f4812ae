"""A simulated feedback log whose truth is known, for tests, examples and studies of noise.

Users have a stable taste and a fast interest that drifts and follows their clicks; items have
factors that category, author and tags reveal. A recommender that knows the stable taste roughly
shows several candidates a request. What happens to an exposure, given what both are like then:

    preference p  = sigmoid(taste . item + fast interest + quality - annoyance)
    satisfied     ~ Bernoulli(p)          would the user be glad of it? (latent)
    attended      ~ Bernoulli(a)          falls with the position
    click         = attended and: satisfied, with 0.85; not satisfied, with b (clickbait)
    like          = click and satisfied, with 0.15
    dislike       = attended and not satisfied, with g (mismatch, aversion, annoyance, clickbait)

so P(click) = a (0.85 p + b (1 - p)) and P(dislike) = a g (1 - p) are exact. A dislike annoys: its
category and author are clicked less and disliked more when they are shown again. Like and dislike
exclude each other; a clickbait click may be followed by a dislike.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
from numpy.typing import NDArray

_START_MS = 1_704_067_200_000  # Monday 2024-01-01, 00:00 UTC.
_HOUR_MS = 3_600_000
_NUM_FACTORS = 8
_NUM_TAGS = 40
_MAX_SESSION = 12  # Requests of a user and day; with gaps of at most 18 minutes, inside the day.
_POOL = 32  # Popular items the recommender considers a request.
_AGE_BANDS = np.array(["18-24", "25-34", "35-49", "50+"])
_ACTIVITIES = np.array(["low", "medium", "high"])
_ACTIVITY_RATES = np.array([0.4, 1.0, 2.2])
_ACTIVITY_SHARES = np.array([0.4, 0.4, 0.2])  # Mean rate 1.

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Simulation:
    """A log and what is true of it, row by row.

    Attributes:
        events: one row an exposure, sorted by time: `user_id`, `item_id` (both from 1),
            `timestamp` (ms, UTC), `click`, `like`, `dislike` (0/1), `request_id`, `context_hour`,
            `context_weekday` (Monday 0), `user_age_band`, `user_activity`, `item_category`,
            `item_author_id`, `item_duration` (seconds) and `item_tags` (a list of strings, the
            same list object in every row of an item).
        truth: same index. `click_probability` and `dislike_probability` given everything, so their
            AUC is the best reachable; `preference` = P(satisfied); `satisfied`; `false_click`,
            clicked but not satisfied; `missed`, satisfied but not clicked; `clickbait` strength of
            the item in [0, 1]; `position` in the request from 0.
    """

    events: pd.DataFrame
    truth: pd.DataFrame


@dataclasses.dataclass(frozen=True, eq=False)
class _Items:
    """What I items are like, all `[I]` but `factors [I, K]`."""

    factors: Array
    category: Ints
    author: Ints
    duration: Array
    quality: Array
    clickbait: Array
    popularity: Array
    tags: NDArray[np.object_]


@dataclasses.dataclass(eq=False)
class _Users:
    """What U users are like; the last three change with what they see."""

    taste: Array  # [U, K]
    averse: Array  # [U, categories], 1 where the user dislikes the category from the start
    grumpiness: Array  # [U] readiness to press dislike
    age_band: Ints
    activity: Ints
    interest: Array  # [U, categories], fast
    category_annoyance: Array  # [U, categories]
    author_annoyance: Array  # [U, authors]


def simulate(
    num_users: int = 2000,
    num_items: int = 1000,
    num_days: int = 14,
    requests_per_user_day: float = 0.9,
    candidates_per_request: tuple[int, int] = (4, 10),
    num_categories: int = 20,
    seed: int = 0,
) -> Simulation:
    """Simulates a log of exposures with clicks, likes and dislikes.

    About a third of the exposures are clicked, 2 to 5 % liked and 0.2 to 1 % disliked (more where
    users see the same few items over and over). The default makes about 170,000 exposures in about
    a second.

    Args:
        num_users: U.
        num_items: I, at least the most candidates of a request. There is an author to 5 items.
        num_days: days of the log, from Monday 2024-01-01.
        requests_per_user_day: mean; they come in sessions, one a user and day, or none.
        candidates_per_request: fewest and most candidates of a request.
        num_categories: item categories.
        seed: equal seeds and arguments give equal logs.

    Raises:
        ValueError: for a count below 1, or candidates that do not fit the items.

    Example:
        >>> log = simulate(num_users=50, num_items=100, num_days=3, seed=7)
        >>> len(log.events) == len(log.truth), log.events.timestamp.is_monotonic_increasing
        (True, True)
    """
    fewest, most = candidates_per_request
    counts = {"users": num_users, "days": num_days, "categories": num_categories, "fewest": fewest}
    if min(counts.values()) < 1 or requests_per_user_day <= 0:
        raise ValueError(
            f"Numbers of users, days, categories, candidates and requests must be positive, got "
            f"{counts} and requests_per_user_day = {requests_per_user_day}."
        )
    if not fewest <= most <= num_items:
        raise ValueError(
            f"candidates_per_request must be (fewest, most) with fewest <= most <= num_items = "
            f"{num_items}, got {candidates_per_request}."
        )
    rng = np.random.default_rng(seed)
    categories = rng.normal(size=(num_categories, _NUM_FACTORS))
    items = _make_items(rng, num_items, categories)
    users = _make_users(rng, num_users, num_categories, int(items.author.max()) + 1)
    rounds: list[dict[str, NDArray]] = []
    previous = np.full(num_users, float(_START_MS))
    num_requests = 0
    for day in range(num_days):
        times = _session_times(rng, users.activity, requests_per_user_day, day)
        for column in range(_MAX_SESSION):
            who = np.flatnonzero(times[:, column] >= 0)
            if not len(who):
                break
            when = times[who, column]
            _drift(rng, users, who, when - previous[who])
            previous[who] = when
            shown = _expose(rng, items, users, who, most)
            size = rng.integers(fewest, most + 1, size=len(who))
            row, position = np.nonzero(np.arange(most) < size[:, None])
            outcome = _react(rng, items, users, who[row], shown[row, position], position, when[row])
            outcome["request"] = row + num_requests
            rounds.append(outcome)
            num_requests += len(who)
    if not rounds:
        raise ValueError("No user made a request; raise users, days or requests_per_user_day.")
    columns = {name: np.concatenate([r[name] for r in rounds]) for name in rounds[0]}
    order = np.lexsort((columns["position"], columns["request"], columns["timestamp"]))
    return _tables({name: column[order] for name, column in columns.items()}, items, users)


def _make_items(rng: np.random.Generator, size: int, categories: Array) -> _Items:
    num_authors = max(size // 5, 1)
    home = rng.integers(len(categories), size=num_authors)  # Authors mostly keep to one category.
    author_factors = rng.normal(size=(num_authors, _NUM_FACTORS))
    author = rng.integers(num_authors, size=size)
    stray = rng.random(size) < 0.2
    category = np.where(stray, rng.integers(len(categories), size=size), home[author])
    noise = rng.normal(size=(size, _NUM_FACTORS))
    factors = 0.7 * categories[category] + 0.5 * author_factors[author] + 0.5 * noise
    quality, clickbait = rng.normal(size=size), rng.beta(0.6, 1.8, size=size)
    appeal = 0.5 * quality + 2.0 * clickbait + rng.normal(size=size)
    popularity = 1.0 / (1.0 + np.argsort(np.argsort(-appeal))) ** 0.7  # Zipf
    tag_fit = factors @ rng.normal(size=(_NUM_FACTORS, _NUM_TAGS)) + rng.gumbel(
        size=(size, _NUM_TAGS)
    )
    best = np.argsort(-tag_fit, axis=1)
    tags = np.empty(size, dtype=object)
    for index, count in enumerate(rng.integers(1, 5, size=size)):
        tags[index] = [f"tag_{tag}" for tag in best[index, :count]]
    duration = np.exp(rng.normal(3.5, 0.6, size=size) + 0.3 * categories[category, 0]).round(1)
    return _Items(
        factors, category, author, duration, quality, clickbait, popularity / popularity.sum(), tags
    )


def _make_users(
    rng: np.random.Generator, size: int, num_categories: int, num_authors: int
) -> _Users:
    age_band = rng.integers(len(_AGE_BANDS), size=size)
    centre = rng.normal(size=(len(_AGE_BANDS), _NUM_FACTORS))
    taste = 0.5 * centre[age_band] + 0.87 * rng.normal(size=(size, _NUM_FACTORS))
    return _Users(
        taste=taste,
        averse=(rng.random((size, num_categories)) < 0.08).astype(np.float64),
        grumpiness=rng.normal(size=size),
        age_band=age_band,
        activity=rng.choice(len(_ACTIVITIES), size=size, p=_ACTIVITY_SHARES),
        interest=0.8 * rng.normal(size=(size, num_categories)),
        category_annoyance=np.zeros((size, num_categories)),
        author_annoyance=np.zeros((size, num_authors)),
    )


def _session_times(rng: np.random.Generator, activity: Ints, mean: float, day: int) -> Ints:
    """Returns the times of a day's requests, ms `[U, _MAX_SESSION]`, -1 after a user's last."""
    size = len(activity)
    # Gamma-Poisson: most days no session at all, some days several requests.
    rate = mean * _ACTIVITY_RATES[activity] * rng.gamma(0.6, 1 / 0.6, size=size)
    count = np.minimum(rng.poisson(rate), _MAX_SESSION)
    start = np.clip(rng.normal(15.0, 5.0, size=size), 0.0, 20.0) * _HOUR_MS
    gaps = rng.integers(60_000, 18 * 60_000, size=(size, _MAX_SESSION))
    times = _START_MS + day * 24 * _HOUR_MS + start.astype(np.int64)[:, None] + gaps.cumsum(axis=1)
    return np.where(np.arange(_MAX_SESSION) < count[:, None], times, -1)


def _drift(rng: np.random.Generator, users: _Users, who: Ints, elapsed_ms: Array) -> None:
    """Lets interests drift (stationary, about a day) and annoyance fade (about ten days)."""
    days = (elapsed_ms / (24 * _HOUR_MS))[:, None]
    keep = np.exp(-days / 1.2)
    noise = rng.normal(size=(len(who), users.interest.shape[1]))
    users.interest[who] = keep * users.interest[who] + 0.8 * np.sqrt(1 - keep**2) * noise
    users.category_annoyance[who] *= np.exp(-days / 10)
    users.author_annoyance[who] *= np.exp(-days / 10)


def _expose(rng: np.random.Generator, items: _Items, users: _Users, who: Ints, most: int) -> Ints:
    """Returns distinct items `[len(who), most]`: popular or any, by a noisy match or by chance."""
    popular = rng.choice(len(items.popularity), size=(len(who), _POOL), p=items.popularity)
    start = rng.integers(len(items.popularity), size=(len(who), 1))
    window = (start + np.arange(most)) % len(items.popularity)
    uniform = rng.permutation(len(items.popularity))[window]  # Distinct: enough for any request.
    pool = np.sort(np.concatenate([popular, uniform], axis=1), axis=1)
    match = np.einsum("uk,upk->up", users.taste[who], items.factors[pool]) / np.sqrt(_NUM_FACTORS)
    explore = rng.random(pool.shape) < 0.3
    score = np.where(explore, 0.0, 1.2 * match) + rng.gumbel(size=pool.shape)
    score[:, 1:][pool[:, 1:] == pool[:, :-1]] = -np.inf
    best = np.argsort(-score, axis=1)[:, :most]
    return np.take_along_axis(pool, best, axis=1)


def _react(
    rng: np.random.Generator,
    items: _Items,
    users: _Users,
    user: Ints,
    item: Ints,
    position: Ints,
    timestamp: Ints,
) -> dict[str, NDArray]:
    """Draws what happens to each exposure `[n]`, and lets the users remember it."""
    category, author, clickbait = items.category[item], items.author[item], items.clickbait[item]
    match = (users.taste[user] * items.factors[item]).sum(axis=1) / np.sqrt(_NUM_FACTORS)
    averse = users.averse[user, category]
    annoyance = users.category_annoyance[user, category] + users.author_annoyance[user, author]
    annoyance = np.minimum(annoyance, 2.5)  # Bounded, or dislikes would breed dislikes.
    evening = (timestamp // _HOUR_MS) % 24 >= 18
    logit = (
        1.2 * match
        + 1.3 * users.interest[user, category]
        + 0.4 * items.quality[item]
        + 0.3 * evening * np.log(items.duration[item] / 33.0)
        - 1.5 * averse
        - annoyance
    )
    preference = _sigmoid(logit - 1.75)
    attention = 0.35 + 0.65 * 0.9**position
    bait = _sigmoid(4.0 * clickbait - 3.2)
    anger = _sigmoid(
        2.0 * averse + 1.5 * annoyance + 2.0 * clickbait + users.grumpiness[user] - match - 6.7
    )
    draws = rng.random((5, len(user)))
    satisfied, attended = draws[0] < preference, draws[1] < attention
    click = attended & (draws[2] < np.where(satisfied, 0.85, bait))
    dislike = attended & ~satisfied & (draws[3] < anger)
    np.add.at(users.interest, (user[click], category[click]), 0.5)
    np.minimum(users.interest, 2.5, out=users.interest)
    np.add.at(users.category_annoyance, (user[dislike], category[dislike]), 1.0)
    np.add.at(users.author_annoyance, (user[dislike], author[dislike]), 1.5)
    return {
        "user": user,
        "item": item,
        "position": position,
        "timestamp": timestamp,
        "click": click,
        "like": click & satisfied & (draws[4] < 0.15),
        "dislike": dislike,
        "satisfied": satisfied,
        "preference": preference,
        "click_probability": attention * (0.85 * preference + bait * (1 - preference)),
        "dislike_probability": attention * anger * (1 - preference),
    }


def _tables(columns: dict[str, NDArray], items: _Items, users: _Users) -> Simulation:
    """Returns the log and its truth from sorted columns."""
    user, item, time = columns["user"], columns["item"], columns["timestamp"]
    begins = np.diff(columns["request"], prepend=-1) != 0
    number = begins.cumsum() - 1
    names = np.array([f"request_{n}" for n in range(number[-1] + 1)], dtype=object)
    flags = {name: columns[name].astype(np.int64) for name in ("click", "like", "dislike")}
    satisfied, click = columns["satisfied"].astype(np.int64), flags["click"]
    events = {
        "user_id": user + 1,
        "item_id": item + 1,
        "timestamp": time,
        **flags,
        "request_id": names[number],
        "context_hour": (time // _HOUR_MS) % 24,
        "context_weekday": ((time - _START_MS) // (24 * _HOUR_MS)) % 7,
        "user_age_band": _AGE_BANDS[users.age_band][user].astype(object),
        "user_activity": _ACTIVITIES[users.activity][user].astype(object),
        "item_category": items.category[item],
        "item_author_id": items.author[item],
        "item_duration": items.duration[item],
        "item_tags": items.tags[item],
    }
    truth = {
        "preference": columns["preference"],
        "satisfied": satisfied,
        "false_click": click * (1 - satisfied),
        "missed": satisfied * (1 - click),
        "clickbait": items.clickbait[item],
        "click_probability": columns["click_probability"],
        "dislike_probability": columns["dislike_probability"],
        "position": columns["position"],
    }
    return Simulation(pd.DataFrame(events), pd.DataFrame(truth))


def _sigmoid(logit: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-logit))
