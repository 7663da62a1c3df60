"""report.html: one file, safe, for every kind of run; rendered by a real browser."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tracemalloc
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from engine.evaluation.evaluator import EvaluationResult, ScoringResult
from engine.evaluation.metrics import PROTOCOLS, evaluate_detections
from engine.evaluation.outputs import plot
from engine.evaluation.report.gallery import _cut_out, confident_mistakes, crops, missed_small
from engine.evaluation.report.page import FIGURES, write_report
from tests.detection_cases import box, one_image, random_case

NAMES = ["a", "<script>alert(1)</script>", "c & d", "d"]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def draw_image(path):
    return np.random.default_rng(0).integers(60, 90, (600, 600, 3), np.uint8)


def report_of(folder, ground_truth, detections, protocol="coco", **options):
    records = [SimpleNamespace(path=Path(f"{i}.jpg")) for i in range(ground_truth.num_images)]
    metrics = evaluate_detections(ground_truth, detections, NAMES, PROTOCOLS[protocol])
    evaluation = EvaluationResult(
        ScoringResult(records, detections, ground_truth, detections, metrics), None, {}, None
    )
    analysis = plot(evaluation, folder)
    write_report(folder / "report.html", "<b>run</b>", evaluation, analysis, {"sizes": ["0", "8"]}, **options)
    return (folder / "report.html").read_text(encoding="utf-8")


class Links(HTMLParser):
    """Collects what a page would load, and its tags."""

    def __init__(self):
        super().__init__()
        self.tags, self.targets = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.targets += [value for name, value in attributes if name in ("src", "href", "data", "action")]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A folder with the report of a random case."""
    folder = tmp_path_factory.mktemp("report")
    report_of(folder, *random_case(0), read_image=draw_image)
    return folder


def test_the_page_is_complete_needs_no_network_and_escapes_names(run_folder):
    html = (run_folder / "report.html").read_text(encoding="utf-8")
    page = Links()
    page.feed(html)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert page.targets
    assert all(target.startswith("data:image/") for target in page.targets)
    assert not re.search(r"@import|url\(|https?://", html)
    assert "&lt;script&gt;alert(1)" in html
    assert "&lt;b&gt;run&lt;/b&gt;" in html
    assert html.count("data:image/png") == len(FIGURES)
    assert "sizes are areas in original-image pixels" in html


def test_images_that_cannot_be_read_are_left_out():
    def none(path):
        raise FileNotFoundError(path)

    analysis = analysis_of(*random_case(0))
    assert crops(analysis, confident_mistakes(analysis, 5), draw_image)
    assert crops(analysis, confident_mistakes(analysis, 5), none) == []


@pytest.mark.parametrize(
    ("case", "protocol"),
    [
        (([], []), "coco"),
        (([box(0, 0, 9)], []), "tinyperson"),
        (([], [[*box(0, 0, 9), 0.5, 0]]), "coco"),
    ],
)
def test_there_is_a_report_without_detections_and_without_objects(tmp_path, case, protocol):
    assert "</html>" in report_of(tmp_path, *one_image(*case), protocol, read_image=draw_image)


def analysis_of(ground_truth, detections):
    from engine.evaluation.analysis import analyze

    metrics = evaluate_detections(ground_truth, detections, NAMES)
    records = [SimpleNamespace(path=Path(f"{i}.jpg")) for i in range(ground_truth.num_images)]
    return analyze(ScoringResult(records, detections, ground_truth, detections, metrics))


def test_the_worst_misses_are_small_and_unseen_ones_first():
    boxes = [box(0, 0, 10), box(100, 0, 20), box(200, 0, 20), box(300, 0, 80), box(400, 0, 12)]
    rows = [[*box(0, 0, 10), 0.9, 0], [*box(210, 0, 20), 0.01, 0]]
    subjects = missed_small(analysis_of(*one_image(boxes, rows)), 10)
    assert [subject.box_xyxy[0] for subject in subjects] == [100, 400, 200]
    assert subjects[0].caption == "a, 20 px: nothing nearby"
    assert subjects[2].caption == "a, 20 px: best nearby 0.01"


def test_confident_mistakes_come_with_their_cause():
    boxes = [box(0, 0, 20), box(100, 0, 20)]
    rows = [[*boxes[0], 0.9, 0], [*boxes[1], 0.95, 1], [*box(300, 0, 16), 0.92, 0]]
    first, second = confident_mistakes(analysis_of(*one_image(boxes, rows)), 10)
    assert first.caption == f"{NAMES[1]} 0.95, 20 px: classification"
    assert second.caption == "a 0.92, 16 px: background"


@pytest.mark.parametrize("corner", [(0, 0), (590, 590), (300, 300), (-40, 650)])
def test_a_crop_has_its_subject_in_the_middle_also_at_the_border(corner):
    subject = SimpleNamespace(box_xyxy=np.array([*corner, *np.add(corner, 10)], float), is_ground_truth=True)
    crop = _cut_out(np.zeros((600, 600, 3), np.uint8), subject, subject.box_xyxy[None], np.zeros((0, 4)))
    rows, columns = np.nonzero((crop == (80, 200, 60)).all(2))
    assert abs((rows.min() + rows.max()) / 2 - crop.shape[0] / 2) < 4
    assert abs((columns.min() + columns.max()) / 2 - crop.shape[1] / 2) < 4


@pytest.mark.parametrize(
    ("shape", "corners"),
    [((50, 20000), (0, 0, 20000, 50)), ((20000, 50), (0, 0, 50, 20000)), ((1, 1), (0, 0, 1, 1))],
)
def test_a_crop_of_a_box_as_long_as_the_image_takes_no_more_memory_than_the_image(shape, corners):
    subject = SimpleNamespace(box_xyxy=np.array(corners, float), is_ground_truth=True)
    pixels = np.full((*shape, 3), 250, np.uint8)
    tracemalloc.start()
    crop = _cut_out(pixels, subject, np.zeros((0, 4)), np.zeros((0, 4)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000
    assert crop.shape == (192, 192, 3)
    bright = np.argwhere((crop > 240).all(2))  # the image is there, in the middle
    assert len(bright) and abs(bright.mean(0) - 95.5).max() < 4


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)")
def test_a_browser_shows_plots_and_crops(run_folder, tmp_path):
    shot = tmp_path / "shot.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1200,2600"]
    flags += ["--no-first-run", "--disable-quic", "--disable-extensions", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={shot}"]
    command = [str(CHROMIUM), *flags, (run_folder / "report.html").as_uri()]
    # no pipes: a helper process of the browser that lives on would keep them open
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    browser = subprocess.Popen(command, start_new_session=True, **quiet)
    try:
        browser.wait(timeout=60)
    except subprocess.TimeoutExpired:
        if not shot.exists():
            pytest.skip("the browser hangs on this machine, whatever the page")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(browser.pid, signal.SIGKILL)
        browser.wait()
    pixels = cv2.imread(str(shot)).astype(int)  # BGR
    assert pixels.shape[:2] == (2600, 1200)
    colors = {
        "AP50": (0xD8, 0x4F, 0x1F),
        "errors": (0x26, 0x3D, 0xD7),
        "crops of the ground_truth": (80, 200, 60),
    }
    for what, color in colors.items():
        assert (np.abs(pixels - color).max(2) < 40).sum() > 100, what
