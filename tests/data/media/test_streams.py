"""Live streams: newest frames, interruptions, several at once; with cameras made of lists."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest

from data.media.sources import open_source
from data.media.streams import RETRIES, Streams, without_password
from utils.errors import UserError


class Camera:
    """A capture that gives some frames, then fails."""

    def __init__(self, frames: int, delay: float = 0.0, total: float = -1, fps: float = 20.0):
        self.left, self.delay, self.values = (
            frames,
            delay,
            {
                cv2.CAP_PROP_FPS: fps,
                cv2.CAP_PROP_FRAME_COUNT: total,
            },
        )

    def get(self, key):
        return self.values[key]

    def grab(self):
        time.sleep(self.delay)
        self.left -= 1
        return self.left >= 0

    def retrieve(self):
        return True, np.full((8, 8, 3), self.left, np.uint8)

    def release(self):
        self.left = 0


def streams(*sessions: list[Camera], **options) -> tuple[Streams, list[str]]:
    """One stream for each list of cameras, which are what it opens, try after try."""
    lines: list[str] = []
    queues = {f"rtsp://me:secret@cam{i}/live": list(cameras) for i, cameras in enumerate(sessions)}

    def open_capture(address):
        return queues[address].pop(0) if queues[address] else Camera(0)

    return Streams(list(queues), report=lines.append, open_capture=open_capture, wait=0.001, **options), lines


def test_video_behind_a_url_gives_every_frame_and_ends():
    source, lines = streams([Camera(30, total=30)])
    frames = list(source)
    assert [frame.number for frame in frames] == list(range(1, 31))
    assert {(frame.total, frame.seconds, frame.fps) for frame in frames} == {(30, None, 20.0)}
    assert not lines and not source.problems


@pytest.mark.parametrize("stride", [1, 3])
def test_video_behind_a_url_that_drops_gives_every_frame_once(stride):
    source, lines = streams(
        [Camera(12, total=30), Camera(0, total=-1), Camera(5, total=30), Camera(30, total=30)],
        vid_stride=stride,
    )
    assert [frame.number for frame in source] == list(range(1, 31, stride))
    assert len(lines) == 3 and not source.problems


def test_video_behind_a_url_whose_data_end_early_ends_there():
    source, lines = streams([Camera(24, total=40) for _ in range(9)])
    assert [frame.number for frame in source] == list(range(1, 25))
    assert len(lines) == 1
    assert source.problems == ["rtsp://***@cam0/live: the video ends after frame 24 of 40"]


def test_slow_consumer_of_a_live_stream_sees_the_newest_frame():
    source, _ = streams([Camera(60, delay=0.002)])
    numbers = []
    for frame in source:
        numbers.append(frame.number)
        time.sleep(0.01)
    assert numbers == sorted(numbers) and len(numbers) < 40 and numbers[-1] == 60


def test_dropped_stream_is_opened_again_and_given_up_after_the_last_try():
    source, lines = streams([Camera(3), Camera(2)])
    assert list(source)[-1].number == 5
    assert len(lines) == 1 + RETRIES
    assert "cam0/live: no frame after 3; try 1 of 5" in lines[0]
    [problem] = source.problems
    assert "lost after frame 5" in problem and "secret" not in problem + "".join(lines)


def test_stream_that_cannot_be_opened_is_one_clear_line():
    source, _ = streams([])
    with pytest.raises(UserError, match=r"rtsp://\*\*\*@cam0/live: the stream cannot be opened"):
        list(source)


def test_what_a_capture_raises_is_a_problem_of_its_stream():
    def broken(address):
        raise cv2.error("no backend for rtsp://me:secret@cam")

    with pytest.raises(UserError, match=r"^rtsp://\*\*\*@a: no backend for rtsp://\*\*\*@cam$"):
        list(Streams(["rtsp://me:secret@a"], open_capture=broken))

    class Breaking(Camera):
        def retrieve(self):
            if self.left == 10:
                raise cv2.error("cannot convert")
            return super().retrieve()

    source, _ = streams([Breaking(20, total=20)], [Camera(20, total=20)])
    frames = list(source)
    assert [sum(frame.index == index for frame in frames) for index in (1, 2)] == [9, 20]
    assert source.problems == ["rtsp://***@cam0/live: cannot convert"]


def test_several_streams_come_in_turn_and_one_that_is_lost_stops_nobody():
    source, _ = streams([Camera(20, total=20)], [], [Camera(20, total=20)])
    frames = list(source)
    assert sorted({frame.index for frame in frames}) == [1, 3]
    for index in (1, 3):
        assert [frame.number for frame in frames if frame.index == index] == list(range(1, 21))
    assert len({frame.path for frame in frames}) == 2
    assert len(source.problems) == 1 and "cam1" in source.problems[0]


def test_stride_looks_at_every_nth_frame():
    source, _ = streams([Camera(10, total=10)], vid_stride=4)
    assert [(frame.number, frame.fps) for frame in source] == [(1, 5.0), (5, 5.0), (9, 5.0)]


def test_addresses_and_camera_numbers_are_streams_and_do_not_mix_with_files(tmp_path):
    (tmp_path / "cams.streams").write_text("0\nrtsp://a/b\n")
    assert open_source(tmp_path / "cams.streams").addresses == ["0", "rtsp://a/b"]
    assert open_source(["0", "https://x.org/a.m3u8"]).addresses == ["0", "https://x.org/a.m3u8"]
    (tmp_path / "a.jpg").touch()
    with pytest.raises(UserError, match="cannot be mixed"):
        open_source(["0", str(tmp_path / "a.jpg")])


def test_passwords_are_not_shown():
    assert without_password("rtsp://me:secret@10.0.0.1:554/x") == "rtsp://***@10.0.0.1:554/x"
    assert without_password("http://host/a@b") == "http://host/a@b"
