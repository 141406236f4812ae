import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serving.chunks import RECORD_WEIGHT, ROW_WEIGHT, ChunkPlan

RANK = ChunkPlan(frozenset({"item_id"}))


def batch(rows, width):
    return {
        "user_id": np.arange(rows),
        "item_id": np.arange(rows * width).reshape(rows, width),
        "num_candidates": np.full(rows, width),
    }


@given(st.integers(0, 40), st.integers(0, 60), st.integers(1, 100))
def test_pieces_hold_every_candidate_once_and_no_more_than_fit(rows, width, chunk_rows):
    inputs = batch(rows, width)
    pieces = RANK.pieces(inputs, chunk_rows)
    seen = np.zeros((rows, width), int)
    for part in pieces:
        seen[part] += 1
        height, breadth = seen[part].shape
        assert height <= 1 or height * (ROW_WEIGHT + width) <= chunk_rows
        assert breadth <= chunk_rows
        cut = RANK.cut(inputs, *part)
        np.testing.assert_array_equal(cut["item_id"], inputs["item_id"][part])
        assert cut["num_candidates"].tolist() == [breadth] * height
        assert cut["user_id"].tolist() == inputs["user_id"][part[0]].tolist()
    assert (seen == 1).all() and pieces


@given(st.integers(0, 200), st.integers(0, 2000), st.integers(0, 3), st.integers(1, 64))
def test_parts_hold_every_candidate_once_and_are_about_equal(rows, width, start, cores):
    piece = (slice(start, start + rows), slice(512 * start, 512 * start + width))
    most = RANK.most_parts(piece)
    wanted = width // 240 if rows == 1 else min(rows // 16, rows * (8 + width) // 240)
    assert most == max(1, wanted)
    parts = RANK.parts(piece, min(most, cores))
    assert len(parts) == min(most, cores)
    seen = np.zeros((start + rows, 512 * start + width), int)
    for part in parts:
        seen[part] += 1
    assert (seen[piece] == 1).all() and seen.sum() == rows * width
    cut = 1 if rows == 1 else 0
    # Every part begins a multiple of 16 after the piece does.
    assert all((part[cut].start - piece[cut].start) % 16 == 0 for part in parts)
    sizes = [part[cut].stop - part[cut].start for part in parts]
    assert max(sizes) - min(sizes) < 32


def test_what_fits_is_one_piece():
    assert RANK.pieces(batch(1, 1024), 1024) == [(slice(0, 1), slice(0, 1024))]
    assert len(RANK.pieces(batch(1, 1025), 1024)) == 2
    # Ten rows of 100 candidates cost as much as 1,080, nine as much as 972.
    assert [part.stop for part, _ in RANK.pieces(batch(10, 100), 1024)] == [9, 10]
    assert RANK.pieces(batch(0, 5), 1024) == [(slice(0, 0), slice(0, 5))]


def test_rows_count_as_the_candidates_that_cost_as_much():
    rows, records = ChunkPlan(), ChunkPlan(weight=RECORD_WEIGHT)
    assert [p.stop for p, _ in rows.pieces({"x": np.zeros(300)}, 1024)] == [128, 256, 300]
    short = {"x": np.array([b"record"] * 40, object)}
    assert [p.stop for p, _ in records.pieces(short, 1024)] == [16, 32, 40]
    long = {"x": np.array([b"record"] * 3 + [b"x" * (1 << 19)], object)}
    assert [p.stop for p, _ in records.pieces(long, 1024)] == [2, 4]
