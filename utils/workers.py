"""A function that several threads apply to items at once, with the results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(
    function: Callable[[T], R],
    items: Iterable[T],
    workers: int,
    initializer: Callable[[], object] | None = None,
) -> Generator[R, None, None]:
    """Apply a function to each item in `workers` threads; yield the results in the order of the items.

    At most twice as many items as workers are taken before their results are. An error is raised where the
    result would be, and later items are given up. Closing the generator waits for the items at work and
    closes `items`.

    Args:
        function: is called in the threads.
        items: are taken in the caller's thread.
        workers: how many threads; with 1 everything happens in the caller's.
        initializer: is called once in each of the threads, not in the caller's.
    """
    iterator = iter(items)
    try:
        if workers == 1:
            for item in iterator:
                yield function(item)
        else:
            yield from _in_threads(function, iterator, workers, initializer)
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


def _in_threads(
    function: Callable[[T], R], items: Iterable[T], workers: int, initializer: Callable[[], Any] | None
) -> Generator[R, None, None]:
    started: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(workers, initializer=initializer)
    try:
        for item in items:
            started.append(pool.submit(function, item))
            while started and (len(started) == 2 * workers or started[0].done()):
                yield _result(started.popleft())
        while started:
            yield _result(started.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _result(future: Future[R]) -> R:
    while not wait((future,), timeout=0.5).done:  # a wait without end would not hear Ctrl-C everywhere
        pass
    return future.result()
