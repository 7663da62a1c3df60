"""What can be taken again without training: latency, with all networks in turns, and scores."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.reproduce import latency
from benchmarks.reproduce.place import Place
from benchmarks.reproduce.results import Results, Row, as_text, key_of
from benchmarks.reproduce.runs import to_time
from benchmarks.reproduce.suite import Run
from utils.errors import UserError

LOG = logging.getLogger(__name__)


def retake_latency(runs: Sequence[Run], results: Results, place: Place) -> None:
    """Measure every network of the CSV once more, all in turns, and note the times in all rows of it.

    Raises:
        UserError: no run folder of any row is there.
    """
    rows = {key_of(row): row for row in results.read()}
    chosen: dict[tuple[str, str], latency.Timed] = {}
    for run in runs:
        if run.key in rows and not run.entry.runtime:
            network = to_time(run, place, int(rows[run.key]["imgsz"]))
            if network.weights.exists():
                chosen.setdefault((run.data, run.network), network)
    if not chosen:
        raise UserError(
            f"no weights of the rows of {results.path} in {place.work}; times need the run folders"
        )
    contestants: dict[str, Callable[[], object]] = {}
    for (data, name), network in chosen.items():
        for column, function in network.runners().items():
            contestants[f"{data}|{name}|{column}"] = function
    before = latency.load()
    times = latency.measure(contestants)
    LOG.info("%d networks measured in turns", len(chosen))

    def with_times(old: list[Row]) -> list[Row]:
        return [{**row, **_times_of(row, times, before, place.threads)} for row in old]

    results.change(with_times)


def _times_of(row: Row, times: dict[str, float], before: float | None, threads: int) -> Row:
    """Return the cells that change."""
    taken = {
        column: times.get(f"{row['data']}|{row['network']}|{column}") for column in ("ms_pytorch", "ms_onnx")
    }
    if taken["ms_pytorch"] is None:
        return {}
    cells = as_text({**taken, "load": before, "threads": threads})
    return {name: cells[name] for name in (*taken, "load", "threads")}


def rescore(runs: Sequence[Run], results: Results, place: Place) -> None:
    """Score the detections that the run folders keep once more, and note the metrics in the rows.

    Raises:
        UserError: no detections of any row are there.
    """
    from benchmarks.reproduce.datasets import prepared
    from benchmarks.reproduce.scoring import ScoredData, score

    rows = {key_of(row): row for row in results.read()}
    changed: dict[tuple[str, ...], dict[str, Any]] = {}
    for run in runs:
        kept = place.folder(run) / "scored"
        if run.key in rows and (kept / "inputs.npz").exists():
            data = prepared(run.data, place.root, place.work, run.entry.tile)
            evaluator = "pycocotools" if run.entry.runtime else "hotcoco"
            imgsz = int(rows[run.key]["imgsz"])
            changed[run.key] = score(
                kept, ScoredData(data, run.data_entry.split, imgsz, evaluator, not run.entry.runtime)
            )
            LOG.info("%s scored again", run.name)
    if not changed:
        raise UserError(
            f"no detections of the rows of {results.path} in {place.work}; scoring needs the run folders"
        )

    def with_scores(old: list[Row]) -> list[Row]:
        return [{**row, **_cells(changed.get(key_of(row), {}))} for row in old]

    results.change(with_scores)


def _cells(values: dict[str, Any]) -> Row:
    text = as_text(values)
    return {name: text[name] for name in values}
