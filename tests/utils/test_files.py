from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

import utils.files
from utils.drafts import clear_drafts
from utils.errors import UserError
from utils.files import move_into_place, read_yaml, write_atomically, write_folder_atomically


def test_yaml_is_read_with_a_byte_order_mark_and_without(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    for encoding in ("utf-8", "utf-8-sig"):
        file.write_text("names: [Bäume]", encoding=encoding)
        assert read_yaml(file) == {"names": ["Bäume"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [", "not valid YAML"),
        (b"a: \xff", "not valid YAML"),
        (b"a: 2024-13-01", "not valid YAML"),
        (b"[" * 20_000, "nested too deeply"),
        (b"!!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_what_is_no_yaml_is_refused_in_one_line_that_names_the_file(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.yaml") as caught:
        read_yaml(file)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_a_large_and_an_unreadable_yaml_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"no YAML file .*a\.yaml"):
        read_yaml(tmp_path / "a.yaml")
    with pytest.raises(UserError, match=f"{tmp_path} is a folder, not a YAML file"):
        read_yaml(tmp_path)
    monkeypatch.setenv("YOLOV5_SPD_LIMITS", "yaml_bytes=3")
    (tmp_path / "a.yaml").write_text("a: 1")
    with pytest.raises(UserError, match="4 bytes of a YAML file of settings, at most 3"):
        read_yaml(tmp_path / "a.yaml")


@pytest.mark.parametrize("sync", [False, True])
def test_a_file_appears_whole_when_the_block_ends(tmp_path: Path, sync: bool) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with write_atomically(file, sync=sync) as stream:
        stream.write("néw\n")
        stream.flush()
        assert file.read_text() == "old"
    assert file.read_bytes() == "néw\n".encode()
    with write_atomically(file, "wb", sync=sync) as binary:
        binary.write(b"\xff")
    assert file.read_bytes() == b"\xff"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_older_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(error), write_atomically(file) as stream:
        stream.write("half")
        raise error
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_cannot_be_written_is_named_with_the_reason(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"cannot write .*nowhere/a\.txt: No such file or directory"),
        write_atomically(tmp_path / "nowhere/a.txt"),
    ):
        raise AssertionError("never entered")
    (tmp_path / "folder").mkdir()
    with (
        pytest.raises(UserError, match=r"cannot write .*folder: "),
        write_atomically(tmp_path / "folder") as file,
    ):
        file.write("text")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with write_atomically(tmp_path / "a.txt") as file:
            file.write("text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_names_as_long_as_the_file_system_allows_are_written(tmp_path: Path) -> None:
    with write_atomically(tmp_path / ("n" * 255)) as file:
        file.write("text")
    assert (tmp_path / ("n" * 255)).read_text() == "text"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "new/target"
    with pytest.raises(RuntimeError), write_folder_atomically(target) as folder:
        (folder / "a.txt").write_text("half")
        raise RuntimeError
    assert list((tmp_path / "new").iterdir()) == []
    with write_folder_atomically(target) as folder:
        (folder / "a.txt").write_text("whole")
        assert not target.exists()
    assert (target / "a.txt").read_text() == "whole"
    assert list((tmp_path / "new").iterdir()) == [target]
    with (
        pytest.raises(UserError, match=r"cannot write .*target: Directory not empty"),
        write_folder_atomically(target) as folder,
    ):
        (folder / "b.txt").write_text("never")
    assert [path.name for path in target.iterdir()] == ["a.txt"]


def folder_with(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "a.txt").write_text(text)
    return path


def test_a_finished_file_or_folder_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    for _ in range(2):
        file = tmp_path / "draft"
        file.write_text("new")
        move_into_place(file, tmp_path / "file")
        move_into_place(folder_with(tmp_path / "drafts", "new"), tmp_path / "folder")
        assert {path.name for path in tmp_path.iterdir()} == {"file", "folder"}
        assert (tmp_path / "file").read_text() == (tmp_path / "folder/a.txt").read_text() == "new"


class Killed(BaseException):
    """The process ends here: nothing that stands after this runs."""


@pytest.mark.parametrize("step", [0, 1])
def test_an_older_folder_outlives_a_kill_at_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    target, finished = folder_with(tmp_path / "target", "old"), folder_with(tmp_path / "draft", "new")
    steps, replace = [], os.replace

    def kill(source: Path, place: Path) -> None:
        steps.append(place)
        if len(steps) > step:
            raise Killed
        replace(source, place)

    monkeypatch.setattr(os, "replace", kill)
    monkeypatch.setattr(utils.files, "exchange", lambda first, second: False)
    with pytest.raises(Killed):
        move_into_place(finished, target)
    monkeypatch.undo()
    texts = {path.read_text() for path in tmp_path.glob("*/a.txt")}
    assert texts == {"old", "new"}, "neither is lost"
    clear_drafts(tmp_path, "target")
    assert (target / "a.txt").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"target", "draft"}


def test_an_older_folder_comes_back_where_the_new_one_cannot_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, finished = folder_with(tmp_path / "target", "old"), folder_with(tmp_path / "draft", "new")
    replace = os.replace

    def refuse(source: Path, place: Path) -> None:
        if source == finished:
            raise OSError(28, "No space left on device")
        replace(source, place)

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(utils.files, "exchange", lambda first, second: False)
    with pytest.raises(UserError, match=r"cannot write .*target: No space left on device"):
        move_into_place(finished, target)
    assert (target / "a.txt").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"target", "draft"}


def test_a_file_takes_no_folders_place_and_a_folder_no_files(tmp_path: Path) -> None:
    folder, file = folder_with(tmp_path / "folder", "old"), tmp_path / "file"
    file.write_text("old")
    for finished, target in ((file, folder), (folder, file)):
        with pytest.raises(UserError, match=f"cannot write {target}: "):
            move_into_place(finished, target)
    assert (folder / "a.txt").read_text() == file.read_text() == "old"
