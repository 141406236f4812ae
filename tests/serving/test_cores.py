import os
import threading

import pytest

from serving.cores import Cores, usable_cores


@pytest.fixture
def eight_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "250000 100000\n"}, 3),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "9900000 100000\n"}, 8),
        ({"cpu.max": "what\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "400000\n"}, 8),
    ],
)
def test_cores_are_those_of_the_process_up_to_its_containers_limit(
    files, cores, tmp_path, eight_cores
):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert usable_cores(tmp_path) == cores


def test_this_machine_has_cores():
    assert 1 <= usable_cores() <= os.cpu_count()


def test_a_run_takes_what_is_idle_and_one_core_at_least():
    cores = Cores(4)
    with cores.taken(1) as one, cores.taken(8) as rest:
        assert (one, rest) == (1, 3)
        with cores.taken(8) as shared, cores.taken(1) as another:
            assert (shared, another) == (1, 1)
    with cores.taken(8) as every:
        assert every == 4


def test_cores_come_back_after_a_failure():
    cores = Cores(2)
    with pytest.raises(KeyError), cores.taken(2):
        raise KeyError
    with cores.taken(2) as count:
        assert count == 2


def test_no_core_is_lost_between_threads():
    cores = Cores(3)

    def work():
        for _ in range(2000):
            with cores.taken(2):
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with cores.taken(9) as count:
        assert count == 3
