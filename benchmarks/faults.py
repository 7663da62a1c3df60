"""Faults for a process of our own: killed or asked to stop at a file operation, or out of disk space.

Python tells of every file operation through its audit hooks. A fault comes before the operation of a given
number; what is written by C++ code between two of them is met by kills at random moments and by a limit on
the size of files.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OPERATIONS = frozenset(
    [
        *("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"),
        *("os.listdir", "os.scandir", "os.utime", "os.chmod", "shutil.rmtree", "shutil.copyfile"),
    ]
)
CREATING = frozenset(("os.rename", "os.mkdir", "os.link", "os.symlink", "shutil.copyfile"))


@dataclass(frozen=True)
class Fault:
    """What happens to a process.

    Attributes:
        kind: "kill -9" or "SIGTERM" before file operation `at`; "disk full" from there on, for what creates
            something; "kill -9, any moment" after `at` seconds; "disk full, any byte": no file can be
            longer than `at` bytes.
        at: a number of an operation, from 1; seconds; or bytes.
    """

    kind: str
    at: float


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: its exit code; below 0, the signal that ended it; None: it hung and was killed.
        text: what it printed, both streams.
        operations: how many file operations there were below the folder; 0 after a kill.
        seconds: from start to end.
    """

    code: int | None
    text: str
    operations: int
    seconds: float


def in_process(work: Callable[[], Any], folder: Path, fault: Fault | None = None, most: float = 240) -> Ended:
    """Do some work in a process of its own, with everything imported that this one has.

    Args:
        work: may call sys.exit, as commands do.
        folder: below which file operations count.
        fault: what happens meanwhile.
        most: seconds, after which it counts as hung.
    """
    reading, writing = os.pipe()
    started = time.monotonic()
    process = os.fork()
    if not process:
        os.close(reading)
        _work(work, folder, fault, writing)
    os.close(writing)
    end = started + most
    killed = started + fault.at if fault and fault.kind == "kill -9, any moment" else None
    text = b""
    while (now := time.monotonic()) < end:
        if killed is not None and now >= killed:
            os.kill(process, signal.SIGKILL)
            killed = None
        wait = (killed if killed is not None else end) - now
        if select.select([reading], [], [], max(wait, 0))[0]:
            piece = os.read(reading, 65536)
            if not piece:
                break
            text += piece
    os.close(reading)
    hung = time.monotonic() >= end
    if hung:
        os.kill(process, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    said, _, count = text.decode(errors="replace").rpartition("\0operations ")
    seconds = time.monotonic() - started
    if not count.isdecimal():
        said, count = text.decode(errors="replace"), "0"
    return Ended(None if hung else code, said, int(count), seconds)


def _work(work: Callable[[], Any], folder: Path, fault: Fault | None, output: int) -> None:
    """Do the work in this new process, and end it."""
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    code: Any = 1
    counter = _Counter(folder, fault)
    try:
        sys.addaudithook(counter)
        if fault and fault.kind == "disk full, any byte":
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(fault.at), resource.RLIM_INFINITY))
        work()
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        counter.fault = None
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(output, f"\0operations {counter.count}".encode())
        os._exit(code)


class _Counter:
    """An audit hook that counts file operations below a folder, and is the fault at one of them."""

    def __init__(self, folder: Path, fault: Fault | None) -> None:
        self.folder, self.fault, self.count = str(folder), fault, 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if (
            event not in OPERATIONS
            or not arguments
            or not isinstance(arguments[0], str | bytes | os.PathLike)
        ):
            return
        if not os.fsdecode(arguments[0]).startswith(self.folder):
            return
        self.count += 1
        if self.fault is None or self.count < self.fault.at:
            return
        if self.fault.kind == "disk full" and (event in CREATING or _creates(event, arguments)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.count > self.fault.at:
            return
        if self.fault.kind == "kill -9":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.fault.kind == "SIGTERM":
            os.kill(os.getpid(), signal.SIGTERM)


def _creates(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether a file is opened to be written."""
    return event == "open" and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
