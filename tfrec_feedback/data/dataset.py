"""Batches of requests from prepared TFRecords, as a `tf.data.Dataset`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec_feedback.data.manifest import Manifest
from tfrec_feedback.data.parsing import parse_requests
from tfrec_feedback.data.tfrecord import CorruptRecordError, ReadStats, read_records, write_records
from tfrec_feedback.schema import Schema

_SHUFFLE_BUFFER = 20_000
_PEEK = 1024
_CHECK = 256


def request_dataset(  # noqa: PLR0913 - one keyword an option, all with defaults
    manifest: Manifest,
    split: str,
    batch_size: int,
    *,
    shuffle_seed: int | None = None,
    encoder: Any = None,
    metadata: bool = False,
    samples: bool = False,
    skip_batches: int = 0,
    paths: Sequence[Path] | None = None,
    truth: bool = False,
) -> tf.data.Dataset:
    """Reads a split in batches of whole requests.

    Requests of similar size are batched together (sizes up to 1, 2, 4, 8, ... candidates), so
    that little is padded. The order is reproducible: a function of the seed, and of
    `tf.random.set_seed` where that was called.

    Args:
        manifest: prepared data, from `load_manifest`.
        split: `"train"`, `"validation"` or `"test"`.
        batch_size: requests a batch.
        shuffle_seed: shuffles files and requests; None keeps the order of the records.
        encoder: a model's `FeatureEncoder`, to look values up here rather than in the step. Its
            schema, which may leave out some of the data's features, decides what is parsed.
        metadata: adds a fourth element with `request_id`, `user_key` and `timestamp`.
        samples: adds what was drawn from the users' whole earlier logs, where the schema has
            samples: the features are then the tensors of `schema.training_inputs()`.
        skip_batches: leaves out the first batches, before they are parsed: resumes an epoch.
        paths: reads these files instead of the split's shards.
        truth: adds the label `false_positive`, see `parse_requests`; the manifest
            `knows_false_positives`.

    Returns:
        Dataset of `(features, labels, sample_weight)`: the tensors of `schema.inputs()` (or
        encoded ones), `{task: [R, N]}` and `[R, N]`.

    Raises:
        ManifestError: when the folder holds interactions.

    Example:
        >>> manifest = load_manifest("data/kuairand")  # doctest: +SKIP
        >>> model.fit(request_dataset(manifest, "train", 256, shuffle_seed=0))  # doctest: +SKIP
    """
    manifest.require("requests")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1 request, got {batch_size}.")
    schema = manifest.schema() if encoder is None else encoder.schema
    files = [str(path) for path in (manifest.shard_paths(split) if paths is None else paths)]
    dataset = _serialized(files, shuffle_seed)
    dataset = _batch_by_size(dataset, manifest.split(split).candidates_histogram, batch_size)
    dataset = dataset.skip(skip_batches)

    def parse(serialized: tf.Tensor) -> Any:
        features, labels, weights, identity = parse_requests(serialized, schema, samples, truth)
        features = encoder(features) if encoder is not None else features
        batch = (features, labels, weights)
        return (*batch, identity) if metadata else batch

    dataset = dataset.map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.prefetch(tf.data.AUTOTUNE)


def num_batches(manifest: Manifest, split: str, batch_size: int) -> int:
    """Returns how many batches `request_dataset` makes of a split."""
    manifest.require("requests")
    sizes: dict[int, int] = {}
    for candidates, requests in manifest.split(split).candidates_histogram.items():
        sizes[_bucket(candidates)] = sizes.get(_bucket(candidates), 0) + requests
    return sum(-(-requests // batch_size) for requests in sizes.values())


def epoch_seed(seed: int, epoch: int) -> int:
    """Returns the shuffle seed of an epoch: different each epoch, the same each run."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0] >> 1)


def _serialized(files: list[str], seed: int | None) -> tf.data.Dataset:
    dataset = tf.data.Dataset.from_tensor_slices(tf.constant(files, tf.string))
    if seed is not None and files:
        dataset = dataset.shuffle(len(files), seed=seed)
    if seed is None:
        return tf.data.TFRecordDataset(dataset)
    dataset = dataset.interleave(tf.data.TFRecordDataset, cycle_length=4, block_length=16)
    return dataset.shuffle(_SHUFFLE_BUFFER, seed=seed)


def _bucket(num_candidates: int) -> int:
    return 1 << max(num_candidates - 1, 0).bit_length()


def _batch_by_size(
    dataset: tf.data.Dataset, histogram: dict[int, int], batch_size: int
) -> tf.data.Dataset:
    """Groups records by their number of candidates, rounded up to a power of two."""
    buckets = sorted({_bucket(size) for size in histogram})
    if len(buckets) <= 1:
        return dataset.batch(batch_size)
    spec = {"num_candidates": tf.io.FixedLenFeature([], tf.int64)}
    # Sizes are read a block at a time: parsing single records would cost more than the rest.
    sized = dataset.batch(_PEEK).map(
        lambda block: (block, tf.io.parse_example(block, spec)["num_candidates"])
    )
    grouped = sized.unbatch().bucket_by_sequence_length(
        element_length_func=lambda _, size: tf.cast(size, tf.int32),
        bucket_boundaries=[size + 1 for size in buckets[:-1]],
        bucket_batch_sizes=[batch_size] * len(buckets),
    )
    return grouped.map(lambda serialized, _: serialized)


def check_shards(
    manifest: Manifest, split: str, *, scratch: Path | None = None
) -> tuple[list[Path], ReadStats]:
    """Verifies every record of a split: checksums, and whether it parses by the schema.

    Args:
        manifest: prepared data.
        split: name of the split.
        scratch: folder for intact copies of damaged shards. Without one the first damage raises;
            with one it is skipped and counted.

    Returns:
        The files to read instead of the shards, and what was found.

    Raises:
        CorruptRecordError: names the file, the offset and the reason.
        ManifestError: when the folder holds interactions.
    """
    manifest.require("requests")
    schema, stats, paths = manifest.schema(), ReadStats(), []
    for path in manifest.shard_paths(split):
        before = len(stats.damage)
        records = list(_intact(path, schema, stats, skip=scratch is not None))
        if scratch is not None and len(stats.damage) > before:
            path = scratch / f"{split}-{path.name}"
            write_records(path, records)
        paths.append(path)
    return paths, stats


@contextlib.contextmanager
def naming_damage(manifest: Manifest, *splits: str) -> Iterator[None]:
    """Makes errors of reading say where: those of tf.data name no file.

    Args:
        manifest: prepared data that is read inside the `with` block.
        *splits: which of it.

    Raises:
        CorruptRecordError: names the file, the offset and the reason, when a record is at fault;
            other errors pass unchanged.
    """
    try:
        yield
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError):
        for split in splits:
            check_shards(manifest, split)
        raise


def _intact(path: Path, schema: Schema, stats: ReadStats, skip: bool) -> list[bytes]:
    found = list(read_records(path, skip_corrupt=skip, stats=stats))
    intact: list[bytes] = []
    for start in range(0, len(found), _CHECK):
        block = found[start : start + _CHECK]
        if _parse_error([payload for _, payload in block], schema) is None:
            intact += [payload for _, payload in block]
            continue
        for offset, payload in block:
            reason = _parse_error([payload], schema)
            if reason is None:
                intact.append(payload)
            elif not skip:
                raise CorruptRecordError(path, offset, reason)
            else:
                stats.records -= 1
                stats.skipped += 1
                stats.damage.append(f"{path} at byte {offset}: {reason}")
    return intact


def _parse_error(payloads: list[bytes], schema: Schema) -> str | None:
    try:
        parse_requests(tf.constant(payloads, tf.string), schema, samples=True)
    except tf.errors.InvalidArgumentError as error:
        return f"the record does not fit the schema ({error.message.splitlines()[0]})"
    return None
