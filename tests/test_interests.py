"""Health of memories made by hand, and what is read from models of every kind."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.logs import prepared_simulation
from tfrec_feedback.data.dataset import request_dataset
from tfrec_feedback.interests import (
    Interests,
    collapsed,
    collect_interests,
    load_snapshots,
    mean_cosine,
    memory_health,
    snapshot_path,
    snapshot_steps,
)
from tfrec_feedback.models import build_model

TINY_MEMORY = {"memory_size": 8, "word_size": 4, "controller_units": 8}
FOUR = ["click", "dislike", "like", "unclick"]


def with_memory(slots):
    """What `memory_health` needs of a model with one memory, read by clicks."""
    memory = SimpleNamespace(memory=np.asarray(slots, np.float32))
    memory.memory = SimpleNamespace(numpy=lambda slots=memory.memory: slots)
    return SimpleNamespace(
        user_memory=SimpleNamespace(opposites={"click": None}, memory=lambda name: memory)
    )


def reading(slots, weights, length=None):
    weights = np.asarray(weights, np.float32)
    read = weights @ np.asarray(slots, np.float32)
    empty = {"pooled": {}, "short_term": {}, "labels": {}}
    empty["length"] = {"click": np.ones(len(weights), int) if length is None else length}
    users = np.array([str(i) for i in range(len(weights))])
    return Interests(read={"click": read}, read_weights={"click": weights}, users=users, **empty)


def health(slots, weights):
    return memory_health(with_memory(slots), reading(slots, weights))["click"]


def test_a_memory_of_equal_slots_has_collapsed():
    slots = [[1.0, 2.0]] * 4
    found = health(slots, np.eye(4))
    assert found["slot_cosine"] == pytest.approx(1.0)
    assert found["read_cosine"] == pytest.approx(1.0)
    assert collapsed({"click": found}) == ["click"]


def test_requests_without_the_feedback_do_not_make_a_memory_look_collapsed():
    slots = np.eye(4)
    with_history = np.eye(4)[np.arange(100) % 4]
    without = np.repeat(np.eye(4)[:1], 9900, axis=0)
    weights, length = np.concatenate([with_history, without]), np.repeat([1, 0], [100, 9900])
    rare = memory_health(with_memory(slots), reading(slots, weights, length))["click"]
    assert rare["requests"] == 100
    assert rare["read_cosine"] == pytest.approx((100 * 25 - 100) / (100 * 99))
    few = memory_health(with_memory(slots), reading(slots, weights, 0 * length))["click"]
    assert few["requests"] == 10_000


def test_orthogonal_slots_read_one_by_one_are_healthy():
    found = health(np.eye(4), np.eye(4))
    assert found["slot_cosine"] == pytest.approx(0.0)
    assert found["read_cosine"] == pytest.approx(0.0)
    assert found["read_entropy"] == 0.0
    assert found["slots_in_use"] == pytest.approx(1.0)  # all four, by different requests
    assert collapsed({"click": found}) == []


def test_orthogonal_slots_read_alike_by_everybody_have_collapsed_as_well():
    found = health(np.eye(4), np.full([3, 4], 0.25))
    assert found["slot_cosine"] == pytest.approx(0.0)
    assert found["read_cosine"] == pytest.approx(1.0)
    assert found["read_entropy"] == pytest.approx(1.0)
    assert collapsed({"click": found}) == ["click"]


def test_one_slot_in_use_of_four_is_a_quarter():
    found = health(np.eye(4), [[1, 0, 0, 0]] * 3)
    assert found["slots_in_use"] == pytest.approx(0.25)
    assert found["read_entropy"] == 0.0


def test_half_of_the_slots_read_evenly_are_half_the_entropy():
    # log 2 / log 4 = 1/2.
    assert health(np.eye(4), [[0.5, 0.5, 0, 0]])["read_entropy"] == pytest.approx(0.5)


def test_a_memory_of_one_slot_is_judged_by_its_reads():
    found = health([[3.0, 4.0]], [[1.0], [1.0]])
    assert found == {
        "slot_cosine": 0.0,
        "read_cosine": pytest.approx(1.0),
        "read_entropy": 0.0,
        "slots_in_use": 1.0,
        "requests": 2.0,
    }
    assert collapsed({"click": found}) == ["click"]


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 5))
def test_the_mean_cosine_is_that_of_all_pairs(seed, count, width):
    vectors = np.random.default_rng(seed).normal(size=(count, width))
    vectors[0] *= seed % 2  # sometimes a vector without a direction
    cosines = []
    for i in range(count):
        for j in range(i):
            norms = np.linalg.norm(vectors[i]) * np.linalg.norm(vectors[j])
            cosines.append(vectors[i] @ vectors[j] / norms if norms else 0.0)
    assert mean_cosine(vectors) == pytest.approx(np.mean(cosines), abs=1e-9)


def test_one_vector_alone_is_like_no_other():
    assert mean_cosine(np.ones([1, 3])) == 0.0


def test_snapshots_are_spread_over_the_whole_training():
    assert snapshot_steps(300, 4) == [0, 100, 200, 300]
    assert snapshot_steps(2, 9) == [0, 1, 2]
    assert snapshot_steps(7, 1) == [7]


def test_interests_survive_a_file(tmp_path):
    interests = reading(np.eye(2), [[0.5, 0.5], [1.0, 0.0]])
    for step in (20, 3):
        interests.save(snapshot_path(tmp_path, step))
    found = load_snapshots(tmp_path)
    assert list(found) == [3, 20]
    np.testing.assert_array_equal(found[3].read["click"], interests.read["click"])
    assert found[3].users.tolist() == ["0", "1"]
    assert found[3].pooled == {}
    assert len(list((tmp_path / "interests").iterdir())) == 2
    assert load_snapshots(tmp_path / "none") == {}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    histories = ("click", "unclick", "like", "dislike", "all")
    return prepared_simulation(tmp_path_factory.mktemp("data"), num_samples=2, histories=histories)


@pytest.mark.parametrize(
    ("name", "histories", "remembered"),
    [
        ("dumn", FOUR, FOUR),
        ("dumn_umn1", FOUR, FOUR),
        ("dumn_no_umn", FOUR, []),
        ("dumn_if", ["click", "unclick"], ["click", "unclick"]),
        ("dumn_af", ["all"], ["all"]),
        ("dfn_umn", ["click", "dislike", "unclick"], ["click", "dislike", "unclick"]),
        ("dfn_no_feedback", [], []),
    ],
)
def test_interests_are_read_from_every_model(manifest, name, histories, remembered):
    heads = {"num_heads": 1, "embedding_dim": 4, "deep_units": [8]}
    options = {"user_memory": TINY_MEMORY} if remembered else {}
    schema = manifest.schema()
    model = build_model(name, schema, **heads, **options)
    dataset = request_dataset(manifest, "train", 16, encoder=model.encoder, metadata=True)
    interests = collect_interests(model, dataset, requests=20)
    for group in (interests.pooled, interests.short_term, interests.length):
        assert sorted(group) == histories
        assert all(len(x) == 20 for x in group.values())
    assert sorted(interests.read) == sorted(interests.read_weights) == remembered
    for feedback in remembered:
        assert interests.read[feedback].shape == (20, 4)
        np.testing.assert_allclose(interests.read_weights[feedback].sum(1), 1.0, rtol=1e-5)
    assert sorted(memory_health(model, interests)) == remembered
    assert interests.users.shape == interests.labels["ctr"].shape == (20,)


def test_each_entry_belongs_to_its_request(manifest):
    model = build_model("dumn", manifest.schema(), user_memory=TINY_MEMORY, embedding_dim=4)
    dataset = request_dataset(manifest, "train", 16, encoder=model.encoder, metadata=True)
    interests = collect_interests(model, dataset, requests=40)
    features, labels, _, identity = list(dataset)[1]
    assert interests.users[16:32].tolist() == [u.decode() for u in identity["user_key"].numpy()]
    np.testing.assert_array_equal(interests.length["click"][16:32], features["click_length"])
    np.testing.assert_array_equal(interests.labels["ctr"][16:32], labels["ctr"][:, 0])
    known = model(features, return_interests=True)["interests"]
    np.testing.assert_allclose(
        interests.read["like"][16:32], known.long_term["like"].read[:, 0], rtol=1e-5
    )


def test_a_dataset_without_requests_is_refused(manifest):
    model = build_model("dfn_no_feedback", manifest.schema(), embedding_dim=4)
    dataset = request_dataset(manifest, "train", 16, encoder=model.encoder, metadata=True)
    with pytest.raises(ValueError, match="holds no request with a candidate"):
        collect_interests(model, dataset.take(0))
