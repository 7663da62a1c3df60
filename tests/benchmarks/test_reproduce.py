"""The command benchmarks/reproduce: a tiny suite, resumed; bad input; the CSV."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks.reproduce.command import ReproduceConfig, main, with_flag
from benchmarks.reproduce.report import fraction, mean_sd, signed
from benchmarks.reproduce.results import COLUMNS, Results
from benchmarks.reproduce.runs import complete
from benchmarks.reproduce.scoring import Rows, ScoredData, save, score
from benchmarks.reproduce.suite import SUITES, find_suite, read_suite, runs_of
from engine.evaluation.metrics import DetectionColumns
from engine.evaluation.predictions import Predictions
from tests.training_cases import SMALL_NETWORK
from utils.errors import UserError


@pytest.fixture
def command(squares: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that calls the command on a suite of two tiny networks, in this process."""
    (tmp_path / "small.yaml").write_text(SMALL_NETWORK)
    options = {"hyp": str(squares / "hyp.yaml"), "imgsz": 64, "batch_size": 4}
    suite = {
        "about": "two tiny networks",
        "data": {str(squares / "squares.yaml"): {"options": options}},
        "networks": {
            "a": {"cfg": str(tmp_path / "small.yaml")},
            "b": {"cfg": str(tmp_path / "small.yaml"), "hyp": {"lr0": 0.01}},
        },
        "budgets": [{"epochs": 1}],
        "seeds": 2,
        "onnx": False,
    }
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(suite))
    monkeypatch.setattr("benchmarks.reproduce.processes.in_own_process", in_this_process)

    def call(**given: Any) -> int:
        usual = {"suite": str(tmp_path / "toy.yaml"), "out": tmp_path / "toy.csv", "work": tmp_path / "work"}
        return main(ReproduceConfig.of(**{**usual, **given}))

    return call


def in_this_process(run: Any, place: Any) -> dict[str, Any]:
    from benchmarks.reproduce.runs import execute

    return execute(run, place)


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_suite_runs_in_parts_and_its_report_comes_from_the_csv_alone(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(only=("a",), seeds=1) == 0
    first = rows_of(tmp_path / "toy.csv")
    assert [(row["network"], row["seed"]) for row in first] == [("a", "0")]
    with pytest.raises(UserError, match="has 1 finished rows: --resume keeps them"):
        command()
    assert command(resume=True) == 0
    rows = rows_of(tmp_path / "toy.csv")
    assert {(row["network"], row["seed"]) for row in rows} == {(n, s) for n in "ab" for s in "01"}
    assert rows[0] == first[0]  # kept, not made again
    assert all(float(row["train_seconds"]) > 0 and float(row["ms_pytorch"]) > 0 for row in rows)
    assert len(rows[0]["resampled_AP"].split()) == 200
    report = (tmp_path / "toy.md").read_text()
    assert "| a | 2 | 1 |" in report and "| AP against a |" in report
    assert sorted(file.suffix for file in tmp_path.glob("toy-*")) == [".png"]

    alone = tmp_path / "elsewhere" / "toy.csv"
    alone.parent.mkdir()
    alone.write_bytes((tmp_path / "toy.csv").read_bytes())
    assert command(out=alone, report=True, work=tmp_path / "nothing") == 0
    tables = [line for line in report.splitlines() if line.startswith("|")]
    assert [line for line in alone.with_suffix(".md").read_text().splitlines() if line[:1] == "|"] == tables

    assert command(rescore=True) == 0
    names = ("AP", "AP50", "full_AP", "resampled_AP")
    again = rows_of(tmp_path / "toy.csv")
    assert [[row[name] for name in names] for row in again] == [[row[name] for name in names] for row in rows]


def press_ctrl_c() -> None:
    raise KeyboardInterrupt


def be_terminated() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("interrupt", [press_ctrl_c, be_terminated])
def test_an_unfinished_run_goes_on_from_its_last_checkpoint(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupt: Callable[[], None]
) -> None:
    from tests.training_cases import before_step

    with monkeypatch.context() as patch:
        before_step(1, interrupt, patch)
        assert command(only=("a",), seeds=1) == 1
    assert not (tmp_path / "toy.csv").exists()
    (folder,) = (tmp_path / "work" / "toy").rglob("weights")
    assert (folder / "last.pt").exists()
    assert command(only=("a",), seeds=1) == 0
    assert [row["epochs"] for row in rows_of(tmp_path / "toy.csv")] == ["1"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,AP\n1,2\n", "is not a CSV of benchmarks.reproduce; choose another --out"),
        (
            ",".join(COLUMNS) + "\ntoy,squ",
            "row 2 is not complete; delete it, and --resume makes that run again",
        ),
        (
            ",".join(COLUMNS) + "\nother" + ",1" * (len(COLUMNS) - 1) + "\n",
            "holds rows of the suite 'other', not of 'toy'",
        ),
    ],
)
def test_a_foreign_or_unfinished_csv_is_refused_and_kept(
    command: Any, tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "toy.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        command(resume=True)
    assert (tmp_path / "toy.csv").read_text() == content


def test_rows_that_the_suite_describes_otherwise_now_are_refused(command: Any, tmp_path: Path) -> None:
    assert command(only=("a",), seeds=1) == 0
    suite = yaml.safe_load((tmp_path / "toy.yaml").read_text())
    suite["networks"]["a"]["hyp"] = {"lr0": 0.5}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(suite))
    with pytest.raises(UserError, match="the suite now says otherwise"):
        command(resume=True)


def test_missing_data_weights_and_peers_are_named_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual: dict[str, Any] = {"out": tmp_path / "x.csv", "work": tmp_path / "work", "data_root": tmp_path}
    with pytest.raises(UserError, match=r"bccd is not there: get it with git clone.*--data-root"):
        main(ReproduceConfig.of(suite="from_scratch", **usual))
    with pytest.raises(UserError, match=r"yolov5n.pt is not there: download it from"):
        main(ReproduceConfig.of(suite="finetune", only=("treecrowns",), **usual))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="need Ultralytics: pip install"):
        main(ReproduceConfig.of(suite="from_scratch", only=("treecrowns",), **usual))
    assert not (tmp_path / "work").exists() and not (tmp_path / "x.csv").exists()


def test_every_suite_that_ships_can_be_read_and_names_what_exists() -> None:
    from benchmarks.reproduce.datasets import DATA_SETS

    for file in SUITES.glob("*.yaml"):
        suite = read_suite(file)
        runs = runs_of(suite, file.stem)
        assert runs and set(suite.data) <= set(DATA_SETS)
        assert len({run.name for run in runs}) == len(runs)
    assert len(runs_of(read_suite(find_suite("tiny")), "tiny")) == 4


def test_the_data_sets_own_recipe_chooses_neither_the_network_nor_the_epochs() -> None:
    run = runs_of(read_suite(find_suite("tiny")), "tiny")[0]
    options = complete(run, Path("data/treecrowns.yaml"))  # its recipe has both
    assert options == {"hyp": "small-data", "imgsz": 64, "batch_size": 28}


def test_epochs_may_differ_by_data_set_and_a_row_says_its_own(tmp_path: Path) -> None:
    content = {"about": "x", "data": {"treecrowns": {}, "bccd": {}}, "budgets": [{"minutes": 8}], "seeds": 1}
    for epochs in ({"treecrowns": 130, "bccd": 35}, 130):
        content["networks"] = {"a": {"cfg": "yolov5n", "epochs": epochs}}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        crowns, cells = runs_of(read_suite(tmp_path / "mine.yaml"), "mine")
        assert (crowns.epochs, cells.epochs) == (130, 35 if isinstance(epochs, dict) else 130)
        assert json.loads(cells.definition())["epochs"] == cells.epochs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"networks": {"a": {"cgf": "yolov5n"}}}, "'a' in 'networks': unknown key 'cgf'. Did you mean 'cfg'"),
        ({"networks": {"a": {}}}, "a network needs cfg, peer or weights"),
        ({"budgets": [{"epochs": 3, "minutes": 1}]}, r"a budget is \{epochs: 100\} or \{minutes: 8\}"),
        ({"against": ["c"]}, "'against' names no network 'c'"),
        ({"networks": {"a": {"cfg": "x", "epochs": {"bcd": 3}}}}, "'a' names no data set 'bcd'"),
    ],
)
def test_a_mistake_in_a_suite_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    content = {"about": "x", "data": {"treecrowns": {}}, "networks": {"a": {"cfg": "yolov5n"}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**content, **change}))
    with pytest.raises(UserError, match=message):
        read_suite(find_suite(str(tmp_path / "mine.yaml")))


def test_unknown_suites_and_names_in_only_list_the_choices() -> None:
    with pytest.raises(UserError, match="Did you mean 'finetune'"):
        find_suite("finetun")
    with pytest.raises(UserError, match=r"--only stridedd matches no run of tiny\. Did you mean 'strided'"):
        runs_of(read_suite(find_suite("tiny")), "tiny", only=("stridedd",))
    assert with_flag(["tiny", "--report"]) == ["--suite", "tiny", "--report"]


def test_a_row_of_the_same_run_takes_the_place_of_the_earlier_one(tmp_path: Path) -> None:
    results = Results(tmp_path / "x.csv", "x")
    for ap in (0.25, 0.5):
        results.append({"data": "d", "network": "n", "budget": "1 epochs", "seed": "0", "AP": ap})
    assert [row["AP"] for row in results.read()] == ["0.5"]


def test_perfect_detections_score_1_on_images_and_on_every_resample(squares: Path, tmp_path: Path) -> None:
    data = ScoredData(squares / "squares.yaml", "val", 64)
    records = data.records()
    scored = [0.9, 0.8]
    perfect = [np.column_stack((one.boxes_xyxy, scored, one.classes)) for one in records]
    save(Predictions(records, DetectionColumns.stack(perfect)), tmp_path)
    scores = score(tmp_path, data)
    assert scores["AP"] == scores["full_AP"] == scores["AP_S"] == 1
    assert set(scores["resampled_AP"]) == {1.0}
    written = json.loads((tmp_path / "predictions.json").read_text())
    assert sorted(one["bbox"][2:] for one in written) == [[16, 16]] * 8


def test_resampled_images_bring_all_their_rows_each_time_they_are_drawn() -> None:
    image = np.array([2, 0, 0, 3])
    which, place = Rows(image).of(np.array([0, 2, 0, 1]))
    assert which.tolist() == [1, 2, 0, 1, 2] and place.tolist() == [0, 0, 1, 2, 2]


def test_numbers_are_written_as_in_papers() -> None:
    assert (fraction(0.0942), signed(-0.0042), signed(0.01)) == (".094", "-.004", "+.010")
    assert mean_sd([0.1, 0.2]) == ".150 ± .071" and mean_sd([0.1]) == ".100" and mean_sd([]) == ""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are found in /proc")
def test_a_run_whose_command_was_killed_stops_and_leaves_no_process(command: Any, tmp_path: Path) -> None:
    suite = yaml.safe_load((tmp_path / "toy.yaml").read_text())
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump({**suite, "budgets": [{"epochs": 10_000}]}))
    words = [str(tmp_path / "toy.yaml"), "--out", str(tmp_path / "toy.csv"), "--work", str(tmp_path / "work")]
    with subprocess.Popen([sys.executable, "-m", "benchmarks.reproduce", *words]) as process:
        try:
            wait_until(lambda: bool(list(tmp_path.glob("work/**/results.csv"))))
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        finally:
            process.kill()
    assert children
    wait_until(lambda: not any(is_running(child) for child in children))
    assert list(tmp_path.glob("work/**/last.pt")), "what it had is kept"


def is_running(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(done: Callable[[], bool], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.1)
