"""val.py --ray: the numbers of val.py, from tiles of the data set and from full images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.evaluation import command as val
from engine.evaluation.config import ValConfig

pytest.importorskip("ray")


def metrics_of(folder: Path, name: str, **options: Any) -> tuple[dict[str, Any], int]:
    given = {"imgsz": 128, "device": "cpu", "workers": 0, "plots": False, "save_json": True}
    val.main(ValConfig.of(data=Path("data/treecrowns.yaml"), project=folder, name=name, **given, **options))
    metrics = json.loads((folder / name / "metrics.json").read_text())
    return metrics, len(json.loads((folder / name / "predictions.json").read_text()))


@pytest.mark.parametrize("options", [{"rect": True}, {"rect": False, "batch_size": 5}, {"tile": "416"}])
def test_actors_predict_what_one_process_predicts(tmp_path, cluster, options):
    expected, count = metrics_of(tmp_path, "plain", **options)
    actual, same = metrics_of(tmp_path, "ray", ray="local", actors=2, **options)
    assert same == count > 100
    assert expected["AP50"] > 0.05
    for name in ("AP", "AP50", "AP75", "AP_S", "AP_M", "AR100", "P", "R", "images", "objects"):
        assert actual[name] == pytest.approx(expected[name], abs=1e-6), name
