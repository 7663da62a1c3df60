"""How much memory is free, and whether an error says that none is."""

from __future__ import annotations

import errno
from pathlib import Path

NO_MEMORY = (  # how libraries say it in errors of no kind of its own, in lower case
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "insufficient memory",
    "unable to allocate",
    "alloc_failed",
    "bad_alloc",
    "is killed by signal: killed",  # a worker process, by the system that has run out of it
)


def free_memory() -> int | None:
    """Return the memory that Linux calls available, bytes; None on other systems."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def process_memory() -> tuple[int, int]:
    """Return what this process holds and its peak since `reset_peak`, bytes.

    Raises:
        OSError: the system does not tell; only Linux does.
    """
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    values = {
        line.partition(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "VmHWM"))
    }
    if len(values) < 2:
        raise OSError("/proc/self/status has no VmRSS and VmHWM")
    return int(values["VmRSS"]) * 1024, int(values["VmHWM"]) * 1024


def reset_peak() -> None:
    """Let the peak of this process start from what it holds now.

    Raises:
        OSError: the system cannot do that.
    """
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def ended_worker(error: BaseException) -> str | None:
    """Return in one line that a data loader's worker process has ended; None for any other error.

    torch raises it wherever the main process is when it hears of it.
    """
    text = str(error)
    lost = isinstance(error, ConnectionError | EOFError)  # while it sent a batch
    if not lost and not (isinstance(error, RuntimeError) and text.startswith("DataLoader worker")):
        return None
    signal = text.partition("by signal: ")[2].split(".")[0]
    how = f" (signal: {signal})" if signal else ""
    return f"a process that reads images has ended{how}; fewer --workers take less memory, 0 needs none"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that led to it, is that memory ran out: of the system or of a GPU."""
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen).lower()
        if isinstance(seen, MemoryError) or getattr(seen, "errno", None) == errno.ENOMEM:
            return True
        is_cv2 = type(seen).__module__ == "cv2"
        if (is_cv2 or isinstance(seen, RuntimeError | OSError | ImportError)) and any(
            words in text for words in NO_MEMORY
        ):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
