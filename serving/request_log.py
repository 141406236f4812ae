"""Writes a sample of the answered requests to files that a model can be warmed up with."""

from __future__ import annotations

import datetime
import logging
import queue
import random
import threading
import time
from pathlib import Path
from typing import Any

import tensorflow as tf

from serving import server_wire, wire
from serving.metrics import Metrics

_LOG = logging.getLogger(__name__)
_FIELDS = {
    wire.PREDICT: "predict_log",
    server_wire.CLASSIFY: "classify_log",
    server_wire.REGRESS: "regress_log",
    server_wire.MULTI_INFERENCE: "multi_inference_log",
}
# As many as TF Serving accepts in a warm-up file: every file here can be one.
MAX_RECORDS_A_FILE = 1000
_LONGEST_QUEUE = 1000
_WAITING_BYTES = 32 << 20


class RequestLog:
    """A sampled log of requests as TFRecord files of `PredictionLog`s.

    Only messages are written: what travels beside them, such as credentials in the metadata of a
    call, never is. Writing happens on a thread of its own; when that falls behind, requests are
    dropped and counted, and no caller waits.

    Args:
        directory: where the files go, `requests-<UTC time>-<number>.tfrecord`.
        rate: share of the answered requests that is written, 0 to 1.
        metrics: where written and dropped ones are counted.
        max_file_bytes: size after which a new file begins.
        keep_files: files that are kept; older ones are removed.

    Raises:
        OSError: when the folder cannot be written.
    """

    def __init__(
        self,
        directory: Path,
        rate: float,
        metrics: Metrics,
        *,
        max_file_bytes: int = 64 << 20,
        keep_files: int = 20,
    ):
        directory.mkdir(parents=True, exist_ok=True)
        self._directory, self._rate, self._metrics = directory, rate, metrics
        self._max_bytes, self._keep = max_file_bytes, keep_files
        self._queue: queue.Queue[Any] = queue.Queue(_LONGEST_QUEUE)
        self._lock = threading.Lock()
        self._waiting = 0  # bytes in the queue
        self._closing = threading.Event()
        self._random = random.Random()
        self._writer: tf.io.TFRecordWriter | None = None
        self._records = self._bytes = self._number = 0
        self._thread = threading.Thread(target=self._run, name="request log", daemon=True)
        self._thread.start()

    def offer(self, method: wire.Method, request: Any, spec: Any) -> None:
        """Takes an answered request into the sample, or not; returns at once.

        Args:
            method: what was called.
            request: its message; it must not be changed afterwards.
            spec: `ModelSpec` of the version that answered.
        """
        if method not in _FIELDS or self._random.random() >= self._rate:
            return
        size = request.ByteSize()
        try:
            with self._lock:  # many large requests are as much too many as very many small ones
                if self._waiting + size > _WAITING_BYTES:
                    raise queue.Full
                self._queue.put_nowait((_FIELDS[method], request, spec, int(time.time()), size))
                self._waiting += size
        except queue.Full:
            self._metrics.logged.add(spec.name, "RESOURCE_EXHAUSTED")

    def close(self) -> None:
        """Writes what is waiting, and ends."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                entry = self._queue.get(timeout=0.05)
            except queue.Empty:
                if self._closing.is_set():
                    break
                continue
            with self._lock:
                self._waiting -= entry[-1]
            try:
                self._write(*entry[:-1])
                if self._queue.empty() and self._writer is not None:
                    self._writer.flush()
                self._metrics.logged.add(entry[2].name, "OK")
            # A full disk must not end the server, nor this thread.
            except (OSError, tf.errors.OpError) as error:
                self._metrics.logged.add(entry[2].name, "UNAVAILABLE")
                _LOG.error("The request log cannot be written: %s", error)
                self._writer = None
        if self._writer is not None:
            self._writer.close()

    def _write(self, field: str, request: Any, spec: Any, seconds: int) -> None:
        log = server_wire.PredictionLog()
        getattr(log, field).request.CopyFrom(request)
        log.log_metadata.model_spec.CopyFrom(spec)
        log.log_metadata.sampling_config.sampling_rate = self._rate
        log.log_metadata.timestamp_secs = seconds
        record = log.SerializeToString()
        full = self._records >= MAX_RECORDS_A_FILE or self._bytes + len(record) > self._max_bytes
        if self._writer is None or full:
            self._begin_file()
        if self._writer is not None:
            self._writer.write(record)
        self._records += 1
        self._bytes += len(record)

    def _begin_file(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None  # should opening the next one fail
        # Down to the microsecond: a server that starts again at once must not write over it.
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S.%f")
        name = f"requests-{stamp}-{self._number:06d}.tfrecord"
        self._number += 1
        self._records = self._bytes = 0
        older = sorted(self._directory.glob("requests-*.tfrecord"))
        for path in older[: max(0, len(older) + 1 - self._keep)]:
            path.unlink(missing_ok=True)
        self._writer = tf.io.TFRecordWriter(str(self._directory / name))
