"""Mixed load on a running server: everything that can happen to it, at the same time."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc

from benchmarks.serving_fuzz import documented
from benchmarks.serving_model import NAME, ServerProcess, good_requests, publish_copy
from benchmarks.serving_soak_plan import Plan, Soaked
from serving import wire
from serving.calls import UNBOUNDED
from serving.inference import Runner
from serving.loader import LoadedModel

_TIMEOUT = 60.0
_LONGEST_WAIT = 300.0
_PAUSE = 0.005  # of each caller: versions must get a chance to be loaded
_OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


class Soak:
    """One run against one server.

    Args:
        server: the process.
        base: folder of its model's versions; 1 is served.
        templates: two models; odd versions are copies of the first, even ones of the second.
        plan: what to do.
    """

    def __init__(self, server: ServerProcess, base: Path, templates: list[Path], plan: Plan):
        self.found = Soaked()
        self._server, self._base, self._templates, self._plan = server, base, templates, plan
        models = [LoadedModel(NAME, template) for template in templates]
        requests = [r for m, r in good_requests(models[0], 8, 40) if m is wire.PREDICT]
        self._small = len(requests)
        requests += [r for m, r in good_requests(models[0], 2, 2000) if m is wire.PREDICT]
        self._good = [r.SerializeToString() for r in requests]
        # What the model itself gives for them, cut as the server cuts.
        self._expected = [
            [_scores(Runner().predict(m, r, UNBOUNDED)) for m in models] for r in requests
        ]
        self._slow = max(self._good, key=len)
        self._stopped = threading.Event()

    def run(self) -> Soaked:
        """Does everything at once, and returns what happened."""
        tasks = [self._call_well] * self._plan.callers
        tasks += [self._call_badly, self._cancel, self._connect, self._swap, self._watch]
        threads = [threading.Thread(target=self._guarded, args=(task,)) for task in tasks]
        for thread in threads:
            thread.start()
        end = time.monotonic() + self._plan.seconds
        while not self._stopped.wait(0.1):
            swapped = self.found.counts.get("swaps", 0) >= self._plan.least_swaps
            if time.monotonic() > (end if swapped else end + _LONGEST_WAIT):
                break
        self._stopped.set()
        for thread in threads:
            thread.join()
        return self.found

    def _guarded(self, task: Callable[[], None]) -> None:
        try:
            task()
        except Exception:
            self.found.fault("errors of the soak's own", traceback.format_exc())
            self._stopped.set()

    def _call_well(self) -> None:
        rng = random.Random()
        with self._connected() as predict:
            while not self._stopped.wait(_PAUSE):
                self._check(rng.randrange(len(self._good)), predict)

    def _check(self, index: int, predict: Any) -> None:
        """Sends a good request, and compares its scores bit by bit."""
        try:
            self._compare(index, predict(self._good[index], timeout=_TIMEOUT))
        except grpc.RpcError as error:
            self.found.fault("good requests lost", f"{error.code().name} {error.details()}")

    def _compare(self, index: int, data: bytes) -> None:
        response = wire.PredictResponse.FromString(data)
        version = response.model_spec.version.value
        right = _scores(response) == self._expected[index][(version - 1) % 2]
        self.found.add("good requests")
        if not right:
            self.found.fault("wrong answers", f"request {index}, version {version}")

    def _call_badly(self) -> None:
        rng = random.Random(0)
        with self._connected() as predict:
            while not self._stopped.wait(_PAUSE):
                data = bytearray(rng.choice(self._good))
                for _ in range(rng.randint(1, 6)):
                    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
                code, details = _status(predict, bytes(data))
                self.found.add("malformed requests")
                if not documented(code, details):
                    self.found.fault("undocumented answers", f"{code} {details}")

    def _cancel(self) -> None:
        rng = random.Random(0)
        with self._connected() as predict:
            while not self._stopped.wait(10 * _PAUSE):
                call = predict.future(self._slow, timeout=_TIMEOUT)
                time.sleep(rng.random() * 0.02)
                call.cancel()
                self.found.add("cancelled calls")
                code, details = _status(predict, self._slow, timeout=rng.random() * 0.02 + 1e-4)
                if code not in ("OK", "DEADLINE_EXCEEDED"):
                    self.found.fault("undocumented answers", f"{code} {details}")

    def _connect(self) -> None:
        """Opens very many connections at once, again and again."""
        while not self._stopped.wait(self._plan.connect_seconds):
            channels = [
                grpc.insecure_channel(self._server.target, _OWN_CONNECTION)
                for _ in range(self._plan.connections)
            ]
            calls = [
                channel.unary_unary(wire.PREDICT.path).future(
                    self._good[number % self._small], timeout=_TIMEOUT
                )
                for number, channel in enumerate(channels)
            ]
            for number, call in enumerate(calls):
                self._check(number % self._small, lambda *_, c=call, **__: c.result())
            for channel in channels:
                channel.close()
            self.found.add("connections", len(channels))

    def _swap(self) -> None:
        """Publishes, corrupts and deletes versions; sends SIGHUP in between."""
        version = 1
        with self._connected() as predict:
            while not self._stopped.wait(self._plan.swap_seconds):
                self._corrupt(version + 1)
                self._server.process.send_signal(signal.SIGHUP)
                self.found.add("SIGHUP")
                version += 3  # odd and even ones, the two templates, take turns
                publish_copy(self._templates[(version - 1) % 2], self._base, version)
                if not self._await(predict, version):
                    return
                self.found.add("swaps")
                if version % 4 == 0:
                    shutil.rmtree(self._base / str(version))
                    if not self._await(predict, version - 3):
                        return
                    self.found.add("deleted versions")
                for old in self._base.iterdir():
                    if old.name.isdecimal() and int(old.name) < version - 7:
                        shutil.rmtree(old)

    def _corrupt(self, version: int) -> None:
        """Publishes a version that cannot be loaded."""
        hidden = self._base / f".tmp-{version}"
        hidden.mkdir()
        (hidden / "saved_model.pb").write_bytes(b"\x08\x01 cut short")
        hidden.rename(self._base / str(version))
        self.found.add("corrupt versions")

    def _await(self, predict: Any, version: int) -> bool:
        """Waits until a version answers, and returns whether it did before the end."""
        end = time.monotonic() + _TIMEOUT
        while not self._stopped.is_set():
            response = wire.PredictResponse.FromString(predict(self._good[0], timeout=_TIMEOUT))
            if response.model_spec.version.value == version:
                return True
            if time.monotonic() > end:
                self.found.fault("versions that never served", str(version))
                return False
            time.sleep(0.05)
        return False

    def _watch(self) -> None:
        while not self._stopped.wait(1.0):
            if not self._server.alive():
                self.found.fault("ends of the server", str(self._server.process.returncode))
                self._stopped.set()
                return
            self.found.rss.append(self._server.rss_mib())

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Any]:
        with grpc.insecure_channel(self._server.target, _OWN_CONNECTION) as channel:
            yield channel.unary_unary(wire.PREDICT.path)


def _scores(response: Any) -> dict[str, bytes]:
    return {name: proto.SerializeToString() for name, proto in response.outputs.items()}


def _status(predict: Any, data: bytes, timeout: float = _TIMEOUT) -> tuple[str, str]:
    try:
        predict(data, timeout=timeout)
    except grpc.RpcError as error:
        return error.code().name, error.details() or ""
    return "OK", ""
