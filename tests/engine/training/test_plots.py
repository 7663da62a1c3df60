"""Figures of a training run: each is written, also for nothing at all."""

import cv2
import numpy as np
import pytest

from engine.training.plots import plot_labels, plot_results
from tests.detection_cases import NAMES


def read(png):
    image = cv2.imread(str(png))
    assert image is not None
    return image


def test_results_are_drawn_with_empty_cells_and_one_row(tmp_path):
    file, png = tmp_path / "results.csv", tmp_path / "results.png"
    file.write_text("epoch,box,AP\n0,1.5,\n")
    plot_results(file, png)
    few = read(png).shape
    file.write_text("epoch,a,b,c,d,e\n0,1,2,3,4,\n1,2,3,,5,6\n")
    plot_results(file, png)
    assert read(png).shape[0] > few[0]


def test_no_results_draw_nothing(tmp_path):
    (tmp_path / "results.csv").write_text("epoch,box\n")
    plot_results(tmp_path / "results.csv", tmp_path / "results.png")
    assert not (tmp_path / "results.png").exists()


@pytest.mark.parametrize("count", [0, 1, 200])
def test_labels_are_drawn(tmp_path, count):
    rng = np.random.default_rng(0)
    boxes = rng.uniform(0, 0.3, (count, 4))
    plot_labels(rng.integers(0, 4, count), boxes, NAMES, 640, tmp_path / "labels.png")
    assert read(tmp_path / "labels.png").shape[1] > 1000


@pytest.mark.parametrize("name", ["cost $a_$", r"$\frac{$", "2 $ and 3 $", r"\$x$"])
def test_dollar_signs_in_class_names_are_no_formulas(tmp_path, name):
    plot_labels([0, 1], np.full((2, 4), 0.5), [name, "other"], 640, tmp_path / "plot.png")
    assert read(tmp_path / "plot.png").std() > 10
