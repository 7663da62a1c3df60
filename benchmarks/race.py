"""Times of several functions, measured in turns, so that whatever else the machine does hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def race(
    contestants: Mapping[str, Callable[[], object]], rounds: int, device: str = "cpu"
) -> dict[str, float]:
    """Return the median seconds of each, after one run that does not count."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for lap in range(rounds + 1):
        for name, function in contestants.items():
            _finish(device)
            start = time.perf_counter()
            function()
            _finish(device)
            if lap:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(laps) for name, laps in times.items()}


def _finish(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize()


def print_ratios(title: str, seconds: Mapping[str, float], reference: str) -> None:
    """Print a row: milliseconds of the reference, then what share of them each other takes."""
    base = seconds[reference]
    others = "  ".join(f"{name} {time / base:.2f}x" for name, time in seconds.items() if name != reference)
    print(f"{title:<34} {reference} {1000 * base:8.2f} ms  {others}", flush=True)
