import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.logs import real_data
from tests.data.tables import pairs, random_table, schema_of, table_of
from tfrec_feedback.data.interaction_dataset import (
    item_rows,
    load_interactions,
    pair_dataset,
    ranking_users,
    user_dataset,
)
from tfrec_feedback.data.interactions import prepare_interactions
from tfrec_feedback.data.sources import load_interaction_source
from tfrec_feedback.layers import FeatureEncoder
from tfrec_feedback.schema import Schema, SchemaError, Task


def numpy(batch):
    return tf.nest.map_structure(lambda tensor: tensor.numpy(), batch)


def read(dataset):
    return [numpy(batch) for batch in dataset]


def same(first, second):
    tf.nest.map_structure(np.testing.assert_array_equal, first, second)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A table and its schema, from a folder whose ids are not indices."""
    source = load_interaction_source("simulated-interactions", num_users=40, num_items=90, seed=2)
    manifest = prepare_interactions(source, tmp_path_factory.mktemp("interactions"))
    return load_interactions(manifest), manifest.schema()


def raw_request(schema, table, users, items=None):
    """The tensors that a client would send for these users and candidates, -1 where padded."""
    item_ids = np.array(schema.vocabulary("item_id"))
    items = np.zeros((len(users), 0), int) if items is None else items
    features = {
        "item_id": np.where(items >= 0, item_ids[items], 0),
        "num_candidates": (items >= 0).sum(axis=1),
    }
    if schema.context:
        features["user_id"] = np.array(schema.vocabulary("user_id"))[users]
    lists = [item_ids[table.positives.of(user)] for user in users]
    if schema.histories:
        padded = np.zeros((len(users), max(map(len, lists))), np.int64)
        for row, listed in zip(padded, lists, strict=True):
            row[: len(listed)] = listed
        features |= {"click_item_id": padded, "click_length": np.array([len(x) for x in lists])}
    wanted = {spec.name for spec in schema.inputs()}
    return {n: tf.constant(x, tf.int64) for n, x in features.items() if n in wanted}


def assert_encoded_like(encoder, raw, encoded):
    expected = encoder(raw)
    assert set(encoded) == set(expected)
    for name, tensor in expected.items():
        assert encoded[name].dtype == tensor.dtype.as_numpy_dtype, name
        np.testing.assert_array_equal(encoded[name], tensor, err_msg=name)


@pytest.mark.parametrize("left_out", [[], ["click"], ["user_id"], ["user_id", "click"]])
def test_pairs_are_encoded_like_raw_requests(prepared, left_out):
    table, schema = prepared
    schema = schema.without(left_out)
    encoder, history = FeatureEncoder(schema), bool(schema.histories)
    for encoded, labels in read(
        pair_dataset(table, schema, 128, num_negatives=3, history=history).take(3)
    ):
        raw = raw_request(schema, table, labels["user"], labels["item"])
        assert_encoded_like(encoder, raw, encoded)


def test_users_are_encoded_like_raw_requests_padding_included(prepared):
    table, schema = prepared
    encoder = FeatureEncoder(schema)
    for encoded, labels in read(user_dataset(table, schema, 16, num_negatives=2)):
        assert (labels["item"] == -1).any()
        raw = raw_request(schema, table, labels["user"], labels["item"])
        assert_encoded_like(encoder, raw, encoded)


@pytest.mark.parametrize("left_out", [[], ["click"]])
def test_users_to_rank_are_encoded_like_raw_requests_without_candidates(prepared, left_out):
    table, schema = prepared
    schema = schema.without(left_out)
    encoder = FeatureEncoder(schema)
    for encoded, known in read(ranking_users(table, "test", 16, schema)):
        assert encoded["candidate_rows"].shape == (len(known["user"]), 0, 1)
        assert_encoded_like(encoder, raw_request(schema, table, known["user"]), encoded)
    # All items as candidates have the rows of the catalogue.
    everything = raw_request(schema, table, [0], np.arange(table.num_items)[np.newaxis])
    rows = encoder(everything)["candidate_rows"][0, :, 0]
    np.testing.assert_array_equal(item_rows(table, schema), rows)


def test_a_history_longer_than_the_schema_s_is_cut_like_that_of_raw_requests(prepared):
    table, schema = prepared
    config = schema.to_dict()
    config["histories"][0]["max_length"] = 3
    short = Schema.from_dict(config, schema.directory)
    encoder = FeatureEncoder(short)
    for encoded, labels in read(pair_dataset(table, short, 64, history=True).take(2)):
        assert encoded["click_rows"].shape[1] == 3
        raw = raw_request(short, table, labels["user"], labels["item"])
        assert_encoded_like(encoder, raw, encoded)


def test_every_interaction_is_a_positive_once_an_epoch(prepared):
    table, schema = prepared
    train = table.split("train")
    batches = read(pair_dataset(table, schema, 100, num_negatives=2))
    found = [
        (user, items[0], false[0] == 0)
        for _, labels in batches
        for user, items, false in zip(
            labels["user"], labels["item"], labels["false_positive"], strict=True
        )
    ]
    expected = zip(train.users, train.items, train.clean, strict=True)
    assert sorted(found) == sorted(expected)
    assert [f[:2] for f in found] != list(zip(train.users, train.items, strict=True))
    sizes = [len(labels["user"]) for _, labels in batches]
    assert sizes[:-1] == [100] * (len(sizes) - 1)
    assert len(pair_dataset(table, schema, 100)) == len(sizes) == -(-len(train) // 100)


def test_the_first_candidate_is_the_click_and_no_candidate_is_disliked(prepared):
    table, schema = prepared
    _, labels = read(pair_dataset(table, schema, 64, num_negatives=2))[0]
    assert set(labels) == {"ctr", "dislike", "false_positive", "item", "user"}
    np.testing.assert_array_equal(labels["ctr"], [[1.0, 0.0, 0.0]] * 64)
    np.testing.assert_array_equal(labels["dislike"], np.zeros((64, 3)))
    assert 0 < labels["false_positive"][:, 0].sum() < 64
    assert not labels["false_positive"][:, 1:].any()
    assert {labels[name].dtype for name in ("ctr", "false_positive")} == {np.dtype("float32")}
    assert {labels[name].dtype for name in ("item", "user")} == {np.dtype("int32")}


def test_models_that_are_told_see_false_positives_as_dislikes(prepared):
    table, schema = prepared
    for dataset in (pair_dataset, user_dataset):
        batch = dataset(table, schema, 64, num_negatives=2, satisfaction=True)
        _, labels = read(batch)[0]
        _, untold = read(dataset(table, schema, 64, num_negatives=2))[0]
        np.testing.assert_array_equal(labels["dislike"], untold["false_positive"])
        np.testing.assert_array_equal(labels["ctr"], untold["ctr"] - untold["false_positive"])
        np.testing.assert_array_equal(labels["item"], untold["item"])


def test_a_task_can_ask_for_clicks_that_are_not_known_to_be_false(prepared):
    table, schema = prepared
    told = Schema(
        schema.context,
        schema.candidate,
        tasks=(
            Task("ctr", ("click",)),
            Task("satisfied", ("click",), ("false_positive",)),
            Task("shared", ("share",)),
        ),
    )
    _, labels = read(pair_dataset(table, told, 64))[0]
    np.testing.assert_array_equal(labels["satisfied"], labels["ctr"] - labels["false_positive"])
    assert not labels["shared"].any()


@settings(max_examples=10)
@given(
    st.integers(1, 7),
    st.integers(2, 9),
    st.floats(0, 1),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(0, 99),
)
def test_negatives_are_never_train_items(users, items, share, negatives, batch_size, seed):
    table = random_table(users, items, share, seed)
    schema = schema_of(table)
    options = {"num_negatives": negatives, "seed": seed}
    taken = set(zip(table.split("train").users, table.split("train").items, strict=True))
    for dataset in (pair_dataset, user_dataset):
        for _, labels in read(dataset(table, schema, batch_size, **options)):
            drawn = (labels["ctr"] == 0) & (labels["item"] >= 0)
            row, column = np.nonzero(drawn)
            found = set(zip(labels["user"][row], labels["item"][row, column], strict=True))
            assert not found & taken
            assert all(0 <= item < items for _, item in found)
            assert drawn.sum() == negatives * (labels["ctr"] == 1).sum()


def test_negatives_are_uniform_over_what_the_user_has_not_taken():
    train = pairs((0, 0), (0, 3), (0, 4), (1, 6), (2, 0), (2, 1), (2, 2), (2, 3), (2, 4), (2, 5))
    table = table_of(3, 7, train=train)
    counts = np.zeros((3, 7))
    draws = 2001  # odd: the last of its counters' numbers is left out
    for _, labels in read(pair_dataset(table, schema_of(table), 4, num_negatives=draws)):
        np.add.at(counts, (labels["user"][:, np.newaxis], labels["item"][:, 1:]), 1)
    for user, unseen in ((0, [1, 2, 5, 6]), (1, [0, 1, 2, 3, 4, 5]), (2, [6])):
        total = table.activity[user] * draws
        assert counts[user, unseen].sum() == counts[user].sum() == total
        share = total / len(unseen)
        statistic = ((counts[user, unseen] - share) ** 2 / share).sum()
        # Above with a probability of 1e-6 or less, with up to 5 degrees of freedom.
        assert statistic < 36


def test_draws_of_a_request_do_not_repeat_each_other():
    table = table_of(1, 1000, train=pairs(*((0, item) for item in range(20))))
    drawn = read(pair_dataset(table, schema_of(table), 20, num_negatives=5))[0][1]["item"][:, 1:]
    assert len(np.unique(drawn)) > 85  # 95 are expected


@pytest.mark.parametrize("dataset", [pair_dataset, user_dataset])
def test_resuming_gives_the_remaining_batches(prepared, dataset):
    table, schema = prepared
    options = {"num_negatives": 3, "seed": 5, "epoch": 2}
    whole = read(dataset(table, schema, 7, **options))
    for skip in (1, len(whole) - 1, len(whole), len(whole) + 3):
        rest = read(dataset(table, schema, 7, **options, skip_batches=skip))
        same(rest, whole[skip:])


@pytest.mark.parametrize("dataset", [pair_dataset, user_dataset])
def test_epochs_and_seeds_differ_and_can_be_repeated(prepared, dataset):
    table, schema = prepared

    def labels(seed, epoch):
        return read(dataset(table, schema, 50, num_negatives=2, seed=seed, epoch=epoch))[0][1]

    first = labels(1, 0)
    same(first, labels(1, 0))
    for other in (labels(1, 1), labels(2, 0), labels(0, 1)):
        assert not np.array_equal(first["user"], other["user"])
        width = min(first["item"].shape[1], other["item"].shape[1])
        assert not np.array_equal(first["item"][:, :width], other["item"][:, :width])


@pytest.mark.parametrize("negatives", [1, 2, 3])
@pytest.mark.parametrize("dataset", [pair_dataset, user_dataset])
def test_the_batch_size_changes_neither_order_nor_negatives(prepared, dataset, negatives):
    table, schema = prepared

    def requests(batch_size):
        batches = read(dataset(table, schema, batch_size, num_negatives=negatives))
        return [
            (user, items[items >= 0].tolist())
            for _, labels in batches
            for user, items in zip(labels["user"], labels["item"], strict=True)
        ]

    assert requests(5) == requests(16)


def test_the_positives_of_another_split_get_negatives_outside_train(prepared):
    table, schema = prepared
    validation = table.split("validation")
    _, labels = read(pair_dataset(table, schema, 10_000, split="validation"))[0]
    found = zip(labels["user"], labels["item"][:, 0], strict=True)
    assert sorted(found) == sorted(zip(validation.users, validation.items, strict=True))
    for user, negative in zip(labels["user"], labels["item"][:, 1], strict=True):
        assert negative not in table.positives.of(user)


def test_a_user_s_candidates_are_his_positives_then_negatives_then_padding():
    train = pairs((0, 3), (0, 1), (2, 0), (2, 1), (2, 2), false=((0, 3), (2, 0)))
    table = table_of(3, 6, train=train)
    batches = read(user_dataset(table, schema_of(table), 2, num_negatives=3, seed=1))
    assert len(batches) == len(user_dataset(table, schema_of(table), 2)) == 1
    encoded, labels = batches[0]
    assert sorted(labels["user"].tolist()) == [0, 2]  # user 1 has no positive
    for row, user in enumerate(labels["user"]):
        positives = table.positives.of(user)
        size, count = len(positives), 4 * len(positives)
        assert encoded["num_candidates"][row] == count
        assert encoded["click_length"][row] == size
        np.testing.assert_array_equal(labels["item"][row, :size], positives)
        assert (labels["item"][row, count:] == -1).all()
        np.testing.assert_array_equal(labels["ctr"][row], np.arange(12) < size)
        false = [3, 0][int(user == 2)]
        expected = (labels["item"][row] == false) & (np.arange(12) < size)
        np.testing.assert_array_equal(labels["false_positive"][row], expected)
        np.testing.assert_array_equal(
            encoded["candidate_weights"][row, :, 0], np.arange(12) < count
        )
        assert not encoded["candidate_rows"][row, count:].any()


def test_users_are_ranked_against_what_they_have_not_taken():
    table = table_of(
        4,
        6,
        train=pairs((0, 5), (0, 1), (1, 0), (3, 2)),
        validation=pairs((0, 2), (1, 3)),
        validation_clean=pairs((1, 3)),
        test=pairs((0, 4), (0, 2), (0, 0), (1, 3), (2, 1)),
    )
    schema = schema_of(table)

    def known(split, **options):
        return [
            {name: x.tolist() if name == "user" else x.to_list() for name, x in found.items()}
            for _, found in (
                (e, {n: x if n != "user" else x.numpy() for n, x in k.items()})
                for e, k in ranking_users(table, split, 2, schema, **options)
            )
        ]

    # A validation item is neither ranked nor looked for in the test split.
    test = {"user": [0, 2], "excluded": [[1, 2, 5], []], "relevant": [[0, 4], [1]]}
    assert known("test") == [test]
    validation = {"user": [0, 1], "excluded": [[1, 5], [0]], "relevant": [[2], [3]]}
    assert known("validation") == [validation]
    assert known("test", exclude=("train",)) == [
        {"user": [0, 1], "excluded": [[1, 5], [0]], "relevant": [[0, 2, 4], [3]]},
        {"user": [2], "excluded": [[]], "relevant": [[1]]},
    ]
    everything = known("test", exclude=())
    assert everything[0]["excluded"] == [[], []]


def test_nothing_to_rank_is_an_empty_dataset():
    table = table_of(1, 3, train=pairs((0, 1)), test=pairs((0, 1)))
    assert read(ranking_users(table, "test", 2, schema_of(table))) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"num_negatives": 0}, "num_negatives must be at least 1, got 0"),
        ({"skip_batches": -1}, "skip_batches at least 0"),
        ({"split": "tset"}, "Did you mean 'test'"),
        ({"seed": -1}, "non-negative"),
    ],
)
def test_impossible_batches_are_refused(prepared, options, message):
    with pytest.raises(ValueError, match=message):
        pair_dataset(*prepared, **{"batch_size": 4, **options})


def test_schemas_of_other_data_are_refused(prepared, tiny_data):
    table, schema = prepared
    with pytest.raises(SchemaError, match=r"single-valued feature 'user_id' here; the schema has"):
        pair_dataset(table, tiny_data.schema().without(["user_id"]), 4)
    other = schema_of(table_of(3, 4, train=pairs((0, 0))))
    with pytest.raises(SchemaError, match=r"'user_id' needs the vocabulary .* 40 ids"):
        pair_dataset(table, other, 4)
    config = schema.to_dict()
    config["histories"][0]["num_sessions"] = 2
    with pytest.raises(SchemaError, match="without sessions"):
        pair_dataset(table, Schema.from_dict(config), 4)
    with pytest.raises(ValueError, match="no history to fill"):
        user_dataset(table, schema.without(["click"]), 4)


def test_the_published_ratings_are_fed_and_ranked(tmp_path):
    source = load_interaction_source("adt-ratings", real_data("ml-100k"))
    manifest = prepare_interactions(source, tmp_path)
    table, schema = load_interactions(manifest), manifest.schema()
    assert schema.history("click").max_length == table.activity.max()
    positives = false = 0
    for _, labels in pair_dataset(table, schema.without(["click"]), 4096):
        positives += int(tf.reduce_sum(labels["ctr"]))
        false += int(tf.reduce_sum(labels["false_positive"]))
    assert (positives, false) == (79_619, 12_649)
    # 1,707 of the 3,594 test rows are validation rows as well: they are not looked for.
    found = [known["relevant"] for _, known in ranking_users(table, "test", 256, schema)]
    assert sum(relevant.flat_values.shape[0] for relevant in found) == 3_594 - 1_707
    alone = ranking_users(table, "test", 256, schema, exclude=("train",))
    assert sum(known["relevant"].flat_values.shape[0] for _, known in alone) == 3_594
