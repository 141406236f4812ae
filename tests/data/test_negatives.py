import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tests.data.tables import pairs, random_table, table_of
from tfrec_feedback.data.negatives import NegativeSampler


def sampler_of(table, seed=0, epoch=0):
    return NegativeSampler(table.positives, table.num_items, seed, epoch)


@given(st.integers(1, 6), st.integers(2, 12), st.floats(0, 1), st.integers(0, 10_000))
def test_every_unseen_item_has_an_equal_part_of_the_numbers(num_users, num_items, share, seed):
    table = random_table(num_users, num_items, share, seed)
    sampler = sampler_of(table)
    for user in range(num_users):
        unseen = sorted(set(range(num_items)) - set(table.positives.of(user).tolist()))
        edges = np.arange(len(unseen)) / len(unseen)
        for inside in (1e-9, 0.5 / len(unseen), 1 / len(unseen) - 1e-9):
            users = tf.fill([len(unseen)], user)
            picked = sampler.pick(users, tf.constant(edges + inside, tf.float64))
            assert picked.numpy().tolist() == unseen


def test_the_largest_number_below_1_picks_the_last_unseen_item():
    largest = np.nextafter(1.0, 0.0)
    for num_items in (3, 1000, 1 << 20, (1 << 31) - 1):
        table = table_of(2, num_items, train=pairs((0, 1), (1, num_items - 1)))
        picked = sampler_of(table).pick(tf.constant([0, 1]), tf.constant([largest] * 2, tf.float64))
        assert picked.numpy().tolist() == [num_items - 1, num_items - 2]


@pytest.mark.parametrize("start", [0, 1, 1000, 1 << 40])
def test_the_sequence_can_be_entered_at_any_counter(start):
    sampler = sampler_of(table_of(1, 9, train=pairs((0, 1))), seed=3)
    whole = sampler.uniform(tf.constant(start, tf.int64), 5000)
    for ahead, size in ((0, 7), (1, 2), (611, 3000), (2499, 2)):
        part = sampler.uniform(tf.constant(start + ahead, tf.int64), size)
        np.testing.assert_array_equal(part, whole[2 * ahead : 2 * ahead + size])
    assert len(np.unique(whole)) == 5000
    assert 0 <= whole.numpy().min() < 0.01 and 0.99 < whole.numpy().max() < 1


def test_seeds_and_epochs_have_sequences_of_their_own():
    table = table_of(1, 9, train=pairs((0, 1)))
    drawn = [sampler_of(table, *key).uniform(0, 4).numpy() for key in ((0, 0), (0, 1), (1, 0))]
    assert len(np.unique(drawn)) == 12
    np.testing.assert_array_equal(drawn[0], sampler_of(table).uniform(0, 4))
