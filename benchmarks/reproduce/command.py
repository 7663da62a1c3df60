"""The command: makes the runs of a suite that are missing, and its report."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import UserError
from utils.log import RESULT, LogOptions
from utils.options import Options, group, opt

if TYPE_CHECKING:
    from benchmarks.reproduce.place import Place
    from benchmarks.reproduce.results import Results
    from benchmarks.reproduce.suite import Run

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReproduceConfig(Options):
    """Make the runs of a suite: python -m benchmarks.reproduce SUITE."""

    suite: str | None = opt(None, "name of a file in benchmarks/suites, or a path (or as the first argument)")
    seeds: int | None = opt(None, "seeds of every network, 0, 1, ... (default: as the suite says)", min=1)
    only: tuple[str, ...] = opt((), "data sets and networks to run, or patterns such as 'bccd/spd/*'")
    resume: bool = opt(False, "go on with a CSV that has rows: make the runs that are left")
    report: bool = opt(False, "tables and plots from the CSV, nothing is run")
    latency: bool = opt(False, "take the times of all finished networks again, in turns, nothing is trained")
    rescore: bool = opt(False, "score the detections kept in the run folders again, nothing is run")
    against: tuple[str, ...] = opt((), "networks that the others are compared with (default: the suite's)")
    out: Path | None = opt(None, "the CSV (default: docs/results/SUITE.csv)")
    data_root: Path | None = opt(
        None, "folder with the data sets (default: YOLOV5_SPD_DATA, or datasets beside the checkout)"
    )
    work: Path = opt("runs/reproduce", "folder of run folders and prepared data")
    threads: int = opt(1, "threads of the CPU", min=1)
    device: str = opt("cpu", "where to train: cpu, 0, cuda:1; times are always the CPU's")
    log: LogOptions = group(LogOptions)

    def __post_init__(self) -> None:
        """Check that the options fit together."""
        super().__post_init__()
        if self.suite is None:
            raise UserError("needs the name of a suite, such as tiny or from_scratch")
        if sum((self.report, self.latency, self.rescore)) > 1:
            raise UserError("--report, --latency and --rescore exclude each other")


def main(cfg: ReproduceConfig) -> int:
    """Make what is missing, and the report; 1 where a run failed."""
    from benchmarks.reproduce.datasets import data_root
    from benchmarks.reproduce.place import Place
    from benchmarks.reproduce.report import write_report
    from benchmarks.reproduce.results import Results
    from benchmarks.reproduce.suite import find_suite, read_suite, runs_of
    from data.paths import PROJECT

    file = find_suite(str(cfg.suite))
    suite, name = read_suite(file), file.stem
    results = Results(cfg.out or PROJECT / "docs" / "results" / f"{name}.csv", name)
    place = Place(data_root(cfg.data_root), cfg.work, cfg.threads, cfg.device)
    failed = 0
    if not cfg.report:
        runs = runs_of(suite, name, cfg.seeds, cfg.only)
        if cfg.latency or cfg.rescore:
            from benchmarks.reproduce.retake import rescore, retake_latency

            (retake_latency if cfg.latency else rescore)(runs, results, place)
        else:
            failed = make_missing(cfg, runs, results, place)
    if failed and not results.path.exists():
        return 1
    if not results.path.exists():
        raise UserError(f"no {results.path} yet; make its runs first: python -m benchmarks.reproduce {name}")
    LOG.log(RESULT, write_report(results, suite, cfg.against))
    return int(failed > 0)


def make_missing(cfg: ReproduceConfig, runs: Sequence[Run], results: Results, place: Place) -> int:
    """Make the runs that have no row yet; return how many failed."""
    from filelock import FileLock, Timeout

    from benchmarks.reproduce.processes import in_own_process

    missing = left_to_do(runs, results, cfg.resume)
    check_requirements(missing, place)
    failed = 0
    for number, run in enumerate(missing, 1):
        folder = place.folder(run)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / ".lock", timeout=0):
                if run.key in finished_keys(results):  # by another process, meanwhile
                    continue
                LOG.info("[%d/%d] %s, log in %s", number, len(missing), run.name, folder / "log.txt")
                row = in_own_process(run, place)
                results.append(row)
                LOG.info("%s", one_row(row))
        except Timeout:
            LOG.info("[%d/%d] %s: another process makes it", number, len(missing), run.name)
        except UserError as error:
            LOG.warning("%s failed: %s", run.name, error)
            failed += 1
    return failed


def finished_keys(results: Results) -> set[tuple[str, ...]]:
    """Return the keys of the rows that are there."""
    from benchmarks.reproduce.results import key_of

    return {key_of(row) for row in results.read()}


def left_to_do(runs: Sequence[Run], results: Results, resume: bool) -> list[Run]:
    """Return the runs that have no row.

    Raises:
        UserError: there are rows and --resume is not given, or a row is of a run that the suite describes
            otherwise.
    """
    from benchmarks.reproduce.results import key_of

    rows = {key_of(row): row for row in results.read()}
    if rows and not resume:
        raise UserError(
            f"{results.path} has {len(rows)} finished rows: --resume keeps them and makes what is left, "
            "--report shows them, or choose another --out"
        )
    for run in runs:
        if run.key in rows and rows[run.key]["definition"] != run.definition():
            raise UserError(
                f"{results.path}: the row {run.name} was made with {rows[run.key]['definition']}, the suite "
                "now says otherwise; delete the row, rename the network, or choose another --out"
            )
    return [run for run in runs if run.key not in rows]


def check_requirements(runs: Sequence[Run], place: Place) -> None:
    """Check data, weights and packages of all runs before the first starts.

    Raises:
        UserError: something is missing; the message says how to get it.
    """
    from benchmarks.reproduce.datasets import below_root, check_data
    from benchmarks.reproduce.networks import YOLOV5

    for data in dict.fromkeys(run.data for run in runs):
        check_data(data, place.root)
    for weights in dict.fromkeys(run.entry.weights for run in runs if run.entry.weights):
        below_root(place.root, weights, YOLOV5)
    if any(run.entry.peer for run in runs):
        from importlib.util import find_spec

        if find_spec("ultralytics") is None:
            raise UserError(
                "the peers of this suite need Ultralytics: pip install 'ultralytics>=8.4.190,<8.5'"
            )


def one_row(row: dict[str, Any]) -> str:
    """Return a row's main numbers: 'AP 0.094, AP50 0.307, AP_S 0.039; 412 s'."""
    shown = [
        f"{name} {row[name]:.3f}" for name in ("AP", "AP50", "AP_S", "top1") if row.get(name) is not None
    ]
    seconds = row.get("train_seconds")
    return ", ".join(shown) + (f"; {seconds:.0f} s of training" if seconds else "")


def with_flag(arguments: Sequence[str]) -> list[str]:
    """Turn a leading SUITE into --suite SUITE."""
    named = bool(arguments) and not arguments[0].startswith("-")
    return ["--suite", *arguments] if named else list(arguments)
