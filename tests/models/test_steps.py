import numpy as np
import tensorflow as tf

from tfrec_feedback.models.steps import add_gradients, split_requests


def test_parts_are_whole_requests_of_nearly_equal_size():
    batch = ({"rows": tf.reshape(tf.range(10), [5, 2])}, tf.range(5))
    parts = split_requests(batch, 2)
    assert [part[1].numpy().tolist() for part in parts] == [[0, 1], [2, 3, 4]]
    np.testing.assert_array_equal(parts[1][0]["rows"], [[4, 5], [6, 7], [8, 9]])
    assert split_requests(batch, 1) == [batch]


def test_more_parts_than_requests_leaves_some_empty():
    sizes = [len(part) for part in split_requests(tf.range(2), 3)]
    assert sorted(sizes) == [0, 1, 1]


def test_gradients_add_and_those_of_rows_stay_sparse():
    rows = tf.IndexedSlices(tf.ones([2, 3]), tf.constant([0, 4]), tf.constant([5, 3]))
    dense, sparse, missing = add_gradients(
        [tf.ones([2]), rows, None], [tf.ones([2]), rows, tf.ones([1])]
    )
    np.testing.assert_array_equal(dense, [2.0, 2.0])
    assert isinstance(sparse, tf.IndexedSlices)
    whole = tf.convert_to_tensor(sparse).numpy()
    np.testing.assert_array_equal(whole, 2 * tf.convert_to_tensor(rows).numpy())
    np.testing.assert_array_equal(missing, [1.0])
