"""Ctrl-C and SIGTERM: work ends between two items, so that no file is left half written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")
_END: Any = object()


class StopSignals:
    """Context in which Ctrl-C and SIGTERM are noted, and heard only where `until_stopped` awaits an item.

    What is done with an item, and closing files afterwards, is thus never interrupted. Nothing changes
    outside of the main thread, where Python delivers no signals, and for a signal that the process ignores.

    Attributes:
        received: number of the signal that came first; None before.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._awaiting = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = self.received or number
        if self._awaiting:
            raise KeyboardInterrupt

    @property
    def exit_code(self) -> int:
        """As shells expect it of a process that a signal ended: 130 or 143; 0 without a signal."""
        return 128 + self.received if self.received else 0

    def until_stopped(self, items: Iterable[T]) -> Iterator[T]:
        """Yield items until there are no more or a signal came; an item that is not ready then is dropped."""
        iterator = iter(items)
        try:
            while True:
                self._awaiting = True
                if self.received:
                    return
                item = next(iterator, _END)
                self._awaiting = False
                if (
                    item is _END or self.received
                ):  # where a finalizer ran just then, Python drops the exception
                    return
                yield item
        except KeyboardInterrupt:
            self._awaiting = False
            self.received = self.received or signal.SIGINT
        finally:
            self._awaiting = False
