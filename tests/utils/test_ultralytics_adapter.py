"""Drawing through Ultralytics, offline and without side effects."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from utils import ultralytics_adapter
from utils.ultralytics_adapter import class_color, draw_boxes

BOXES = np.array([[20.0, 40.0, 50.0, 70.0]])
GRAY = np.full((120, 160, 3), 90, np.uint8)


IMPORT_SCRIPT = """
import os, socket, sys
import cv2, numpy, torch
from PIL import Image

def refuse(*args, **kwargs):
    os._exit(9)

socket.socket.connect = socket.getaddrinfo = refuse
def settings():
    printed = str(torch.tensor([1e-7, 1.5]))
    return cv2.getNumThreads(), torch.save, Image.open, numpy.get_printoptions(), printed

before = settings()
from utils.ultralytics_adapter import draw_boxes
assert "ultralytics" not in sys.modules
for label in ("tree", "дерево", "樹"):
    draw_boxes(numpy.zeros((64, 64, 3), "uint8"), numpy.array([[8, 30, 40, 50]]), [label], numpy.array([0]))
assert before == settings()
assert "OMP_NUM_THREADS" not in os.environ
assert os.environ["YOLO_OFFLINE"] == "1" and os.environ["YOLO_AUTOINSTALL"] == "0"
assert "torchvision" not in sys.modules
"""


def test_first_import_is_silent_offline_and_leaves_no_settings_changed(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "YOLO_"))}
    environment["YOLO_CONFIG_DIR"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_SCRIPT], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("label", ["tree .9", "дерево", "樹", ""])
def test_drawing_works_offline_with_any_letters_on_a_copy(label, offline):
    drawn = draw_boxes(GRAY, BOXES, [label], np.array([3]))
    assert drawn.shape == GRAY.shape and drawn.dtype == np.uint8 and drawn.flags.writeable
    assert (GRAY == 90).all()
    assert drawn[70, 35].tolist() == pytest.approx(class_color(3), abs=40)


def test_no_boxes_give_the_image_back():
    drawn = draw_boxes(GRAY, np.zeros((0, 4)), [], np.zeros(0, int))
    assert (drawn == GRAY).all() and drawn is not GRAY


def test_first_box_lies_on_top():
    drawn = draw_boxes(GRAY, np.repeat(BOXES, 2, 0), ["", ""], np.array([1, 2]))
    assert drawn[70, 35].tolist() == pytest.approx(class_color(1), abs=40)


def test_lines_are_thin_for_small_objects_and_follow_a_large_image():
    small, large = np.array([[0.0, 0, 12, 12]]), np.array([[0.0, 0, 900, 900]])
    assert ultralytics_adapter._line_width((4000, 4000, 3), small) == 1
    assert ultralytics_adapter._line_width((4000, 4000, 3), large) == 10


def test_given_line_width_is_used():
    thin, thick = (draw_boxes(GRAY, BOXES, [""], np.array([0]), line_width=width) for width in (1, 7))
    assert (thick != GRAY).sum() > 2 * (thin != GRAY).sum()
