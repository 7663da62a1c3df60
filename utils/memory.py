"""How much memory is free."""

from __future__ import annotations

from pathlib import Path


def free_memory() -> int | None:
    """Return the memory that Linux calls available, bytes; None on other systems."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
