"""Stages of work that overlap: each in a thread of its own, in order, and never far ahead of the next."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
_END = object()


def prefetch(items: Iterable[T], depth: int = 1) -> Generator[T, None, None]:
    """Iterate over `items` in a thread, at most `depth` finished items ahead of the consumer.

    Chained, every stage of a pipeline runs while the others do, and memory stays flat:
    `prefetch(write(prefetch(compute(prefetch(read())))))`. What the thread raises is raised here. Closing the
    generator stops the thread after the item it works on, and closes `items`.
    """
    finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
    free, stop = threading.Semaphore(depth), threading.Event()

    def work() -> None:
        iterator, error = iter(items), None
        try:
            for item in iterator:
                free.acquire()
                if stop.is_set():
                    break
                finished.put((item, None))
        except BaseException as caught:  # every kind is raised again, where the items are taken
            error = caught
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
            finished.put((_END, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            try:
                item, error = finished.get(timeout=0.5)  # a wait without end would not hear Ctrl-C everywhere
            except queue.Empty:
                continue
            if error is not None:
                raise error
            if item is _END:
                return
            free.release()
            yield item
    finally:
        stop.set()
        free.release()
        thread.join(timeout=5)  # a stream that hangs is left behind
