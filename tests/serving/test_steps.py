"""Steps of loading: on which thread they run, and how long they are patient."""

import os
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from serving import steps
from serving.steps import QuietSteps, Steps, Stopped


def policy():
    return threading.get_native_id(), os.sched_getscheduler(0) if sys.platform == "linux" else 0


def test_steps_run_on_the_calling_thread():
    assert Steps().run(policy) == policy()


def test_quiet_steps_share_a_thread_that_gives_its_core_to_others():
    with QuietSteps() as quiet:
        first, second = quiet.run(policy), quiet.run(policy)
    assert first == second
    assert first[0] != threading.get_native_id()
    if sys.platform == "linux":  # elsewhere threads share one priority
        assert first[1] == os.SCHED_IDLE != policy()[1]


def test_what_a_step_raises_is_raised_and_the_next_one_runs():
    with QuietSteps() as quiet:
        with pytest.raises(ZeroDivisionError):
            quiet.run(lambda: 1 / 0)
        assert quiet.run(lambda: 2) == 2


def test_steps_that_waited_long_enough_are_followed_by_steps_on_the_calling_thread():
    with QuietSteps(patience=60.0) as quiet:
        quiet.run(lambda: time.sleep(0.1))
        assert quiet._patience <= 59.95
        assert quiet.run(threading.get_native_id) != threading.get_native_id()
        quiet._patience = 0.0
        assert quiet.run(threading.get_native_id) == threading.get_native_id()


def test_no_step_or_pause_begins_once_nobody_needs_what_is_loaded():
    stopped = threading.Event()
    with QuietSteps(stopped.is_set) as quiet:
        quiet.pause()
        assert quiet.run(lambda: 1) == 1
        stopped.set()
        for begin in (quiet.pause, lambda: quiet.run(pytest.fail)):
            with pytest.raises(Stopped, match="about to stop"):
                begin()


def test_a_core_that_is_used_is_no_waiting(monkeypatch):
    wall, core = iter([0.0, 100.0, 200.0, 200.5]), iter([0.0, 99.9, 0.0, 0.1])
    clocks = SimpleNamespace(monotonic=wall.__next__, thread_time=core.__next__)
    monkeypatch.setattr(steps, "time", clocks)
    with QuietSteps(patience=0.4) as quiet:
        quiet.run(int)
        assert quiet._patience == pytest.approx(0.3)
        quiet.run(int)
        assert quiet._patience == pytest.approx(-0.1)


def test_only_quiet_steps_pause(monkeypatch):
    slept = []
    monkeypatch.setattr(steps, "time", SimpleNamespace(sleep=slept.append))
    Steps().pause()
    assert not slept
    with QuietSteps() as quiet:
        quiet.pause()
    assert slept == [steps._PAUSE_SECONDS]
