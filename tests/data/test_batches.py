import numpy as np
import pytest

from tfrec_feedback.data.batches import epoch_order, numbered_batches


@pytest.mark.parametrize(
    ("size", "batch_size", "skip", "starts"),
    [
        (7, 3, 0, [0, 3, 6]),
        (6, 3, 0, [0, 3]),
        (7, 3, 1, [3, 6]),
        (7, 3, 4, []),
        (0, 3, 0, []),
    ],
)
def test_batches_are_made_from_where_they_begin(size, batch_size, skip, starts):
    made = numbered_batches(lambda start: start, size, batch_size, skip)
    assert [int(start) for start in made] == starts
    assert len(made) == len(starts)


def test_an_order_holds_everything_once_and_is_that_of_its_epoch():
    first = epoch_order(100, seed=1, epoch=0)
    assert sorted(first) == list(range(100))
    np.testing.assert_array_equal(first, epoch_order(100, seed=1, epoch=0))
    for seed, epoch in ((1, 1), (0, 1), (2, 0)):
        assert (first != epoch_order(100, seed, epoch)).any()
