"""Interrupt every command again and again, go on, and compare with a command that was left alone.

    python -m benchmarks.survive                            # some 800 injections, half an hour
    python -m benchmarks.survive --only train --most 5

Each command runs on a tiny network and four images of 64 px. It is killed with SIGKILL, or gets a SIGTERM,
before a file operation; is killed at any moment; or the disk is full from a file operation on, or no file can
be longer than some bytes. At most `--most` operations are drawn for each fault; where there are fewer, each
is met. Then the next command (training: --resume) must work, and its result must be the uninterrupted one's:
weights bit by bit, each row of results.csv once, every file readable, no leftovers. Anything else is a loss.
"""

from __future__ import annotations

import importlib
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch

from benchmarks.faults import Ended, Fault, in_process
from benchmarks.markdown import print_head, print_row
from benchmarks.survive_cases import CASES, Case, equal, make_inputs
from utils.cli import run
from utils.errors import UserError, suggest
from utils.offline import import_openvino, keep_offline
from utils.options import Options, opt

KINDS = ("kill -9", "SIGTERM", "kill -9, any moment", "disk full", "disk full, any byte")
ANSWER = "answer: "
IMPORTED = (
    *("matplotlib.backends.backend_agg", "scipy.optimize", "pandas", "jinja2", "PIL.ImageDraw"),
    *("onnx", "onnxruntime", "onnxscript", "torch.onnx._internal.exporter", "ultralytics.utils.plotting"),
    *("engine.evaluation.command", "engine.export.command", "engine.inference.command"),
    *("engine.training.command", "engine.training.tasks", "engine.runtimes.openvino", "data.converters"),
)
FULL = ("disk full", "disk full, any byte")


@dataclass(frozen=True)
class SurviveConfig(Options):
    """Interrupt commands and compare what they leave."""

    most: int = opt(20, "injections of each fault into each command", min=1)
    only: tuple[str, ...] = opt((), "commands, by their names in the table")
    minutes: float = opt(0.0, "after which no further injection is made; 0: no limit", min=0)
    seed: int = opt(0, "of the choice of operations and moments", min=0)

    def __post_init__(self) -> None:
        """Check the names."""
        super().__post_init__()
        names = [case.name for case in CASES]
        for name in self.only:
            if name not in names:
                raise UserError(f"no command '{name}' here. {suggest(name, names)}")


def main(cfg: SurviveConfig) -> int:
    """Interrupt, print every loss and the table; return 1 where something was lost."""
    import_all()
    rng, started = random.Random(cfg.seed), time.monotonic()
    injections: Counter[tuple[str, str]] = Counter()
    losses: Counter[tuple[str, str]] = Counter()
    chosen = [case for case in CASES if not cfg.only or case.name in cfg.only]
    with tempfile.TemporaryDirectory() as place:
        laboratory = Laboratory(Path(place))
        for case in chosen:
            whole = laboratory.left_alone(case)
            print(f"{case.name}: {whole.operations} file operations, {whole.seconds:.1f} s", flush=True)
            drawn = list(faults(whole, laboratory.largest, cfg.most, rng))
            rng.shuffle(drawn)  # where time runs out, it does so for every kind
            for fault in drawn:
                if cfg.minutes and time.monotonic() - started > 60 * cfg.minutes:
                    break
                problem = laboratory.interrupt(case, fault)
                injections[case.name, fault.kind] += 1
                if problem:
                    losses[case.name, fault.kind] += 1
                    print(f"  {fault.kind} at {fault.at:g}: {problem}", flush=True)
    print_head("injections / losses", *KINDS)
    for case in chosen:
        print_row(
            case.name, *(f"{injections[case.name, kind]} / {losses[case.name, kind]}" for kind in KINDS)
        )
    print(f"{injections.total()} injections, {losses.total()} losses; worst {laboratory.worst:.1f} s")
    return int(bool(losses.total()))


def faults(whole: Ended, largest: int, most: int, rng: random.Random) -> Iterator[Fault]:
    """Yield at most `most` faults of each kind."""
    operations = range(1, whole.operations + 1)
    for kind in KINDS:
        if kind == "kill -9, any moment":
            yield from (Fault(kind, rng.uniform(0, whole.seconds)) for _ in range(most))
        elif kind == "disk full, any byte":
            yield from (Fault(kind, int(largest ** rng.uniform(0, 1))) for _ in range(most))
        else:
            drawn = sorted(rng.sample(operations, min(most, len(operations))))
            yield from (Fault(kind, number) for number in drawn)


class Laboratory:
    """Where commands run.

    Args:
        place: an empty folder.

    Attributes:
        largest: bytes of the largest file that the last command left alone has written.
        worst: seconds of the longest interrupted or following command.
    """

    def __init__(self, place: Path) -> None:
        self.place, self.inputs, self.folder = place, place / "inputs", place / "work"
        self.largest, self.worst = 1, 0.0
        self._do(lambda: make_inputs(self.inputs))

    def _do(self, work: Callable[[], Any], fault: Fault | None = None) -> Ended:
        ended = in_process(work, self.folder, fault)
        self.worst = max(self.worst, ended.seconds)
        if fault is None and ended.code:
            raise UserError(f"a command fails without a fault, code {ended.code}: {ended.text[-600:]}")
        return ended

    def fresh(self, case: Case) -> Path:
        """Make the working folder as the command finds it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.inputs, self.folder)
        case.prepare(self.folder)
        return self.folder

    def left_alone(self, case: Case) -> Ended:
        """Do the command, and keep its result."""
        if case.name == "export":
            older = self.place / "exported"
            shutil.copytree(self.inputs, older)
            shutil.copy(older / "old.pt", older / "w.pt")
            self._do(lambda: case.command(older))
        folder = self.fresh(case)
        ended = self._do(lambda: case.command(folder))
        self.largest = max(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        shutil.copytree(folder, self.place / f"reference {case.name}", dirs_exist_ok=True)
        self._do(lambda: torch.save(case.result(folder), self._expected(case)))
        return ended

    def _expected(self, case: Case) -> Path:
        return self.place / f"{case.name}.result"

    def _different(self, case: Case) -> str:
        """Return what is not as the command left alone has left it."""
        expected, result = torch.load(self._expected(case), weights_only=False), case.result(self.folder)
        different = [key for key in result if not equal(result[key], expected[key])]
        return f"afterwards other {' and '.join(different)}" if different else ""

    def interrupt(self, case: Case, fault: Fault) -> str:
        """Do the command with a fault, then the next one; return what is lost, or nothing."""
        folder = self.fresh(case)
        ended = self._do(lambda: case.command(folder), fault)
        problem = self._ending(fault, ended)
        try:
            problem = problem or self._said(lambda: case.usable(folder))
            if not problem:
                self._do(lambda: case.next_command(folder))
                problem = self._said(lambda: self._different(case))
        except UserError as error:
            problem = str(error)
        return problem

    def _said(self, question: Callable[[], str]) -> str:
        """Return the answer that another process gives: what it loads and starts ends with it."""
        return self._do(lambda: print(ANSWER + question())).text.rpartition(ANSWER)[2].strip()

    @staticmethod
    def _ending(fault: Fault, ended: Ended) -> str:
        """Return what is wrong with how a command ended."""
        if ended.code is None:
            return "hung"
        if "Traceback" in ended.text:
            return f"traceback: {ended.text.strip().splitlines()[-1]}"
        if fault.kind == "kill -9" and ended.code != -9:
            return f"was not killed: code {ended.code}"
        if fault.kind not in FULL:
            return "" if ended.code in (-9, -15, 0, 130, 143) else f"code {ended.code}: {ended.text[-300:]}"
        if ended.code == 2 and ended.text.count("error:") == 1:
            return ""
        return "" if ended.code == 0 else f"code {ended.code}: {ended.text[-300:]}"


def import_all() -> None:
    """Import what commands import when they need it, once for all the processes that are forked."""
    keep_offline()
    import_openvino()
    for name in IMPORTED:
        importlib.import_module(name)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


if __name__ == "__main__":
    run(SurviveConfig, main)
