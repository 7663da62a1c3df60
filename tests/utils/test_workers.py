"""A function applied in threads: order, bounds, errors and closing."""

from __future__ import annotations

import threading
import time

import pytest

from utils.workers import ordered_map


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_keep_the_order_of_the_items(workers):
    def slow_at_times(x):
        time.sleep(0.003 * (x % 3 == 0))
        return x * x

    assert list(ordered_map(slow_at_times, range(60), workers)) == [x * x for x in range(60)]
    assert list(ordered_map(slow_at_times, [], workers)) == []


def test_workers_are_at_work_at_the_same_time():
    meet = threading.Barrier(3, timeout=5)  # passes only when three threads stand there
    assert sorted(ordered_map(lambda _: meet.wait(), range(3), 3)) == [0, 1, 2]


def test_items_are_taken_at_most_twice_as_many_ahead_as_workers():
    taken = []
    results = ordered_map(lambda x: x, (taken.append(i) or i for i in range(100)), 3)
    for i in range(20):
        assert next(results) == i
        time.sleep(0.002)
        assert len(taken) <= i + 6
    results.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_is_raised_in_the_place_of_its_result(workers):
    def no_two(x):
        if x == 2:
            raise ValueError("two")
        return x

    results = ordered_map(no_two, range(5), workers)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_an_error_of_the_items_comes_after_the_results_of_those_before(workers):
    def three():
        yield from range(3)
        raise ValueError("no more")

    def slow(x):
        time.sleep(0.01)
        return x

    results = ordered_map(slow, three(), workers)
    assert [next(results), next(results), next(results)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no more"):
        next(results)


@pytest.mark.parametrize("workers", [1, 3])
def test_no_result_waits_for_the_next_item(workers):
    wanted = threading.Semaphore(1)

    def one_at_a_time():
        for number in range(5):
            assert wanted.acquire(timeout=5)
            yield number

    results = ordered_map(lambda x: x, one_at_a_time(), workers)
    for number in range(5):
        assert next(results) == number
        wanted.release()


@pytest.mark.parametrize("workers", [1, 2])
def test_closing_closes_the_source_and_ends_the_threads(workers):
    closed = threading.Event()

    def endless():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    before = threading.active_count()
    results = ordered_map(lambda x: x, endless(), workers)
    assert next(results) == 0
    results.close()
    assert closed.is_set() and threading.active_count() == before


def test_each_thread_is_initialized_once_and_the_callers_is_not():
    local, count = threading.local(), []

    def initialize():
        local.number = len(count)
        count.append(1)

    numbers = set(ordered_map(lambda _: time.sleep(0.01) or local.number, range(12), 3, initialize))
    assert numbers == set(range(3)) and not hasattr(local, "number")
