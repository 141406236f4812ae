"""Writing records to shards, several at a time."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tfrec_feedback.data.events import EventLogError
from tfrec_feedback.data.grouping import RequestTable
from tfrec_feedback.data.manifest import SPLITS, Shard
from tfrec_feedback.data.records import RecordEncoder
from tfrec_feedback.data.tfrecord import write_records

TRUTH_FILE = "truth.parquet"
_REQUESTS_PER_SHARD = 25_000

_encoder: RecordEncoder | None = None
"""The encoder of forked workers, which inherit it instead of having it pickled and sent."""


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """A shard to write: its file, relative to the folder, and the requests it holds."""

    split: str
    file: str
    requests: np.ndarray


def plan_shards(table: RequestTable, *, seed: int, shards: int | None) -> list[ShardTask]:
    """Deals the requests of every split out to shards.

    Train requests are shuffled over all shards; validation and test keep their time order.

    Args:
        table: the requests.
        seed: of the shuffle.
        shards: number of shards of every split; default: one for 25,000 requests.
    """
    tasks = []
    for split in SPLITS:
        requests = table.requests_of(split)
        if split == "train":
            requests = np.random.default_rng(seed).permutation(requests)
        count = shards or math.ceil(len(requests) / _REQUESTS_PER_SHARD)
        count = min(count, len(requests))
        parts = np.array_split(requests, count) if count else []
        for index, part in enumerate(parts):
            file = f"{split}/part-{index:05d}-of-{count:05d}.tfrecord"
            tasks.append(ShardTask(split, file, part))
    return tasks


def write_shards(
    directory: Path,
    tasks: Sequence[ShardTask],
    encoder: RecordEncoder,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> list[Shard]:
    """Writes shards and returns them in the order of `tasks`.

    Workers are forked, to share the encoded columns. A process that has TensorFlow loaded cannot
    be forked safely (its threads are not copied), so there everything is written in this process.

    Args:
        directory: the output folder.
        tasks: what to write.
        encoder: serialises the requests.
        workers: processes.
        progress: called after every shard with the number of records written so far.
    """
    for split in {task.split for task in tasks}:
        (directory / split).mkdir(parents=True, exist_ok=True)
    written = []
    for shard in _run(directory, tasks, encoder, workers):
        written.append(shard)
        if progress:
            progress(sum(s.records for s in written))
    by_file = {shard.file: shard for shard in written}
    return [by_file[task.file] for task in tasks]


def _run(
    directory: Path, tasks: Sequence[ShardTask], encoder: RecordEncoder, workers: int
) -> Iterator[Shard]:
    global _encoder
    _encoder = encoder
    try:
        if min(workers, len(tasks)) <= 1 or not can_fork():
            for task in tasks:
                yield _write(directory, task)
            return
        context = multiprocessing.get_context("fork")
        with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
            futures = [pool.submit(_write, directory, task) for task in tasks]
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
    finally:
        _encoder = None


def can_fork() -> bool:
    """Returns whether worker processes can be forked from this one."""
    loaded = "tensorflow" in sys.modules
    return not loaded and "fork" in multiprocessing.get_all_start_methods()


def _write(directory: Path, task: ShardTask) -> Shard:
    if _encoder is None:
        raise RuntimeError("A shard worker has no encoder: it was not forked by write_shards.")
    records, size = write_records(directory / task.file, _encoder.encode(task.requests))
    return Shard(file=task.file, records=records, bytes=size)


def write_truth(directory: Path, events: pd.DataFrame, truth: pd.DataFrame) -> None:
    """Writes the truth of a simulated log with the columns that identify its rows."""
    if len(truth) != len(events):
        raise EventLogError("The truth of a simulated log must have one row an event.")
    keys = [c for c in ("request_id", "user_id", "item_id", "timestamp") if c in events]
    truth = truth.drop(columns=[c for c in keys if c in truth])
    pd.concat([events[keys], truth], axis=1).to_parquet(directory / TRUTH_FILE, index=False)
