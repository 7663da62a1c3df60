"""Where runs happen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.reproduce.suite import Run


@dataclass(frozen=True)
class Place:
    """Where a run happens.

    Attributes:
        root: folder with the data sets.
        work: folder of run folders and prepared data.
        threads: of the CPU.
        device: of training.
    """

    root: Path
    work: Path
    threads: int
    device: str

    def folder(self, run: Run) -> Path:
        """Return the run's folder, which need not exist."""
        return (self.work / run.suite / run.name).resolve()
