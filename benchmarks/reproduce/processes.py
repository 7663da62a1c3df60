"""Each run in a process of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

from utils.errors import UserError

if TYPE_CHECKING:
    from benchmarks.reproduce.place import Place
    from benchmarks.reproduce.suite import Run


def in_own_process(run: Run, place: Place) -> dict[str, Any]:
    """Make a run in a process of its own, which no other run can have changed.

    Raises:
        UserError: as `execute`, or the process was killed.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(logged, run, place).result()
        except BrokenProcessPool as error:
            raise UserError("its process was killed (out of memory?); --resume goes on with it") from error


def logged(run: Run, place: Place) -> dict[str, Any]:
    """Make a run, with all output in its log.txt."""
    from benchmarks.reproduce.runs import execute
    from utils.log import setup_logging

    threading.Thread(target=_end_with_parent, daemon=True).start()
    folder = place.folder(run)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        (folder / "log.txt").open("a", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        setup_logging()
        try:
            return execute(run, place)
        finally:
            if not _has_parent():  # a training that was asked to stop has ended; nobody takes what came of it
                os._exit(1)


def _has_parent() -> bool:
    parent = multiprocessing.parent_process()
    return parent is None or parent.is_alive()


def _end_with_parent() -> None:
    """Stop, as at SIGTERM, once the process that wants the row is gone, however it ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
