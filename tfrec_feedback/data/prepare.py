"""From a raw feedback log to sharded TFRecords of requests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tfrec_feedback.data import leaks
from tfrec_feedback.data.events import FLAGS, Source
from tfrec_feedback.data.folder import check_output, claim_folder, complete_folder
from tfrec_feedback.data.grouping import RequestTable, group_requests
from tfrec_feedback.data.history import (
    FEEDBACKS,
    KINDS,
    EventSlices,
    build_histories,
    draw_samples,
    feedback_kinds,
    lag_milliseconds,
)
from tfrec_feedback.data.manifest import (
    FALSE_POSITIVE,
    SCHEMA_FILE,
    SPLITS,
    Manifest,
    OptionValue,
    Shard,
    Split,
)
from tfrec_feedback.data.records import RecordEncoder
from tfrec_feedback.data.sessions import gap_milliseconds, schema_sessions
from tfrec_feedback.data.shards import TRUTH_FILE, plan_shards, write_shards, write_truth
from tfrec_feedback.data.vocabulary import (
    Tokens,
    check_schema,
    fill_vocabularies,
    infer_schema,
    vocabulary_file,
    write_vocabularies,
)
from tfrec_feedback.schema import Schema

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done, and how much there is."""


def prepare(  # noqa: PLR0913 - one keyword an option, all with defaults
    source: Source,
    output: str | Path,
    *,
    history_length: int = 30,
    num_samples: int = 4,
    num_sessions: int = 0,
    session_gap_minutes: float = 30.0,
    histories: Sequence[str] = FEEDBACKS,
    lag_seconds: float = 0.0,
    schema: Schema | None = None,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    min_count: int = 1,
    seed: int = 0,
    shards: int | None = None,
    workers: int = 1,
    check_leaks: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Writes a log as `train/`, `validation/`, `test/` shards, schema, vocabularies and manifest.

    The same source and options give the same bytes. The manifest is written last: until then,
    and when anything fails, the folder does not count as prepared.

    Args:
        source: the log, from `tfrec_feedback.data.sources.load_source`.
        output: the folder to write.
        history_length: T of every history; a given `schema` decides itself.
        num_samples: K, events drawn for train requests from the user's whole earlier log of every
            history; 0 draws none; a given `schema` decides itself.
        num_sessions: K, sessions of every history that are told apart; 0 writes none; a given
            `schema` decides itself.
        session_gap_minutes: a session ends where more time passes between two events of a kind.
        histories: which histories, of `tfrec_feedback.data.history.KINDS`; a given `schema`
            decides itself.
        lag_seconds: how long an event takes to become known to later requests.
        schema: inputs and tasks, instead of what the source suggests.
        fractions: shares of train, validation and test in time, where the source has no split.
        min_count: rarer train values are left out of the vocabularies.
        seed: of the shuffle of train requests, and of their samples.
        shards: shards a split; default: one for 25,000 requests.
        workers: processes that write shards.
        check_leaks: check names, statistics and the written records (`tfrec_feedback.data.leaks`).
        overwrite: replace data prepared earlier.
        progress: told how far each stage is.

    Returns:
        The manifest.

    Raises:
        EventLogError: when the log does not fit the schema, a history cannot be built, or nothing
            is left to train on.
        FileExistsError: when the folder holds prepared data and `overwrite` is not set, the files
            or the schema that are read, or others where this would write.
        ManifestError: when the folder's manifest is not one this version reads.
        LeakError: when `check_leaks` finds something.

    Example:
        >>> import tempfile
        >>> from tfrec_feedback.data.sources import load_source
        >>> log = load_source("simulated", num_users=20, num_items=30, num_days=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     manifest = prepare(log, folder, history_length=10)
        >>> list(manifest.splits)
        ['train', 'validation', 'test']
    """
    output, report = Path(output), progress or (lambda stage, done, total: None)
    given = (schema.directory,) if schema and schema.directory else ()
    check_output(output, overwrite, (*source.files, *given))
    events, lag_ms = source.events, lag_milliseconds(lag_seconds)
    gap_ms = gap_milliseconds(session_gap_minutes)
    report("requests", 0, len(events))
    table = group_requests(events, fractions)
    report("requests", len(events), len(events))
    train_rows = table.rows_of("train")
    if schema is None:
        schema = infer_schema(
            source, train_rows, history_length, num_samples, histories, num_sessions
        )
    check_schema(schema, source)
    schema, tokens = fill_vocabularies(schema, events, train_rows, min_count)
    if check_leaks:
        _check_inputs(source, table, schema)
    report("histories", 0, len(events))
    sequences = _sequences(events, table, schema, lag_ms, seed)
    sessions = schema_sessions(schema, sequences, events["timestamp"].to_numpy(), gap_ms)
    report("histories", len(events), len(events))
    report("encoding", 0, len(events))
    encoder = RecordEncoder(schema, events, table, sequences, sessions, source.false_clicks)
    report("encoding", len(events), len(events))

    tasks = plan_shards(table, seed=seed, shards=shards)
    files = [SCHEMA_FILE, *(task.file for task in tasks), *map(vocabulary_file, tokens)]
    claim_folder(output, files if source.truth is None else [*files, TRUTH_FILE])
    report("writing", 0, len(table))
    written = write_shards(
        output, tasks, encoder, workers, lambda done: report("writing", done, len(table))
    )
    write_vocabularies(output, tokens)
    schema.to_json(output / SCHEMA_FILE)
    if source.truth is not None:
        write_truth(output, source.events, source.truth)
    options: dict[str, OptionValue] = {
        **source.settings,
        "history_length": _shared(history.max_length for history in schema.histories),
        "num_samples": _shared(history.num_samples for history in schema.histories),
        "num_sessions": _shared(history.num_sessions for history in schema.histories),
        "session_gap_minutes": float(session_gap_minutes),
        "histories": [history.name for history in schema.histories],
        "lag_seconds": float(lag_seconds),
        "split_fractions": None if "split" in events else list(fractions),
        "min_count": min_count,
        "seed": seed,
    }
    splits = {}
    for name in SPLITS:
        of_split = [s for task, s in zip(tasks, written, strict=True) if task.split == name]
        splits[name] = _split(source, table, name, of_split)
    manifest = Manifest(
        directory=output,
        source=source.name,
        fingerprint=fingerprint(source, options, schema, tokens),
        options=options,
        report=source.report,
        splits=splits,
    )
    if check_leaks:
        _check_written(manifest, schema, report)
    complete_folder(manifest, output)
    return manifest


def _shared(values: Iterable[int]) -> int | None:
    """Returns what all values are, or None where they differ."""
    distinct = {*values}
    return distinct.pop() if len(distinct) == 1 else None


def _sequences(
    events: pd.DataFrame, table: RequestTable, schema: Schema, lag_ms: int, seed: int
) -> dict[str, EventSlices]:
    """Returns the events of every history, and of the samples drawn for train requests."""
    histories = build_histories(
        table.event_user,
        events["timestamp"].to_numpy(),
        feedback_kinds(events),
        table.user,
        table.timestamp,
        max_lengths={history.name: history.max_length for history in schema.histories},
        lag_ms=lag_ms,
    )
    sequences: dict[str, EventSlices] = dict(histories)
    is_train = table.split == SPLITS.index("train")
    for history in (h for h in schema.histories if h.num_samples):
        # A generator for each: its samples do not depend on which other histories there are.
        generator = np.random.default_rng([seed, KINDS.index(history.name)])
        sequences[history.samples.name] = draw_samples(
            histories[history.name], history.num_samples, is_train, generator
        )
    return sequences


def _split(source: Source, table: RequestTable, name: str, shards: list[Shard]) -> Split:
    events, requests, rows = source.events, table.requests_of(name), table.rows_of(name)
    kinds = feedback_kinds(events)
    feedback = {flag: int(events[flag].to_numpy()[rows].sum()) for flag in FLAGS}
    feedback["unclick"] = int(kinds["unclick"][rows].sum())
    if source.false_clicks is not None:
        feedback[FALSE_POSITIVE] = int(source.false_clicks[rows].sum())
    sizes = np.bincount(table.num_candidates[requests])
    times = table.timestamp[requests]
    return Split(
        shards=shards,
        requests=len(requests),
        candidates=len(rows),
        feedback=feedback,
        first_timestamp=int(times[0]) if len(times) else None,
        last_timestamp=int(times[-1]) if len(times) else None,
        candidates_histogram={n: c for n, c in enumerate(sizes.tolist()) if c},
    )


def _check_inputs(source: Source, table: RequestTable, schema: Schema) -> None:
    found = leaks.check_names(schema, source.post_exposure)
    found += leaks.check_statistics(schema, source.events, table.rows_of("train"))
    if found:
        raise leaks.LeakError(found)


def _check_written(manifest: Manifest, schema: Schema, report: Progress) -> None:
    total = sum(split.requests for split in manifest.splits.values())
    report("leak check", 0, total)
    found = leaks.check_records(manifest, schema)
    if found:
        raise leaks.LeakError(found)
    report("leak check", total, total)


def fingerprint(
    source: Source,
    options: Mapping[str, OptionValue],
    schema: Schema,
    tokens: Mapping[str, Tokens],
) -> str:
    """Returns the sha256 of all that decides what is written: files, options, schema, tokens."""
    digest = hashlib.sha256()
    described = {"source": source.name, "options": options, "schema": schema.to_dict()}
    digest.update(json.dumps({**described, "tokens": tokens}, sort_keys=True).encode())
    for path in source.files:
        with open(path, "rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
