"""Images and videos, whole and broken, from every kind of source."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data.media.arrays import Arrays
from data.media.sources import open_source
from utils.errors import UserError


def save_image(path: Path, value: int = 100, size: tuple[int, int] = (40, 60)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(value).integers(0, 255, (*size, 3), np.uint8)
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


def save_video(path: Path, frames: int = 9, fps: float = 12.5, codec: str = "MJPG") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (64, 48))
    for i in range(frames):
        writer.write(np.full((48, 64, 3), 20 * (i % 12), np.uint8))
    writer.release()
    return path


def names(source) -> list[str]:
    return [frame.path.name for frame in open_source(source)]


def test_folder_glob_and_list_give_the_same_files_in_order(tmp_path, monkeypatch):
    for name in ("b.png", "a.jpg", "ä ö.jpg"):
        save_image(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.md").write_text("no image")
    (tmp_path / "list.txt").write_text("in/a.jpg\n\nin/b.png\nin/ä ö.jpg\n", encoding="utf-8")
    expected = ["a.jpg", "b.png", "ä ö.jpg"]
    assert names(tmp_path / "in") == expected
    assert names(f"{tmp_path}/**/*.*g") == expected
    assert names(tmp_path / "list.txt") == expected
    monkeypatch.chdir(tmp_path / "in")
    (tmp_path / "in" / "here").mkdir()
    (tmp_path / "in" / "here" / "list.txt").write_text("a.jpg")  # relative to the current folder
    assert names("here/list.txt") == ["a.jpg"]


def test_only_streams_are_live(tmp_path):
    Image.new("L", (64, 48)).save(tmp_path / "a.gif")  # whose header says no number of frames
    assert open_source(tmp_path / "a.gif").count is None and not open_source(tmp_path / "a.gif").live
    assert not Arrays([np.zeros((8, 8, 3), np.uint8)]).live
    assert open_source("https://host/a.mp4").live


def test_image_with_brackets_in_its_name_is_a_file_not_a_glob(tmp_path):
    assert names(save_image(tmp_path / "a[1].jpg")) == ["a[1].jpg"]


@pytest.mark.parametrize("codec, suffix", [("MJPG", ".avi"), ("mp4v", ".mp4")])
def test_video_gives_every_frame_in_order_with_rate_and_count(tmp_path, codec, suffix):
    frames = list(open_source(save_video(tmp_path / f"v{suffix}", codec=codec)))
    assert [frame.number for frame in frames] == list(range(1, 10))
    assert {(frame.total, frame.fps, frame.is_video) for frame in frames} == {(9, 12.5, True)}
    assert [round(frame.image.mean() / 20) for frame in frames] == list(range(9))


def test_stride_takes_every_nth_frame_and_keeps_the_duration(tmp_path):
    frames = list(open_source(save_video(tmp_path / "v.avi"), vid_stride=4))
    assert [frame.number for frame in frames] == [1, 5, 9]
    assert frames[0].fps == 12.5 / 4


@pytest.mark.parametrize("kind", ["gray", "rgba", "16-bit"])
def test_every_kind_of_image_comes_as_three_bytes_a_pixel(tmp_path, kind):
    shape = {"gray": (20, 30), "rgba": (20, 30, 4), "16-bit": (20, 30, 3)}[kind]
    dtype = np.uint16 if kind == "16-bit" else np.uint8
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", np.full(shape, 200, dtype))[1].tobytes())
    [frame] = open_source(tmp_path / "a.png")
    assert frame.image.shape == (20, 30, 3) and frame.image.dtype == np.uint8
    assert not frame.is_video


def broken_files(folder: Path) -> list[Path]:
    """An empty, a false and a truncated image, the same as videos."""
    whole = {suffix: save_image(folder / f"x{suffix}").read_bytes() for suffix in (".jpg", ".png", ".bmp")}
    movie = save_video(folder / "x.mp4", codec="mp4v").read_bytes()
    contents = {f"truncated{suffix}": data[: len(data) // 2] for suffix, data in whole.items()}
    contents |= {"empty.jpg": b"", "text.png": b"no image", "truncated.mp4": movie[: len(movie) // 2]}
    contents |= {"empty.mp4": b"", "text.avi": b"no video"}
    for path in [*folder.glob("x.*")]:
        path.unlink()
    return [folder / name for name, data in contents.items() if (folder / name).write_bytes(data) or True]


def test_broken_files_alone_are_one_clear_line(tmp_path, capfd):
    for path in broken_files(tmp_path):
        with pytest.raises(UserError, match=path.name) as caught:
            list(open_source(path))
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_broken_files_in_a_folder_are_reported_and_left_out(tmp_path, capfd):
    broken = broken_files(tmp_path)
    save_image(tmp_path / "good.jpg")
    save_video(tmp_path / "whole.avi", frames=2)
    source = open_source(tmp_path)
    assert [frame.path.name for frame in source] == ["good.jpg", "whole.avi", "whole.avi"]
    assert len(source.problems) == len(broken)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == len(broken)
    assert all(any(path.name in line for line in lines) for path in broken)


def test_video_that_ends_early_gives_its_frames_and_a_problem(tmp_path, capfd):
    path = save_video(tmp_path / "v.avi", frames=40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = open_source(path)
    assert 5 < len(list(source)) < 30
    [problem] = source.problems
    assert "of 40" in problem
    assert capfd.readouterr().err == f"warning: left out: {problem}\n"


def test_missing_entry_of_a_list_is_left_out(tmp_path):
    save_image(tmp_path / "a.jpg")
    (tmp_path / "list.txt").write_text("a.jpg\nmissing.jpg\nmissing.mp4\n")
    source = open_source(tmp_path / "list.txt")
    assert len(list(source)) == 1
    assert len(source.problems) == 2


@pytest.mark.parametrize(
    "source, message",
    [
        ("nowhere.jpg", "no such source: .*nowhere.jpg"),
        ("*.jpg", "matches"),
        ("empty", "folder is empty"),
        ("other", "no image or video in this folder"),
        ("parent", r"subfolders"),
        ("notes.md", "neither an image nor a video"),
        ("empty.txt", "the list is empty"),
        ("binary.txt", "not a list"),
    ],
)
def test_wrong_source_says_what_would_be_right(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "other", "parent/inner"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("notes.md", "other/a.doc", "empty.txt"):
        (tmp_path / name).touch()
    (tmp_path / "binary.txt").write_bytes(b"\xff\xd8\x00\x80")
    with pytest.raises(UserError, match=message):
        open_source(source)
