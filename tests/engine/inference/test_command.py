"""detect.py from source to files, with a stand-in network that finds rectangles, and once with a real one."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.inference import command as detect
from engine.inference.config import DetectConfig
from tests.rectangles import NAMES, draw_image, read_video, run, save, save_video
from utils.errors import UserError

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden"


def test_every_output_holds_the_boxes_in_pixels_of_the_image(tmp_path, finder):
    image = draw_image((32, 48, 64, 96))
    image[150:190, 200:260] = (0, 0, 255)
    save(tmp_path / "in" / "a b.png", image)
    chosen = {"save_txt": True, "save_conf": True, "save_json": True, "save_csv": True, "save_crop": True}
    code, folder = run(tmp_path / "in", tmp_path, **chosen)
    assert code == 0

    lines = (folder / "labels" / "a b.txt").read_text().splitlines()
    labels = sorted([float(value) for value in line.split()] for line in lines)
    expected = [
        [0, 48 / 320, 72 / 240, 32 / 320, 48 / 240, 0.9],
        [1, 230 / 320, 170 / 240, 60 / 320, 40 / 240, 0.9],
    ]
    np.testing.assert_allclose(labels, expected, atol=1e-5)

    results = json.loads((folder / "predictions.json").read_text())
    assert {(entry["image_id"], entry["category_id"], *entry["bbox"]) for entry in results} == {
        ("a b", 0, 32.0, 48.0, 32.0, 48.0),
        ("a b", 1, 200.0, 150.0, 60.0, 40.0),
    }
    table = list(csv.DictReader((folder / "predictions.csv").open()))
    assert {row["name"] for row in table} == set(NAMES)
    assert len(list((folder / "crops" / "white").iterdir())) == 1
    crop = cv2.imread(str(next((folder / "crops" / "re_d").iterdir())))
    assert crop.shape == (40 + 21, 60 + 21, 3)
    drawn = cv2.imread(str(folder / "a b.png"))
    assert drawn.shape == image.shape and (drawn != image).any()
    assert (drawn[100:, :180] == image[100:, :180]).all()  # nothing is drawn where nothing is


def test_video_stays_video_with_every_frame_and_its_rate(tmp_path, finder):
    code, folder = run(save_video(tmp_path / "walk.avi"), tmp_path, save_txt=True, save_json=True)
    assert code == 0
    fps, frames = read_video(folder / "walk.mp4")
    assert (fps, len(frames), frames[0].shape) == (12.5, 7, (240, 320, 3))
    for number in (1, 7):
        _, x, y, w, h = map(float, (folder / "labels" / f"walk_{number}.txt").read_text().split())
        np.testing.assert_allclose(
            [x * 320, y * 240, w * 320, h * 240], [45 + 10 * number, 75, 30, 30], atol=2
        )
    assert {entry["image_id"] for entry in json.loads((folder / "predictions.json").read_text())} == {
        f"walk_{number}" for number in range(1, 8)
    }


def test_video_stride_keeps_the_duration(tmp_path, finder):
    _, folder = run(save_video(tmp_path / "walk.avi"), tmp_path, vid_stride=3, hide_labels=True)
    fps, frames = read_video(folder / "walk.mp4")
    assert (round(fps, 2), len(frames)) == (4.17, 3)


def test_tiles_detect_each_small_object_of_a_large_image_once(tmp_path, finder):
    boxes = [(x, y, x + 24, y + 24) for x in range(20, 960, 90) for y in range(20, 700, 90)]
    save(tmp_path / "large.png", draw_image(*boxes, size=(720, 1000)))
    _, folder = run(tmp_path / "large.png", tmp_path, tile="320", imgsz=(320,), save_json=True, nosave=True)
    results = json.loads((folder / "predictions.json").read_text())
    corners = sorted(tuple(entry["bbox"][:2]) for entry in results)
    assert corners == sorted((float(x), float(y)) for x, y, _, _ in boxes)
    assert len({shape[1:] for shape in finder.shapes}) == 1
    assert max(shape[0] for shape in finder.shapes) > 1  # tiles go through the network in batches


@pytest.mark.parametrize(
    "tile, imgsz, trained, tiles",
    [
        (None, 256, 160, 6),
        ("0", 256, 160, 1),
        ("auto", 256, 160, 6),
        ("auto", 128, 160, 20),  # tiles of 80: objects stay as large in the input as in training
        (None, 256, None, 1),
        ("auto", 256, None, 1),  # less than twice as long as the input
        ("auto", 160, None, 6),
    ],
)
def test_images_are_cut_as_trained_unless_told_otherwise(tmp_path, finder, tile, imgsz, trained, tiles):
    finder.config |= {"imgsz": 256, "tile": {"size": trained} if trained else None}
    save(tmp_path / "a.png", draw_image())
    run(tmp_path / "a.png", tmp_path, nosave=True, tile=tile, imgsz=(imgsz,))
    assert sum(shape[0] for shape in finder.shapes) == tiles


def test_classes_and_max_det_limit_the_detections(tmp_path, finder):
    image = draw_image((10, 10, 40, 40), (60, 10, 90, 40))
    image[150:190, 200:260] = (0, 0, 255)
    save(tmp_path / "a.png", image)
    _, folder = run(tmp_path / "a.png", tmp_path, classes=(1,), save_json=True)
    assert [entry["category_id"] for entry in json.loads((folder / "predictions.json").read_text())] == [1]
    run(tmp_path / "a.png", tmp_path, max_det=1, save_json=True, name="one")
    assert len(json.loads((tmp_path / "runs" / "one" / "predictions.json").read_text())) == 1


def test_data_yaml_gives_category_ids(tmp_path, finder):
    (tmp_path / "d.yaml").write_text("path: .\nval: .\nnames: [w, r]\ncategory_ids: [7, 90]\n")
    save(tmp_path / "000042.png", draw_image((10, 10, 40, 40)))
    _, folder = run(tmp_path / "000042.png", tmp_path, data=tmp_path / "d.yaml", save_json=True)
    [entry] = json.loads((folder / "predictions.json").read_text())
    assert (entry["image_id"], entry["category_id"]) == (42, 7)


def test_data_may_be_a_yaml_whose_images_are_not_here(tmp_path, finder):
    save(tmp_path / "000042.png", draw_image((10, 10, 40, 40)))
    _, folder = run(tmp_path / "000042.png", tmp_path, data=Path("coco.yaml"), save_json=True)
    [entry] = json.loads((folder / "predictions.json").read_text())
    assert entry["category_id"] == 1  # COCO counts its classes from 1


def test_label_files_hold_corners_in_pixels_where_asked(tmp_path, finder):
    save(tmp_path / "a.png", draw_image((32, 48, 64, 96)))
    _, folder = run(tmp_path / "a.png", tmp_path, save_txt=True, save_conf=True, save_format=1)
    assert (folder / "labels" / "a.txt").read_text() == "0 32.00 48.00 64.00 96.00 0.900000\n"


def test_without_a_source_the_sample_image_is_taken_from_any_folder(tmp_path, finder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert detect.main(DetectConfig.of(weights=(Path("stub.pt"),), project=tmp_path, device="cpu")) == 0
    [image] = (ROOT / "data/samples/treecrowns/images/val").iterdir()
    assert (tmp_path / "exp" / image.name).is_file()


def test_files_of_the_same_name_keep_their_own_results(tmp_path, finder):
    for name in ("a/x.png", "b/x.png", "b/x.jpg"):
        save(tmp_path / "in" / name, draw_image((10, 10, 40, 40)))
    _, folder = run(f"{tmp_path}/in/**/*.*g", tmp_path, save_txt=True)
    assert sorted(path.name for path in folder.glob("*.*g")) == ["x-2.jpg", "x-3.png", "x.png"]
    assert len(list((folder / "labels").iterdir())) == 3


def test_broken_images_are_listed_and_the_rest_is_finished(tmp_path, finder, capsys):
    for number in range(6):
        save(tmp_path / "in" / f"{number}.jpg", draw_image((10, 10, 40, 40)))
    for number in (0, 3, 5):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(b"\xff\xd8broken")
    code, folder = run(tmp_path / "in", tmp_path)
    assert code == 1
    assert sorted(path.name for path in folder.iterdir()) == ["1.jpg", "2.jpg", "4.jpg"]
    summary = capsys.readouterr().err.split("3 sources could not be read")[1]
    assert all(f"{number}.jpg" in summary for number in (0, 3, 5))


def test_only_broken_files_leave_no_run_folder(tmp_path, finder):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    assert run(tmp_path, tmp_path)[0] == 1
    with pytest.raises(UserError, match=r"a\.jpg"):
        run(tmp_path / "a.jpg", tmp_path)
    assert not (tmp_path / "runs").exists()


def test_interrupt_closes_every_file(tmp_path, finder, monkeypatch, capsys):
    from engine.inference.outputs import csv_file as outputs

    def interrupt(self, result):
        if result.frame.number == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(outputs.Csv, "add", interrupt)
    code, folder = run(save_video(tmp_path / "walk.avi"), tmp_path, save_json=True, save_csv=True)
    assert code == 130
    assert len(read_video(folder / "walk.mp4")[1]) == 4
    assert len(json.loads((folder / "predictions.json").read_text())) == 4
    assert "stopped" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_ends_the_run_after_the_frame_at_hand_with_every_file_closed(
    tmp_path, finder, monkeypatch, capsys, name, code
):
    from engine.inference.outputs.csv_file import Csv

    add = Csv.add

    def signal_at_frame_4(self, result):
        if result.frame.number == 4:
            os.kill(os.getpid(), getattr(signal, name))
        add(self, result)

    monkeypatch.setattr(Csv, "add", signal_at_frame_4)
    before = signal.getsignal(getattr(signal, name))
    done, folder = run(save_video(tmp_path / "walk.avi", frames=40), tmp_path, save_json=True, save_csv=True)
    assert done == code
    assert signal.getsignal(getattr(signal, name)) is before
    assert len(read_video(folder / "walk.mp4")[1]) == 4
    assert len(json.loads((folder / "predictions.json").read_text())) == 4
    assert len(list(csv.DictReader((folder / "predictions.csv").open()))) == 4
    assert "stopped; what was finished is saved" in capsys.readouterr().err


class CutOff:
    """A video writer on a disk that is full: it says nothing, and the end of its file is missing."""

    original = cv2.VideoWriter
    fourcc = cv2.VideoWriter.fourcc

    def __init__(self, path: str, *arguments):
        self.path, self.writer = Path(path), self.original(path, *arguments)
        self.isOpened, self.write = self.writer.isOpened, self.writer.write

    def release(self) -> None:
        self.writer.release()
        self.path.write_bytes(self.path.read_bytes()[: self.path.stat().st_size // 2])


def test_a_video_that_does_not_fit_on_the_disk_is_named(tmp_path, finder, monkeypatch, capsys):
    source = save_video(tmp_path / "walk.avi")
    monkeypatch.setattr(cv2, "VideoWriter", CutOff)
    with pytest.raises(UserError, match=r"cannot write .*walk\.mp4: 0 of its 7 frames are in the file"):
        run(source, tmp_path)
    assert "saved in" not in "".join(capsys.readouterr())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize(
    ("option", "file"),
    [("save_csv", "predictions.csv"), ("save_json", "predictions.json"), ("save_txt", "labels/a.txt")],
)
def test_a_file_that_does_not_fit_on_the_disk_is_named(tmp_path, finder, option, file, monkeypatch):
    save(tmp_path / "a.png", draw_image((10, 10, 40, 40)))
    folder = tmp_path / "runs" / "exp"
    folder.mkdir(parents=True)
    (folder / f"{file}.part").parent.mkdir(exist_ok=True)
    (folder / f"{file}.part").symlink_to("/dev/full")
    opened = os.fdopen

    def open_full(descriptor, mode, **options):
        os.close(descriptor)
        return opened(os.open("/dev/full", os.O_WRONLY), mode, **options)

    monkeypatch.setattr(os, "fdopen", open_full)
    with pytest.raises(UserError, match=f"cannot write .*{file}: No space left on device"):
        run(tmp_path / "a.png", tmp_path, nosave=True, exist_ok=True, **{option: True})
    assert not (folder / file).exists()


def test_the_source_is_never_overwritten(tmp_path, finder):
    original = save(tmp_path / "runs" / "exp" / "a.png", draw_image((10, 10, 40, 40))).read_bytes()
    with pytest.raises(UserError, match="would overwrite"):
        run(tmp_path / "runs" / "exp", tmp_path, exist_ok=True)
    assert (tmp_path / "runs" / "exp" / "a.png").read_bytes() == original


def test_second_run_into_the_same_folder_replaces_the_first(tmp_path, finder):
    save(tmp_path / "a.png", draw_image((10, 10, 40, 40)))
    for options in ({}, {"conf_thres": 0.95}):
        _, folder = run(tmp_path / "a.png", tmp_path, save_txt=True, save_json=True, exist_ok=True, **options)
    assert (folder / "labels" / "a.txt").read_text() == ""
    assert json.loads((folder / "predictions.json").read_text()) == []


@pytest.mark.parametrize(
    "options, message",
    [
        ({"classes": (7,)}, "no such class; choose from: 0 white, 1 re/d"),
        ({"imgsz": (100,)}, "multiple of the stride 32"),
        ({"save_conf": True}, "--save-txt"),
        ({"conf_thres": 1.5}, "at most 1"),
        ({"tile": "8"}, "pixels from 32"),
        ({"source": "nowhere"}, "no such source"),
        ({"device": "cuda:9"}, "no device"),
    ],
)
def test_wrong_options_are_one_clear_line(tmp_path, finder, options, message):
    save(tmp_path / "a.png", draw_image())
    with pytest.raises(UserError, match=message):
        run(**({"source": tmp_path / "a.png", "tmp_path": tmp_path} | options))
    assert not (tmp_path / "runs").exists()


def test_view_img_without_a_screen_is_refused_instead_of_crashing(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(UserError, match="needs a screen"):
        DetectConfig.of(view_img=True)


def command(*arguments) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("script", ["detect.py", "export.py"])
def test_help_imports_nothing_heavy(script):
    done = command("-X", "importtime", script, "--help")
    assert done.returncode == 0 and "--weights" in done.stdout
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert not imported & {"torch", "cv2", "ultralytics", "numpy", "onnx", "matplotlib"}


def test_command_line_runs_a_real_checkpoint(tmp_path):
    save(tmp_path / "a.jpg", draw_image((10, 10, 40, 40), size=(96, 128)))
    arguments = ["--weights", GOLDEN / "yolov5n.pt", "--source", tmp_path / "a.jpg", "--img", "128"]
    arguments += ["--conf", "0.0001", "--max-det", "5", "--project", tmp_path, "--augment", "--save-txt"]
    done = command("detect.py", *arguments)
    assert done.returncode == 0
    assert "image 1/1" in done.stderr and "96x128, 5 " in done.stderr, "a line per image"
    assert "5 objects in 1 image" in done.stdout and "inference" in done.stdout, "the summary"
    assert len((tmp_path / "exp" / "labels" / "a.txt").read_text().splitlines()) == 5


def test_unwritable_folder_is_one_line_and_exit_code_2(tmp_path):
    save(tmp_path / "a.jpg", draw_image(size=(32, 32)))
    (tmp_path / "file").touch()
    weights = ["--weights", GOLDEN / "yolov5n.pt", "--source", tmp_path / "a.jpg", "--img", "32"]
    done = command("detect.py", *weights, "--project", tmp_path / "file")
    assert done.returncode == 2
    assert "error" in done.stderr.splitlines()[-1] and "file/exp" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
