"""Everything that can happen to a server at the same time, for some seconds."""

import pytest

from benchmarks.serving_soak import soak
from benchmarks.serving_soak_plan import Plan, Soaked


def test_mixed_load_loses_nothing_and_answers_nothing_wrong():
    plan = Plan(
        seconds=15,
        callers=1,
        connections=50,
        swap_seconds=0.5,
        connect_seconds=2.0,
        least_swaps=1,
    )
    found = soak(plan)
    assert found.faults == []
    for name in (
        *("good requests", "malformed requests", "cancelled calls", "connections"),
        *("swaps", "corrupt versions", "SIGHUP"),
    ):
        assert found.counts.get(name, 0) > 0, f"no {name}"
    assert found.rss, "memory must have been measured"


def test_faults_and_growth_are_found():
    found = Soaked(rss=[10.0] * 30 + [100.0] * 35 + [110.0] * 35)
    found.fault("wrong answers", "request 3, version 2")
    assert found.counts == {"wrong answers": 1}
    assert found.faults == ["wrong answers: request 3, version 2"]
    assert found.growth(0.3) == pytest.approx(0.1)
