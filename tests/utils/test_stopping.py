"""Ctrl-C and SIGTERM are heard between items, and never while one is worked on."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from utils.stopping import StopSignals

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", SIGNALS)
def test_the_item_at_hand_is_finished_and_no_other_begun(number: int) -> None:
    finished = []
    with StopSignals() as stops:
        for item in stops.until_stopped(range(5)):
            if item == 2:
                os.kill(os.getpid(), number)
            finished.append(item)
    assert finished == [0, 1, 2]
    assert (stops.received, stops.exit_code) == (number, 128 + number)


@pytest.mark.parametrize("number", SIGNALS)
def test_waiting_for_an_item_that_does_not_come_ends_at_once(number: int) -> None:
    def silent_stream() -> Iterator[int]:
        yield 0
        time.sleep(30)
        yield 1

    timer = threading.Timer(0.3, os.kill, (os.getpid(), number))
    timer.start()
    start = time.monotonic()
    with StopSignals() as stops:
        assert list(stops.until_stopped(silent_stream())) == [0]
    assert time.monotonic() - start < 10 and stops.received == number


def test_closing_after_a_signal_is_not_interrupted_by_the_next() -> None:
    with StopSignals() as stops:
        for _ in stops.until_stopped(range(3)):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        closed = True
    assert closed and stops.exit_code == 143


def test_all_items_without_a_signal_are_exit_code_0_and_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopSignals() as stops:
        assert list(stops.until_stopped(range(3))) == [0, 1, 2]
    assert stops.exit_code == 0 and [signal.getsignal(number) for number in SIGNALS] == before


def test_an_ignored_signal_stays_ignored() -> None:
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals() as stops:
            os.kill(os.getpid(), signal.SIGINT)
            assert list(stops.until_stopped(range(2))) == [0, 1]
        assert stops.received is None
    finally:
        signal.signal(signal.SIGINT, previous)


def test_errors_of_the_items_are_raised() -> None:
    def broken() -> Iterator[int]:
        yield 0
        raise ValueError("no second")

    with StopSignals() as stops, pytest.raises(ValueError, match="no second"):
        list(stops.until_stopped(broken()))
