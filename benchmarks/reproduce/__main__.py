"""Reproduce the numbers of docs/results, run by run.

    python -m benchmarks.reproduce tiny
    python -m benchmarks.reproduce from_scratch --data-root ~/datasets --seeds 3
    python -m benchmarks.reproduce from_scratch --resume --only bccd 'treecrowns/spd/*'
    python -m benchmarks.reproduce from_scratch --report      # tables and plots, from the CSV alone
    python -m benchmarks.reproduce from_scratch --latency     # times again, all networks in turns

Each run is a process of its own. A row is added to the CSV when a run has ended, so a suite may be
interrupted at any time; --resume makes what is left, and goes on with an unfinished run from its own last.pt.
Two commands on one suite share the work: a run that one of them makes is left out by the other.
"""

from __future__ import annotations

import sys

from benchmarks.reproduce.command import ReproduceConfig, main, with_flag
from utils.cli import run

if __name__ == "__main__":
    run(ReproduceConfig, main, with_flag(sys.argv[1:]))
