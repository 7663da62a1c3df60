"""Objects tracked through videos, heat maps and the other outputs of videos."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.media.frame import Frame
from engine.inference.outputs.heat_map import HeatMap
from engine.inference.outputs.media import Media
from engine.inference.outputs.result import DetectedFrame
from engine.inference.pipeline import StageTimes
from engine.inference.tracking import Tracking
from tests.rectangles import draw_image, read_video, run, save, save_video
from utils.detections import Detections
from utils.errors import UserError
from utils.ultralytics_adapter import make_tracker


@pytest.fixture
def lap():
    """What Ultralytics' trackers match with."""
    return pytest.importorskip("lap", reason="tracking needs the package lap: pip install lap")


def crossing(path, frames=20):
    """A white square goes right, a red one left; a second red one comes later."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (320, 240))
    for i in range(frames):
        image = draw_image((20 + 8 * i, 60, 50 + 8 * i, 90))
        image[150:180, 250 - 8 * i : 280 - 8 * i] = (0, 0, 255)
        if i >= 5:
            image[200:230, 20 + 4 * i : 50 + 4 * i] = (0, 0, 255)
        writer.write(image)
    writer.release()
    return path


@pytest.mark.usefixtures("lap")
@pytest.mark.parametrize("kind", ["bytetrack", "botsort"])
def test_objects_keep_their_ids_and_are_counted_once(tmp_path, finder, capsys, kind):
    chosen = {"save_txt": True, "save_json": True, "save_csv": True, "save_frames": True}
    code, folder = run(crossing(tmp_path / "x.avi"), tmp_path, track=kind, **chosen)
    assert code == 0
    assert "different objects: 1 white, 2 re/d" in "".join(capsys.readouterr())
    tracks = list(csv.DictReader((folder / "tracks.csv").open()))
    assert sorted(row["name"] for row in tracks) == ["re/d", "re/d", "white"]
    assert {int(row["frames"]) for row in tracks if row["first_frame"] == "1"} == {20}
    table = list(csv.DictReader((folder / "predictions.csv").open()))
    white = [row for row in table if row["name"] == "white"]
    assert len({row["id"] for row in white}) == 1
    xs = [float(row["x1"]) for row in white]
    assert xs == sorted(xs) and abs(xs[-1] - (20 + 8 * 19)) < 8
    assert {entry["track_id"] for entry in json.loads((folder / "predictions.json").read_text())} == {1, 2, 3}
    assert len((folder / "labels" / "x_20.txt").read_text().splitlines()[0].split()) == 6
    assert len(list((folder / "frames").iterdir())) == 20


@pytest.mark.usefixtures("lap")
@pytest.mark.parametrize("kind", ["bytetrack", "botsort"])
def test_a_track_that_leaves_the_frame_ends_at_its_side(kind):
    track, image, right = Tracking(kind, 0.25), draw_image(size=(240, 120)), []
    for number in range(1, 11):
        x1 = 60 + 6 * (number - 1)
        box = [x1, 100, min(x1 + 20, 120), 120, 0.9, 0]
        frame = Frame(image, Path("a.avi"), number=number, total=10, fps=10.0)
        right += track(frame, Detections.from_array([box])).xyxy[:, 2].tolist()
    assert len(right) >= 8 and max(right) == 120


def test_images_cannot_be_tracked(tmp_path, finder):
    save(tmp_path / "a.png", draw_image((10, 10, 40, 40)))
    with pytest.raises(UserError, match="not images"):
        run(tmp_path / "a.png", tmp_path, track="bytetrack")


@pytest.mark.usefixtures("lap")
def test_each_video_has_ids_of_its_own(tmp_path, finder):
    (tmp_path / "in").mkdir()
    for name in ("a.avi", "b.avi"):
        crossing(tmp_path / "in" / name)
    _, folder = run(tmp_path / "in", tmp_path, track="bytetrack", nosave=True)
    tracks = list(csv.DictReader((folder / "tracks.csv").open()))
    assert sorted(int(row["id"]) for row in tracks) == [1, 1, 2, 2, 3, 3]


@pytest.mark.usefixtures("lap")
def test_a_box_of_low_confidence_continues_a_track_but_starts_none():
    track = make_tracker("bytetrack", 0.5, 0.1)
    image = np.zeros((100, 100, 3), np.uint8)
    sure = np.array([[10, 10, 40, 40, 0.9, 0]])
    unsure = np.array([[11, 10, 41, 40, 0.2, 0], [60, 60, 90, 90, 0.2, 0]])
    assert track(sure, image)[1].tolist() == [1]
    tracks, ids = track(unsure, image)
    assert ids.tolist() == [1] and tracks[0, 4] == pytest.approx(0.2)
    assert track(np.zeros((0, 6)), image)[0].shape == (0, 6)


def test_a_heat_map_is_warm_where_the_objects_are(tmp_path, finder):
    save(tmp_path / "in" / "a.png", draw_image((20, 20, 50, 50)))
    save(tmp_path / "in" / "b.png", draw_image())
    save_video(tmp_path / "in" / "walk.avi")
    _, folder = run(tmp_path / "in", tmp_path, heatmap=True, nosave=True)
    assert sorted(path.name for path in (folder / "heatmaps").iterdir()) == ["a.jpg", "b.jpg", "walk.jpg"]
    warm = cv2.imread(str(folder / "heatmaps" / "a.jpg")).astype(int)
    assert warm[35, 35, 2] > warm[35, 35, 0] + 40  # red in the middle of the object
    assert abs(warm[200, 250] - 60).max() < 6  # untouched far away


def test_a_live_video_plays_in_real_time(tmp_path):
    media, image = Media(tmp_path), draw_image()
    for number, seconds in enumerate((5.0, 5.5, 5.52, 7.0), 1):
        options = {"number": number, "total": None, "fps": 10.0, "seconds": seconds, "address": "0"}
        frame = Frame(image, tmp_path / "cam", **options)
        nothing = (Detections.empty(), (240, 320), 1, StageTimes())
        media.add(DetectedFrame(frame, "cam", ["a"], *nothing))
    media.close()
    fps, frames = read_video(tmp_path / "cam.mp4")
    assert fps == 10 and len(frames) == 21


def side_by_side(image, frames):
    """Frames of two videos behind URLs, in turn."""
    for number in range(1, frames + 1):
        for name in ("a", "b"):
            options = {"number": number, "total": frames, "fps": 10.0, "address": f"http://host/{name}.mp4"}
            yield Frame(image, Path(name), **options)


@pytest.mark.parametrize("kind", [Media, HeatMap])
def test_videos_side_by_side_are_complete(tmp_path, kind):
    output, box = kind(tmp_path), Detections.from_array([[20, 20, 50, 50, 0.9, 0]])
    for number, frame in enumerate(side_by_side(draw_image(), 10)):
        detections = box if number < 2 else Detections.empty()
        output.add(DetectedFrame(frame, frame.path.name, ["x"], detections, (240, 320), 1, StageTimes()))
    output.close()
    for name in ("a", "b"):
        if kind is Media:
            assert len(read_video(tmp_path / f"{name}.mp4")[1]) == 10
        else:  # the object of the first frame is there at the end
            warm = cv2.imread(str(tmp_path / f"{name}.jpg")).astype(int)
            assert warm[35, 35, 2] > warm[35, 35, 0] + 40


@pytest.mark.usefixtures("lap")
def test_tracks_of_videos_side_by_side_go_on():
    track = Tracking("bytetrack", 0.25)
    ids = []
    for frame in side_by_side(draw_image(), 10):
        score = 0.9 if frame.number == 1 else 0.2  # which continues a track but starts none
        box = Detections.from_array([[20, 20, 50, 50, score, 0]])
        ids += track(frame, box).track_ids.tolist()
    assert ids == [1] * 20
