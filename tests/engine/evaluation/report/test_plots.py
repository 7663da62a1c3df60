"""Figures: each is written, also for nothing at all; boxes lie where they should."""

import cv2
import numpy as np
import pytest

from engine.evaluation.metrics import confidence_curves, confusion_matrix, evaluate_detections, match
from engine.evaluation.report.plots import (
    plot_batch,
    plot_confidence_curve,
    plot_confusion,
    plot_precision_recall,
)
from tests.detection_cases import NAMES, one_image, random_case


def read(png):
    image = cv2.imread(str(png))
    assert image is not None
    return image


@pytest.mark.parametrize("case", ["random", "no detections", "no objects", "neither"])
def test_curves_and_confusion_are_drawn(tmp_path, case):
    box = [0, 0, 10, 10]
    ground_truth, detections = {
        "random": lambda: random_case(0),
        "no detections": lambda: one_image([box], []),
        "no objects": lambda: one_image([], [[*box, 0.5, 0]]),
        "neither": lambda: one_image([], []),
    }[case]()
    png = tmp_path / "plot.png"
    plot_precision_recall(evaluate_detections(ground_truth, detections, NAMES), png)
    assert read(png).std() > 10
    curves = confidence_curves(ground_truth, detections, match(ground_truth, detections), len(NAMES))
    plot_confidence_curve(curves, curves.f1, "F1", NAMES, png)
    assert read(png).std() > 10
    plot_confusion(confusion_matrix(ground_truth, detections, len(NAMES), 0.2), NAMES, 0.2, 0.5, png)
    assert read(png).std() > 10


def test_eighty_classes_fit(tmp_path):
    names = [f"class {k}" for k in range(80)]
    plot_confusion(np.eye(81, dtype=int) * 5, names, 0.25, 0.5, tmp_path / "plot.png")
    assert max(read(tmp_path / "plot.png").shape) < 2500


def test_a_box_is_drawn_where_it_is(tmp_path):
    images = np.zeros((2, 3, 100, 200), np.uint8)
    targets = np.array([[1, 0, 0.5, 0.5, 0.5, 0.4]])  # x 50..150, y 30..70 of the second image
    plot_batch(images, targets, ["tree"], tmp_path / "batch.png")
    image = read(tmp_path / "batch.png")
    zoom = image.shape[1] / 404
    rows, columns = np.nonzero(np.ptp(image, axis=2) > 100)  # the only color there is
    assert rows.min() / zoom == pytest.approx(30, abs=2)
    assert rows.max() / zoom == pytest.approx(70, abs=2)
    assert columns.min() / zoom == pytest.approx(204 + 50, abs=2)
    assert columns.max() / zoom == pytest.approx(204 + 150, abs=2)


def test_only_the_first_images_of_a_batch_are_drawn(tmp_path):
    images = np.full((20, 3, 32, 32), 100, np.uint8)
    targets = np.array([[19, 1, 0.5, 0.5, 0.5, 0.5, 0.9], [0, 1, 0.5, 0.5, 0.5, 0.5, 0.9]])
    plot_batch(images, targets, NAMES, tmp_path / "batch.png", "a title")
    assert read(tmp_path / "batch.png").shape[1] == pytest.approx(1600, abs=2)
    plot_batch(images[:1], np.zeros((0, 6)), NAMES, tmp_path / "batch.png")
    assert read(tmp_path / "batch.png").std() < 1


@pytest.mark.parametrize("name", ["cost $a_$", r"$\frac{$", "2 $ and 3 $", r"\$x$"])
def test_dollar_signs_in_class_names_are_no_formulas(tmp_path, name):
    names, png = [name, "other"], tmp_path / "plot.png"
    plot_confusion(np.eye(3, dtype=int), names, 0.2, 0.5, png)
    targets = np.array([[0, 0, 0.5, 0.5, 0.5, 0.5], [0, 1, 0.2, 0.2, 0.2, 0.2]])
    plot_batch(np.zeros((1, 3, 32, 32), np.uint8), targets, names, png)
    ground_truth, detections = random_case(0)
    many = [f"{name} {k}" for k in range(len(NAMES))]
    plot_precision_recall(evaluate_detections(ground_truth, detections, many), png)
    curves = confidence_curves(ground_truth, detections, match(ground_truth, detections), len(many))
    plot_confidence_curve(curves, curves.f1, "F1", many, png)
    assert read(png).std() > 10
