"""Run folders: whether they can be written, before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.errors import UserError
from utils.memory import is_out_of_memory
from utils.run_folders import check_writable, locked


def test_a_folder_that_can_be_created_is_fine_and_nothing_is_left(tmp_path: Path) -> None:
    check_writable(tmp_path / "a/b/c")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("below", ["file", "file/runs"])
def test_a_project_below_a_file_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write the run folder .*file.*; choose another --project"):
        check_writable(tmp_path / below)


def test_a_lock_is_free_again_after_its_block(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path):
            assert (tmp_path / ".lock").exists()
        assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), True),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), True),
        (OSError(28, "No space left on device"), False),
        (KeyError("out of memory"), False),
    ],
)
def test_lack_of_memory_is_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
    outer = LookupError("outer")
    outer.__cause__ = error
    assert is_out_of_memory(outer) is expected
