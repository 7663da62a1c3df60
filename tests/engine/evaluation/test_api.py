"""`validate` and `score`: the commands' numbers from Python, at no cost before they are called."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.evaluation import score, validate
from engine.evaluation.classification.metrics import ClassificationResult
from engine.evaluation.evaluator import EvaluationResult
from tests.engine.evaluation.test_predictions import write_case
from tests.rectangles import NAMES, draw_image, save
from utils.errors import UserError


@pytest.fixture
def data_yaml(tmp_path: Path) -> Path:
    """One image with one object."""
    save(tmp_path / "images" / "a.png", draw_image((20, 20, 60, 60), size=(160, 160)))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.25 0.25 0.25 0.25")
    file = tmp_path / "data.yaml"
    file.write_text(f"path: {tmp_path}\nval: images\nnames: {NAMES}\n")
    return file


def test_validate_returns_what_the_run_folder_holds(data_yaml, tmp_path, finder):
    options = {"device": "cpu", "workers": 0, "plots": False, "project": tmp_path / "runs"}
    result = validate("stub.pt", data=data_yaml, imgsz=160, **options)
    assert isinstance(result, EvaluationResult)
    written = json.loads((tmp_path / "runs/exp/metrics.json").read_text())
    point = result.inputs.operating_point
    expected = result.metrics.values | point.values() | {"confidence": point.confidence}
    assert {key: written[key] for key in expected} == expected
    assert written["AP50"] == pytest.approx(1)


def test_validate_takes_an_option_of_any_group(data_yaml, tmp_path, finder):
    options = {"device": "cpu", "workers": 0, "plots": False, "project": tmp_path / "runs"}
    tiled = {"tile": "64", "tile_merge": "nms", "tile_metric": "ios", "tile_thres": 0.5, "max_dets": (5,)}
    result = validate(["stub.pt"], data=data_yaml, imgsz=64, **options, **tiled)
    assert "AR5" in result.metrics.values
    config = (tmp_path / "runs/exp/config.yaml").read_text()
    assert "tile_metric: ios" in config


def test_validate_takes_classifiers(tmp_path):
    import yaml

    from tests.classification_cases import SMALL_NETWORK, stripes
    from tests.engine.test_classifier_commands import save_classifier

    data = stripes(tmp_path, 12)
    weights = save_classifier(tmp_path / "small.pt", yaml.safe_load(SMALL_NETWORK), data)
    result = validate(weights, device="cpu", plots=False, project=tmp_path / "runs")
    assert isinstance(result, ClassificationResult)
    written = json.loads((tmp_path / "runs/exp/metrics.json").read_text())
    assert {key: written[key] for key in result.values} == result.values


def test_score_returns_what_the_command_writes(tmp_path):
    write_case(tmp_path)
    files = tmp_path / "results.json", tmp_path / "gt.json"
    result = score(*files, plots=False, project=tmp_path / "runs", protocol="aitod")
    written = json.loads((tmp_path / "runs/exp/metrics.json").read_text())
    assert {key: written[key] for key in result.metrics.values} == result.metrics.values
    assert "AR1500" in result.metrics.values


def test_unknown_options_are_named_with_the_nearest():
    with pytest.raises(UserError, match=r"unknown option 'conf_thresh'\. Did you mean 'conf_thres'"):
        validate("a.pt", conf_thresh=0.1)


def test_importing_the_api_is_light():
    heavy = "{'torch', 'cv2', 'ultralytics', 'matplotlib', 'hotcoco', 'numpy'}"
    code = f"import sys, engine.evaluation; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
