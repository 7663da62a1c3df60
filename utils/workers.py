"""A function that several threads apply to items at once, with the results in order."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from utils.prefetch import prefetch

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(
    function: Callable[[T], R],
    items: Iterable[T],
    workers: int,
    initializer: Callable[[], object] | None = None,
) -> Generator[R, None, None]:
    """Apply a function to each item in `workers` threads; yield the results in the order of the items.

    At most twice as many items as workers are taken before their results are, and no result waits for a later
    item. An error, of the function or of `items`, is raised where the result would be, and later items are
    given up. Closing the generator waits for the items at work and closes `items`.

    Args:
        function: is called in the threads.
        items: are taken in one more thread.
        workers: how many threads; with 1 everything happens in the caller's.
        initializer: is called once in each of the threads, not in the caller's.
    """
    if workers == 1:
        yield from _applied(function, items)
        return
    pool = ThreadPoolExecutor(workers, initializer=initializer)
    ahead = 2 * workers - 2  # beside one that is being handed over and one whose result is waited for
    started = prefetch(_applied(lambda item: pool.submit(function, item), items), ahead)
    try:
        for future in started:
            yield _result(future)
    finally:
        started.close()
        pool.shutdown(cancel_futures=True)


def _applied(function: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
    """Like map, but closing it closes `items`."""
    iterator = iter(items)
    try:
        yield from map(function, iterator)
    finally:
        close: Any = getattr(iterator, "close", None)
        if close is not None:
            close()


def _result(future: Future[R]) -> R:
    while not wait((future,), timeout=0.5).done:  # a wait without end would not hear Ctrl-C everywhere
        pass
    return future.result()
