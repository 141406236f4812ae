"""The benchmark of DIN on a tiny size."""

import numpy as np

from benchmarks import din, din_logs
from tfrec_feedback.models import build_model


def test_every_combination_is_timed_with_plain_and_compiled_steps():
    report = din.run((4,), (7,), (1, 3), forms=("36",), samples=20, rounds=1)
    assert [row[:4] for row in report.rows] == [
        ["36", 4, 7, 1],
        ["36", 4, 6, 3],  # whole requests: 7 candidates are two of three
    ]
    for row in report.rows:
        assert len(row) == len(report.columns)
        assert row[4] > 0
        assert row[6] > 0
        assert row[5] == row[7] == "-"  # no figure of a peer for this size
        shares = [float(share.removesuffix("%")) for share in row[8:]]
        assert len(shares) == len(din.PHASES)
        assert all(share >= 0 for share in shares)


def test_batches_are_full_requests_cut_one_after_another():
    encoder = build_model("din", din.schema(), embedding_dim=2).encoder
    batches = list(din.dataset(encoder, requests=3, count=2, steps=2 * din.AT_ONCE))
    assert len(batches) == 2 * din.AT_ONCE
    for encoded, labels in batches:
        assert encoded["click_length"].numpy().tolist() == [din.LENGTH] * 3
        assert encoded["num_candidates"].numpy().tolist() == [2] * 3
        assert labels["ctr"].shape == (3, 2)
    rows = [encoded["click_rows"].numpy() for encoded, _ in batches]
    assert not np.array_equal(rows[0], rows[1])
    np.testing.assert_array_equal(rows[0], rows[din.AT_ONCE])


def test_logs_are_trained_on_in_both_ways_and_missing_ones_left_out(monkeypatch, tmp_path):
    monkeypatch.setenv("FEEDBACK_DATA", str(tmp_path))
    report = din_logs.run(("simulated", "kuairand-pure"), (32,), 4, at_once=2, rounds=1)
    ((log, size, steps, valid, plain, compiled, speed_up),) = report.rows
    assert (log, size, steps) == ("simulated", 32, 4)
    assert 0 < float(valid.removesuffix("%")) < 100
    assert float(speed_up) == round(plain / compiled, 2)
