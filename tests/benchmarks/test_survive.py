"""A few of benchmarks.survive's injections, and that it sees what is lost."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.faults import Fault, in_process
from benchmarks.survive import Laboratory
from benchmarks.survive_cases import CASES, Case
from utils import files


def case(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    return Laboratory(tmp_path_factory.mktemp("laboratory"))


def write_twice(folder: Path) -> None:
    for name in "ab":
        (folder / name).write_text("text")


def test_a_kill_comes_before_the_operation_of_its_number(tmp_path: Path) -> None:
    whole = in_process(lambda: write_twice(tmp_path), tmp_path)
    assert (whole.code, whole.operations) == (0, 2)
    for file in tmp_path.iterdir():
        file.unlink()
    assert in_process(lambda: write_twice(tmp_path), tmp_path, Fault("kill -9", 2)).code == -9
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    full = in_process(lambda: write_twice(tmp_path), tmp_path, Fault("disk full", 1))
    assert full.code == 1 and "No space left on device" in full.text
    assert in_process(lambda: write_twice(tmp_path), tmp_path, Fault("disk full, any byte", 2)).code == 1
    assert (tmp_path / "a").read_text() == "te"


@pytest.mark.parametrize("name", ["label cache", "pixel cache", "tools.convert", "detect, video"])
def test_interrupted_commands_lose_nothing(laboratory: Laboratory, name: str) -> None:
    whole = laboratory.left_alone(case(name))
    late = 5 * whole.operations // 6
    for fault in (Fault("kill -9", late), Fault("disk full, any byte", laboratory.largest // 3)):
        assert laboratory.interrupt(case(name), fault) == "", fault


def test_an_interrupted_training_loses_nothing(laboratory: Laboratory) -> None:
    whole = laboratory.left_alone(case("train"))
    assert laboratory.interrupt(case("train"), Fault("kill -9", 2 * whole.operations // 3)) == ""


def test_files_that_are_not_written_at_once_are_seen_as_lost(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    import data.converters.writing

    @contextlib.contextmanager
    def write_in_place(path: Path) -> Iterator[Path]:
        os.mkdir(path)
        yield path

    laboratory.left_alone(case("tools.convert"))
    monkeypatch.setattr(data.converters.writing, "write_folder_atomically", write_in_place)
    assert files.write_folder_atomically is not write_in_place
    whole = laboratory.left_alone(case("tools.convert"))
    assert "half a data set" in laboratory.interrupt(
        case("tools.convert"), Fault("kill -9", whole.operations - 3)
    )
