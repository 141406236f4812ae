"""Small interaction tables for tests."""

import numpy as np

from tfrec_feedback.data.interaction_table import InteractionTable, Pairs
from tfrec_feedback.data.interactions import HISTORY, interaction_schema
from tfrec_feedback.schema import Schema


def pairs(*rows: tuple[int, int], false: tuple[tuple[int, int], ...] = ()) -> Pairs:
    """Interactions of (user, item) indices; those in `false` are known false positives."""
    users, items = np.array(rows, np.int32).reshape(-1, 2).T
    return Pairs(users, items, np.array([row not in false for row in rows], bool))


def table_of(num_users: int, num_items: int, **splits: Pairs) -> InteractionTable:
    """A table of splits by name."""
    return InteractionTable(splits, num_users, num_items)


def schema_of(table: InteractionTable, history: bool = True) -> Schema:
    """The schema that the table's prepared folder would have, with its click history or not."""
    schema = interaction_schema(table.num_users, table.num_items, int(table.activity.max()))
    return schema if history else schema.without([HISTORY])


def random_table(num_users: int, num_items: int, share: float, seed: int) -> InteractionTable:
    """Train interactions at random; nobody has all items, and some users may have none."""
    rng = np.random.default_rng(seed)
    taken = rng.random((num_users, num_items)) < share
    taken[np.arange(num_users), rng.integers(num_items, size=num_users)] = False
    if not taken.any():
        taken[0, 0] = True
    users, items = np.nonzero(taken)
    order = rng.permutation(len(users))
    users, items = users[order].astype(np.int32), items[order].astype(np.int32)
    train = Pairs(users, items, rng.random(len(users)) < 0.7)
    return table_of(num_users, num_items, train=train)
