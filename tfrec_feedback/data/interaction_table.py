"""Prepared interactions in memory: arrays of indices, and what is known of every user."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tfrec_feedback.data.interactions import ITEM, USER
from tfrec_feedback.data.manifest import Manifest, ManifestError
from tfrec_feedback.schema import suggest

Indices = NDArray[np.int32]


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """The interactions of a split, in the order of its file.

    Attributes:
        users: int32 `[N]`, indices of users.
        items: int32 `[N]`, indices of items.
        clean: bool `[N]`, False where the interaction is known to be a false positive.
    """

    users: Indices
    items: Indices
    clean: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.users)


@dataclasses.dataclass(frozen=True, eq=False)
class ItemLists:
    """A list of items for every user, without padding (CSR).

    Attributes:
        offsets: int64 `[U + 1]`, where each user's list begins; the last is the total.
        items: int32, the lists one after another, each sorted.
        clean: bool like `items`; False where the pair is known to be a false positive.
    """

    offsets: NDArray[np.int64]
    items: Indices
    clean: NDArray[np.bool_]

    def of(self, user: int) -> Indices:
        """Returns one user's items."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Length of every list, `[U]`."""
        return np.diff(self.offsets)


@dataclasses.dataclass(frozen=True, eq=False)
class InteractionTable:
    """All splits of a data set, and the train interactions by user.

    Users and items are indices: the line numbers of the schema's vocabularies.

    Args:
        splits: interactions by name of the split; `train` is needed.
        num_users: U, size of the catalogue of users.
        num_items: I, size of the catalogue of items.

    Attributes:
        positives: the train items of every user.
        activity: train interactions of every user, `[U]`.
        popularity: train interactions of every item, `[I]`.

    Raises:
        ValueError: when a user has a train interaction with every item: there is nothing to draw
            his negatives from. Also for indices outside the catalogue.

    Example:
        >>> pairs = Pairs(np.int32([1, 0, 1]), np.int32([2, 0, 1]), np.array([True, True, False]))
        >>> table = InteractionTable({"train": pairs}, num_users=2, num_items=4)
        >>> table.positives.of(1), table.popularity
        (array([1, 2], dtype=int32), array([1, 1, 1, 0]))
    """

    splits: Mapping[str, Pairs]
    num_users: int
    num_items: int
    positives: ItemLists = dataclasses.field(init=False)
    activity: NDArray[np.int64] = dataclasses.field(init=False)
    popularity: NDArray[np.int64] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        for name, pairs in self.splits.items():
            for what, values, size in (
                ("user", pairs.users, self.num_users),
                ("item", pairs.items, self.num_items),
            ):
                if len(values) and not 0 <= values.min() <= values.max() < size:
                    raise ValueError(
                        f"Split {name!r} has {what} indices outside [0, {size}): the vocabulary "
                        "and the file do not belong together."
                    )
        positives = self.lists("train")
        full = np.flatnonzero(positives.lengths >= self.num_items)
        if len(full):
            raise ValueError(
                f"{len(full)} users (index {full[0]}) have a train interaction with each of the "
                f"{self.num_items} items, so no negative can be drawn for them. Leave them out."
            )
        popularity = np.bincount(self.split("train").items, minlength=self.num_items)
        object.__setattr__(self, "positives", positives)
        object.__setattr__(self, "activity", positives.lengths)
        object.__setattr__(self, "popularity", popularity)

    def split(self, name: str) -> Pairs:
        """Returns the interactions of a split, or raises naming those there are."""
        if name not in self.splits:
            raise ValueError(
                f"Unknown split {name!r}; the interactions have {list(self.splits)}."
                f"{suggest(name, self.splits)}"
            )
        return self.splits[name]

    def lists(self, *names: str, without: ItemLists | None = None) -> ItemLists:
        """Returns every user's distinct items of some splits together, sorted.

        Args:
            *names: the splits; none give empty lists.
            without: leaves out these items of the same user.
        """
        keys, clean = self._keys(names)
        if without is not None:
            excluded = np.repeat(np.arange(self.num_users), without.lengths) * self.num_items
            kept = ~np.isin(keys, excluded + without.items)
            keys, clean = keys[kept], clean[kept]
        users, items = np.divmod(keys, self.num_items)
        offsets = np.zeros(self.num_users + 1, np.int64)
        np.cumsum(np.bincount(users, minlength=self.num_users), out=offsets[1:])
        return ItemLists(offsets, items.astype(np.int32), clean)

    def _keys(self, names: Iterable[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Returns `user * I + item` of distinct pairs, sorted, and whether they are clean."""
        chosen = [self.split(name) for name in names]
        if not chosen:
            return np.zeros(0, np.int64), np.zeros(0, bool)
        users = np.concatenate([pairs.users for pairs in chosen]).astype(np.int64)
        items = np.concatenate([pairs.items for pairs in chosen])
        keys, first = np.unique(users * self.num_items + items, return_index=True)
        return keys, np.concatenate([pairs.clean for pairs in chosen])[first]


def load_interactions(manifest: Manifest) -> InteractionTable:
    """Reads a prepared folder of interactions into memory.

    Args:
        manifest: of the folder, from `load_manifest`.

    Raises:
        ManifestError: when the folder holds requests, or is not as its manifest says.
        ValueError: see `InteractionTable`.

    Example:
        >>> table = load_interactions(load_manifest("data/ml-100k"))  # doctest: +SKIP
        >>> table.num_users, table.num_items  # doctest: +SKIP
        (943, 1611)
    """
    manifest.require("interactions")
    schema = manifest.schema()
    splits = {}
    for name, split in manifest.splits.items():
        parts = [_read(path) for path in manifest.shard_paths(name)]
        columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        if len(columns["user"]) != split.requests:
            raise ManifestError(
                f"Split {name!r} of {manifest.directory} has {len(columns['user'])} rows; the "
                f"manifest says {split.requests}. Prepare the data again with `--overwrite`."
            )
        splits[name] = Pairs(columns["user"], columns["item"], columns["clean"])
    sizes = (schema.feature(name).encoding.size for name in (USER, ITEM))
    return InteractionTable(splits, *sizes)


def _read(path: Path) -> dict[str, NDArray]:
    table = pq.read_table(path, columns=["user", "item", "clean"])
    return {name: table.column(name).to_numpy() for name in table.column_names}
