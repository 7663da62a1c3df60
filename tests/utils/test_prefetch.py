"""Stages in threads: order, bounds, errors and closing."""

from __future__ import annotations

import threading
import time

import pytest

from utils.prefetch import prefetch


def test_order_is_kept_through_chained_stages():
    squares = prefetch(x * x for x in prefetch(range(200)))
    assert list(squares) == [x * x for x in range(200)]


def test_stage_is_never_more_than_depth_items_ahead():
    made = []
    items = prefetch((made.append(i) or i for i in range(100)), depth=3)
    for i in range(20):
        assert next(items) == i
        time.sleep(0.002)
        assert len(made) <= i + 1 + 3 + 1  # taken, finished, at work
    items.close()


def test_stage_works_while_its_items_are_used():
    meet = threading.Barrier(2, timeout=5)  # passes only when both threads stand there

    def stage():
        yield 0
        meet.wait()
        yield 1

    items = prefetch(stage())
    assert next(items) == 0
    meet.wait()
    assert list(items) == [1]


def test_error_of_a_stage_is_raised_where_its_items_are_taken():
    def broken():
        yield 1
        raise ValueError("no second")

    items = prefetch(prefetch(broken()))
    assert next(items) == 1
    with pytest.raises(ValueError, match="no second"):
        next(items)


def test_closing_stops_every_stage_and_closes_the_source():
    closed = threading.Event()

    def endless():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    before = threading.active_count()
    items = prefetch(prefetch(endless()))
    next(items)
    items.close()
    assert closed.wait(5)
    assert threading.active_count() == before
