"""Drafts of processes that were killed go; those of living ones stay."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from utils.drafts import clear_drafts, exchange
from utils.errors import UserError
from utils.files import GrowingFile, write_atomically, write_folder_atomically


def killed_in(work: Callable[[], object]) -> None:
    """Run `work` in a process of its own, which it kills."""
    process = os.fork()
    if not process:
        work()
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGKILL


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def write_half(path: Path) -> None:
    with write_atomically(path) as file:
        file.write("half")
        file.flush()
        kill()


def fill_half(path: Path) -> None:
    with write_folder_atomically(path) as folder:
        (folder / "a.txt").write_text("half")
        kill()


@pytest.mark.parametrize("work", [write_half, fill_half])
def test_what_a_killed_process_left_is_removed_and_a_living_one_s_is_not(
    tmp_path: Path, work: Callable[[Path], None]
) -> None:
    killed_in(lambda: work(tmp_path / "a.txt"))
    killed_in(lambda: work(tmp_path / "b.txt"))
    assert len(list(tmp_path.iterdir())) == 2
    with write_atomically(tmp_path / "a.txt") as file, write_folder_atomically(tmp_path / "c") as folder:
        clear_drafts(tmp_path, "a.txt", "c")
        names = [path.name[:7] for path in tmp_path.iterdir()]
        assert sorted(names) == sorted([".a.txt.", ".b.txt.", folder.name[:7]])
        file.write("whole")
    assert (tmp_path / "a.txt").read_text() == "whole"
    clear_drafts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "c"]


def test_hidden_files_of_others_and_links_are_left_alone(tmp_path: Path) -> None:
    for name in (".a.tmp", ".a.12345678.txt", "a.12345678.tmp", ".a.1234567g.tmp"):
        (tmp_path / name).write_text("mine")
    (tmp_path / ".b.12345678.tmp").symlink_to(tmp_path / ".a.tmp")
    clear_drafts(tmp_path)
    clear_drafts(tmp_path / "missing")
    assert len(list(tmp_path.iterdir())) == 5


def test_a_new_folder_is_written_where_a_killed_process_left_half(tmp_path: Path) -> None:
    killed_in(lambda: fill_half(tmp_path / "set"))
    with write_folder_atomically(tmp_path / "set") as folder:
        (folder / "a.txt").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_folders_change_places_in_one_step_where_the_system_can(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "text").write_text(name)
    done = exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a/text").read_text() == ("b" if done else "a")
    assert not exchange(tmp_path / "a", tmp_path / "missing")


def test_a_growing_file_has_its_name_only_once_it_is_complete(tmp_path: Path) -> None:
    file = GrowingFile(tmp_path / "a.csv")
    file.write("1\n")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv.part"]
    file.close()
    assert (tmp_path / "a.csv").read_text() == "1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("length", [10, 100_000])
def test_a_growing_file_that_does_not_fit_never_gets_its_name(tmp_path: Path, length: int) -> None:
    (tmp_path / "a.csv.part").symlink_to("/dev/full")
    file = GrowingFile(tmp_path / "a.csv")
    with pytest.raises(UserError, match=r"cannot write .*a\.csv: No space left on device; what was written"):
        try:
            file.write("x" * length)
        finally:
            file.close()
    assert not (tmp_path / "a.csv").exists()
