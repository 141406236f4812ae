"""The pictures of `pipelines.visualize`: numpy arrays in, matplotlib figures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from tfrec_feedback.interests import READS_ALIKE, Interests, mean_cosine

PAIRS = (("click", "dislike"), ("unclick", "like"))
"""Implicit feedback and the explicit feedback it is purified of."""

MOST_POINTS = 600
"""Points a t-SNE is given: its time grows faster than their number."""

_FEWEST_POINTS = 4

# Okabe and Ito's colours, which colour-blind readers can tell apart.
_COLOURS = {
    "click": "#0072B2",
    "unclick": "#E69F00",
    "like": "#009E73",
    "dislike": "#D55E00",
}
_OTHER = "#555555"
_USER_COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#D55E00"),
    *("#CC79A7", "#56B4E9", "#555555", "#B8A900"),
)


class NothingToDrawError(ValueError):
    """A picture cannot be drawn from what there is; the message says why."""


def purification(interests: Interests, seed: int = 0) -> Figure:
    """Draws implicit and explicit feedback before and after purification: the paper's figure 3.

    Args:
        interests: of a model that purifies.
        seed: of the projection and of which requests are shown.

    Raises:
        NothingToDrawError: when the model does not purify, or no user has both histories.
    """
    purified = [
        pair
        for pair in PAIRS
        if set(pair) <= set(interests.pooled)
        and not np.array_equal(interests.pooled[pair[0]], interests.short_term[pair[0]])
    ]
    if not purified:
        raise NothingToDrawError("the model does not purify, or no user has opposite histories")
    both = {
        pair: np.flatnonzero((interests.length[pair[0]] > 0) & (interests.length[pair[1]] > 0))
        for pair in purified
    }
    drawn = [pair for pair in purified if len(both[pair]) >= _FEWEST_POINTS]
    if not drawn:
        counts = {f"{a} and {b}": len(both[a, b]) for a, b in purified}
        raise NothingToDrawError(f"too few requests have both histories: {counts}")
    figure, axes = _panels(len(drawn), 2, "Purification takes explicit feedback out of implicit")
    for row, (implicit, explicit) in zip(axes, drawn, strict=True):
        kept = _some(both[implicit, explicit], MOST_POINTS // 3, seed)
        before, after = interests.pooled[implicit][kept], interests.short_term[implicit][kept]
        other = interests.pooled[explicit][kept]
        points = np.split(tsne(_units(np.concatenate([before, after, other])), seed), 3)
        for ax, when, vectors, shown in zip(
            row, ("before", "after"), (before, after), points[:2], strict=True
        ):
            along = np.abs(np.sum(_units(vectors) * _units(other), axis=1)).mean()
            ax.set_title(
                f"{when}, {len(kept)} requests: mean |cosine| of {implicit} and {explicit} "
                f"{along:.2f}",
                fontsize=11,
            )
            _scatter(ax, {implicit: shown, explicit: points[2]}, _COLOURS)
        _same_limits(row)
        for ax, shown in zip(row, points[:2], strict=True):
            _name(ax, {implicit: shown, explicit: points[2]}, _COLOURS)
    return figure


def long_term(interests: Interests, num_users: int = 8, seed: int = 0) -> Figure:
    """Draws what the memories say of a few users at several times: the paper's figure 4.

    Args:
        interests: of a model with a memory.
        num_users: the users with most requests; at most 8.
        seed: of the projection.

    Raises:
        NothingToDrawError: without a memory, or when no two users come back.
    """
    if not interests.read:
        raise NothingToDrawError("the model has no memory")
    users, counts = np.unique(interests.users, return_counts=True)
    order = np.argsort(-counts, kind="stable")[: min(num_users, len(_USER_COLOURS))]
    chosen = [users[i] for i in order if counts[i] > 1]
    if len(chosen) < 2:
        raise NothingToDrawError("fewer than two users have several requests")
    share = MOST_POINTS // len(chosen)
    rows = {user: np.flatnonzero(interests.users == user)[:share] for user in chosen}
    kept = np.concatenate(list(rows.values()))
    ends = np.cumsum([len(indices) for indices in rows.values()])[:-1]
    colours = dict(zip(chosen, _USER_COLOURS, strict=False))
    title = "Long-term interests: a user's reads lie together where the memory tells users apart"
    count = len(interests.read)
    figure, axes = _panels(-(-count // 2), min(count, 2), title)
    for ax in axes.flat[count:]:
        ax.set_visible(False)
    for ax, (name, reads) in zip(axes.flat, interests.read.items(), strict=False):
        alike = mean_cosine(reads[kept])
        ax.set_title(f"memory of {name}: mean cosine of reads {alike:.4f}")
        if not _apart(reads[kept]):
            _one_point(ax, "all users read the same vector")
            continue
        points = np.split(tsne(_units(reads[kept]), seed), ends)
        groups = dict(zip(chosen, points, strict=True))
        _scatter(ax, groups, colours)
        _name(ax, groups, colours)
    return figure


def over_training(snapshots: Mapping[int, Interests], seed: int = 0) -> Figure:
    """Draws where the interests of each feedback lie during training: the paper's figure 5.

    Args:
        snapshots: interests by step.
        seed: of the projection and of which requests are shown.

    Raises:
        NothingToDrawError: without snapshots, or when nobody in them has a history.
    """
    if not snapshots:
        raise NothingToDrawError("the run has no snapshots (train.snapshots; memory models only)")
    title = "Interests over training: whether the feedbacks lie apart, and users within them"
    figure, axes = _panels(2, len(snapshots), title, width=3.6)
    for column, (step, interests) in zip(axes.T, snapshots.items(), strict=True):
        kept = {
            name: _some(np.flatnonzero(length > 0), MOST_POINTS // len(interests.length), seed)
            for name, length in interests.length.items()
        }
        kept = {name: indices for name, indices in kept.items() if len(indices) > 1}
        if sum(map(len, kept.values())) < _FEWEST_POINTS:
            raise NothingToDrawError("too few requests of the snapshots have a history")
        for ax, kind, vectors in zip(
            column,
            ("short-term", "long-term"),
            (interests.short_term, interests.read),
            strict=True,
        ):
            rows = {name: _units(vectors[name][indices]) for name, indices in kept.items()}
            rows = {name: x if _apart(x) else x[:1] for name, x in rows.items()}
            ends = np.cumsum([len(x) for x in rows.values()])[:-1]
            points = np.split(tsne(np.concatenate(list(rows.values())), seed), ends)
            groups = dict(zip(rows, points, strict=True))
            ax.set_title(f"{kind}, step {step:,}")
            _scatter(ax, groups, _COLOURS)
            _name(ax, groups, _COLOURS)
    return figure


def sensitivity(values: Mapping[tuple[int, int], Sequence[float]]) -> Figure:
    """Draws test AUC by the size of the memories: the paper's figure 2.

    Args:
        values: click AUCs, one a seed, by `(memory_size, word_size)`.

    Raises:
        NothingToDrawError: without values.
    """
    if not values:
        raise NothingToDrawError("the grid holds no finished and evaluated run with a memory")
    slots, words = (sorted({key[axis] for key in values}) for axis in (0, 1))
    means = np.full((len(words), len(slots)), np.nan)
    for (size, width), found in values.items():
        means[words.index(width), slots.index(size)] = np.mean(found)
    best = np.nanmax(means)
    figure = Figure(figsize=(2.5 + 1.4 * len(slots), 2.2 + 0.9 * len(words)), layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(means, cmap="cividis", origin="lower", aspect="auto")
    middle = (np.nanmin(means) + best) / 2
    for (row, column), mean in np.ndenumerate(means):
        if np.isfinite(mean):
            seeds = len(values[slots[column], words[row]])
            note = f"{mean:.4f}" + (f"\n{seeds} seeds" if seeds > 1 else "")
            weight = "bold" if mean == best else "normal"
            colour = "black" if mean > middle else "white"
            ax.text(column, row, note, ha="center", va="center", color=colour, fontweight=weight)
    ax.set_xticks(range(len(slots)), [str(size) for size in slots])
    ax.set_yticks(range(len(words)), [str(width) for width in words])
    ax.set_xlabel("memory slots M")
    ax.set_ylabel("word size W")
    ax.set_title("Click AUC by size of the memories (best in bold)")
    figure.colorbar(image, label="test click AUC, mean over seeds")
    return figure


def tsne(vectors: np.ndarray, seed: int) -> np.ndarray:
    """Lays vectors out in the plane, neighbours beside each other: `[K, D]` to `[K, 2]`.

    Fewer than ten are laid out by PCA; those that are all the same stay in one place.
    """
    if len(vectors) < 2 or np.ptp(vectors, axis=0).max() < 1e-6:
        return np.zeros((len(vectors), 2))
    start = PCA(2, random_state=seed).fit_transform(vectors)
    if len(vectors) < 10:
        return start
    start *= 1e-4 / start[:, 0].std()
    near = min(30.0, (len(vectors) - 1) / 3)
    # Its threads wait for each other in a loop: on a busy machine two are slower than one.
    with threadpool_limits(1):
        return TSNE(2, perplexity=near, init=start, random_state=seed).fit_transform(vectors)


def _panels(rows: int, columns: int, title: str, width: float = 5.4) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(width * columns, 0.8 * min(width, 5.0) * rows + 0.6))
    figure.set_layout_engine("constrained")
    figure.suptitle(title, fontsize=13)
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    for ax in axes[-1]:
        ax.set_xlabel("t-SNE 1")
    for ax in axes[:, 0]:
        ax.set_ylabel("t-SNE 2")
    return figure, axes


def _scatter(ax: Axes, groups: Mapping[str, np.ndarray], colours: Mapping[str, str]) -> None:
    for name, points in groups.items():
        size = 12 if len(points) > 1 else 80
        colour = colours.get(name, _OTHER)
        ax.scatter(points[:, 0], points[:, 1], s=size, alpha=0.55, linewidths=0, color=colour)
    ax.margins(0.1 if max(map(len, groups.values())) > 1 else 0.25)


def _name(ax: Axes, groups: Mapping[str, np.ndarray], colours: Mapping[str, str]) -> None:
    """Names each group in its middle; names too close are moved apart."""
    low, high = np.transpose([ax.get_xlim(), ax.get_ylim()])
    middles = {
        name: (np.median(points, axis=0) - low) / (high - low) for name, points in groups.items()
    }
    placed: list[tuple[float, float]] = []
    for name, middle in sorted(middles.items(), key=lambda item: float(item[1][1])):
        single = len(groups[name]) == 1
        x, y = float(middle[0]), float(middle[1]) + (0.07 if single else 0.0)
        while any(abs(x - other) < 0.22 and abs(y - at) < 0.07 for other, at in placed):
            y += 0.01
        placed.append((x, y))
        ax.text(
            x,
            y,
            name,
            transform=ax.transAxes,
            ha="center",
            va="center",
            fontsize=10,
            fontweight="bold",
            color=colours.get(name, _OTHER),
            path_effects=[withStroke(linewidth=3, foreground="white")],
            in_layout=False,
        )
    if any(len(points) == 1 for points in groups.values()):
        note = "large dot: all users have this one vector"
        ax.text(0.5, 0.03, note, transform=ax.transAxes, ha="center", color=_OTHER)


def _apart(vectors: np.ndarray) -> bool:
    """Returns whether vectors differ: else a t-SNE blows rounding errors up to clusters."""
    return mean_cosine(vectors) <= READS_ALIKE


def _one_point(ax: Axes, note: str) -> None:
    ax.scatter([0], [0], s=80, color=_OTHER)
    ax.text(0, 0.006, note, ha="center", color=_OTHER, fontsize=11, fontweight="bold")


def _same_limits(axes: Sequence[Axes]) -> None:
    left, right = zip(*(ax.get_xlim() for ax in axes), strict=True)
    bottom, top = zip(*(ax.get_ylim() for ax in axes), strict=True)
    for ax in axes:
        ax.set(xlim=(min(left), max(right)), ylim=(min(bottom), max(top)))


def _some(indices: np.ndarray, most: int, seed: int) -> np.ndarray:
    if len(indices) <= most:
        return indices
    return np.sort(np.random.default_rng(seed).choice(indices, most, replace=False))


def _units(vectors: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norms, 1e-12)
