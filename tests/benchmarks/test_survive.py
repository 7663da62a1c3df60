"""A few of benchmarks.survive's injections, and that it sees what is lost.

It forks, which is not safe in a process that has run networks in several threads: hence one of its own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.faults import Fault, in_process
from tests.training_cases import ROOT


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )


def write_twice(folder: Path) -> None:
    for name in "ab":
        (folder / name).write_text("text")


def test_a_fault_comes_before_the_operation_of_its_number(tmp_path: Path) -> None:
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


def test_interrupted_commands_lose_nothing() -> None:
    cases = ("label cache", "pixel cache", "tools.convert", "detect, video")
    done = python("-m", "benchmarks.survive", "--most", "1", "--only", *cases)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 injections, 0 losses" in done.stdout


NOT_ATOMIC = """
import contextlib, os, tempfile
from pathlib import Path
import data.converters.writing
from benchmarks.faults import Fault
from benchmarks.survive import Laboratory
from benchmarks.survive_cases import Convert

@contextlib.contextmanager
def write_in_place(path):
    os.mkdir(path)
    yield path

data.converters.writing.write_folder_atomically = write_in_place
with tempfile.TemporaryDirectory() as place:
    laboratory = Laboratory(Path(place))
    whole = laboratory.left_alone(Convert())
    print("lost:", laboratory.interrupt(Convert(), Fault("kill -9", whole.operations - 3)))
"""


def test_files_that_are_not_written_at_once_are_seen_as_lost() -> None:
    done = python("-c", NOT_ATOMIC)
    assert "lost: half a data set" in done.stdout, done.stderr
