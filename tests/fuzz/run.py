"""Run a reader on many bad files and report what it did not refuse in one line.

    python -m tests.fuzz.run labels                    # 100,000 files
    python -m tests.fuzz.run labels coco --runs 1000000
    python -m tests.fuzz.run all --seconds 60          # at most a minute for each reader

Files are made from those of the corpus by `tests.fuzz.mutate`; with atheris installed (`pip install
atheris`), `--atheris` lets libFuzzer choose which of them to go on from, by the lines of ours that they
reach. What is found goes to --found, one file for each place in the code.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import logging
import math
import os
import random
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz.mutate import mutated
from tests.fuzz.seeds import CORPUS
from tests.fuzz.targets import TARGETS, folder
from utils.errors import UserError, one_line

SECONDS, MEGABYTES = 5.0, 500.0
HANGS = 30  # seconds of the clock after which a file is given up
LONGEST = 2**15  # bytes
KEPT = 2000  # changed files that are changed further


class _Watch:
    """When the file that is being read was begun; looked at by a timer, which costs each file nothing."""

    started = math.inf


WATCH = _Watch()


class TookTooLong(BaseException):
    """A reader did not come back."""


@dataclass
class Outcome:
    """What came of a target's runs.

    Attributes:
        runs: files read.
        accepted: files that were no error.
        slowest: seconds of the clock, which on a busy machine are more than the processor's.
        memory: megabytes above what the process had after its good files.
        faults: a description of each fault, by the place in the code, with the file.
    """

    runs: int = 0
    accepted: int = 0
    slowest: float = 0.0
    memory: float = 0.0
    faults: dict[str, tuple[str, bytes]] = field(default_factory=dict)


class Runner:
    """Runs one target and keeps count."""

    def __init__(self, name: str):
        self.name, self.target, self.outcome = name, TARGETS[name], Outcome()
        self.corpus = [file.read_bytes() for file in sorted((CORPUS / name).iterdir())]
        for content in self.corpus:  # imports, and what is kept for the next file
            with contextlib.suppress(Exception):
                self.target.read(content)
        self.before = peak()
        for content in self.corpus:
            self.read(content)

    def read(self, content: bytes) -> str:
        """Run the target on a file; return what came of it in a word or two."""
        from data.media.frame import BrokenVideo
        from data.media.image_files import ImageReadError

        self.outcome.runs += 1
        result = "accepted"
        start = WATCH.started = time.monotonic()
        try:
            self.target.read(content)
            self.outcome.accepted += 1
        except (UserError, ImageReadError, BrokenVideo) as error:
            result = "refused"
            line = one_line(str(error))
            if not line or not line.isprintable():
                self.fault("a message that cannot be printed", content)
        except Exception as error:
            result = "fault"
            self.fault(place_of(error), content)
        except TookTooLong as error:
            result = "fault"
            self.fault(f"took more than {HANGS} s in {place_of(error)}", content)
        finally:
            WATCH.started = math.inf
        seconds = time.monotonic() - start
        self.outcome.slowest = max(self.outcome.slowest, seconds)
        if seconds > SECONDS:
            self.fault(f"took {seconds:.0f} s", content)
        return result

    def fault(self, place: str, content: bytes) -> None:
        """Keep the smallest file of each fault."""
        known = self.outcome.faults.get(place)
        if known is None or len(content) < len(known[1]):
            self.outcome.faults[place] = (place, content)

    def measure(self) -> None:
        """Look at the memory, which is known for all files together."""
        self.outcome.memory = max(self.outcome.memory, peak() - self.before)

    def run(self, runs: int, seconds: float, seed: int = 0) -> Outcome:
        """Read changed files until there were `runs`, or for some seconds."""
        rng, end = random.Random(f"{self.name} {seed}"), time.monotonic() + seconds
        pool = list(self.corpus)
        while self.outcome.runs < runs and time.monotonic() < end:
            content = mutated(rng.choice(pool), rng, self.corpus, self.target.structured)[:LONGEST]
            result = self.read(content)
            # an accepted file is worth changing further; some others are, too, for what takes two changes
            if result == "accepted" or rng.random() < 0.01:
                if len(pool) < KEPT:
                    pool.append(content)
                else:
                    pool[rng.randrange(len(self.corpus), KEPT)] = content
        self.measure()
        return self.outcome


def peak() -> float:
    """Most memory that this process has had, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def place_of(error: BaseException) -> str:
    """'KeyError at data/paths.py:70': the last line of ours."""
    root = str(Path(__file__).parents[2])
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(root)]
    last = frames[-1] if frames else None
    where = f" at {os.path.relpath(last.filename, root)}:{last.lineno}" if last else ""
    return f"{type(error).__name__}{where}"


def quiet() -> None:
    """Turn off messages of readers and decoders, and give up on files that take for ever."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    os.chdir(folder())

    def give_up(number: int, frame: FrameType | None) -> None:
        if time.monotonic() - WATCH.started > HANGS:
            raise TookTooLong

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, HANGS, HANGS)


def with_atheris(runner: Runner, runs: int, seconds: float, report: Callable[[], None]) -> None:
    """Let libFuzzer choose the files; ends the process."""
    import atheris

    end = time.monotonic() + seconds

    def one(content: bytes) -> None:
        runner.read(content)
        if runner.outcome.runs >= runs or time.monotonic() > end:
            runner.measure()
            report()
            sys.stdout.flush()
            os._exit(0)

    def change(content: bytes, most: int, seed: int) -> bytes:
        if seed % 2:
            return atheris.Mutate(content, most)
        return mutated(content, random.Random(seed), runner.corpus, runner.target.structured)[:most]

    new = folder() / "reached"  # where libFuzzer keeps what it goes on from
    new.mkdir()
    arguments = [sys.argv[0], "-rss_limit_mb=8000", "-timeout=60", "-verbosity=0", "-max_len=65536"]
    atheris.Setup([*arguments, str(new), str(CORPUS / runner.name)], one, custom_mutator=change)
    atheris.Fuzz()


def report_on(runner: Runner, seconds: float, found: Path, log: Path | None) -> None:
    """Print what came of it and write the files that were not refused."""
    outcome = runner.outcome
    print(
        f"{runner.name}: {outcome.runs:,} runs in {seconds:.0f} s, {outcome.accepted:,} accepted, "
        f"{len(outcome.faults)} faults; slowest {outcome.slowest:.2f} s, {outcome.memory:.0f} MB more"
    )
    for place, (_, content) in outcome.faults.items():
        name = hashlib.md5(place.encode(), usedforsecurity=False).hexdigest()[:8]
        file = found / runner.name / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        print(f"  {place}: {file}, {len(content)} bytes")
    sys.stdout.flush()
    if log is not None:
        new = not log.exists()
        with log.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow(["target", "runs", "accepted", "faults", "slowest_s", "memory_mb"])
            row = [outcome.runs, outcome.accepted, len(outcome.faults)]
            writer.writerow([runner.name, *row, f"{outcome.slowest:.2f}", f"{outcome.memory:.0f}"])


def main(arguments: Any = None) -> int:
    """Run the targets that the command line names; return 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "targets", nargs="+", choices=["all", *TARGETS], metavar="TARGET", help=", ".join(TARGETS)
    )
    parser.add_argument("--runs", type=int, default=100_000, help="files for each target")
    parser.add_argument("--seconds", type=float, default=3600.0, help="at most, for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--found", type=Path, default=Path("runs/fuzz"), help="where files with faults go")
    parser.add_argument("--log", type=Path, help="CSV to which a row for each target is added")
    parser.add_argument("--atheris", action="store_true", help="guided by coverage; one target")
    cfg = parser.parse_args(arguments)
    found, log = cfg.found.resolve(), cfg.log and cfg.log.resolve()
    targets = list(TARGETS) if "all" in cfg.targets else cfg.targets
    if cfg.atheris:
        import atheris

        with atheris.instrument_imports(include=["data", "engine", "models", "utils"]):
            for name in ("data", "engine", "models", "utils"):
                sys.modules.pop(name, None)
            TARGETS[targets[0]].read(next((CORPUS / targets[0]).glob("good*")).read_bytes())
    quiet()
    faults = 0
    for name in targets:
        runner, start = Runner(name), time.monotonic()
        if cfg.atheris:
            with_atheris(
                runner,
                cfg.runs,
                cfg.seconds,
                lambda r=runner, s=start: report_on(r, time.monotonic() - s, found, log),
            )
        runner.run(cfg.runs, cfg.seconds, cfg.seed)
        report_on(runner, time.monotonic() - start, found, log)
        faults += len(runner.outcome.faults)
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
