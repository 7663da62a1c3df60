"""Networks with an anchor-free head go through training, evaluation, export and detection as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from engine.export import command as export
from engine.export.config import ExportConfig
from engine.inference.test_time_augmentation import level_sizes
from engine.runtimes import load_predictor
from engine.training import train
from models import build_model, load_model
from models.checkpoint import save_checkpoint
from models.load import to_checkpoint
from models.summary import count_parameters
from models.yolov5_checkpoint import save_yolov5_checkpoint
from utils.errors import UserError

SHAPE = (96, 64)


def test_the_parameter_count_is_the_documented_one() -> None:
    assert count_parameters(build_model("yolov5n-spd-u")) == 2_606_048


@pytest.mark.parametrize("name", ["yolov5n", "yolov5n-spd", "yolov5n-spd-p2", "yolov5n-p234"])
def test_the_layers_before_the_head_are_those_of_the_network_with_anchors(name: str) -> None:
    with_anchors, without = build_model(name).yaml, build_model(f"{name}-u").yaml
    assert without["backbone"] == with_anchors["backbone"]
    assert without["head"][:-1] == with_anchors["head"][:-1]
    assert without["head"][-1][0] == with_anchors["head"][-1][0]  # the same levels


@pytest.mark.parametrize("suffix", ["onnx", "torchscript"])
def test_an_export_equals_pytorch(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "best.pt", to_checkpoint(build_model("yolov5n-spd-u", num_classes=2)))
    assert export.main(ExportConfig.of(weights=tmp_path / "best.pt", imgsz=SHAPE, include=(suffix,))) == 0
    ours, theirs = load_predictor(tmp_path / "best.pt"), load_predictor(tmp_path / f"best.{suffix}")
    images = torch.rand(1, 3, *SHAPE)
    torch.testing.assert_close(theirs(images), ours(images), atol=1e-3, rtol=1e-4)


def test_a_checkpoint_builds_the_network_again(tmp_path: Path) -> None:
    model = build_model("yolov5n-spd-p2-u", num_classes=2).eval()
    save_checkpoint(tmp_path / "best.pt", to_checkpoint(model))
    images = torch.rand(1, 3, *SHAPE)
    torch.testing.assert_close(load_model(tmp_path / "best.pt")(images)[0], model(images)[0])


@pytest.mark.parametrize("name", ["yolov5n", "yolov5n-u", "yolov5n-p2", "yolov5n-p2-u", "yolov5n-p234-u"])
def test_the_levels_of_a_decoded_output_are_told_by_their_number_of_boxes(name: str) -> None:
    model = build_model(name, num_classes=2).eval()
    decoded, raw = model(torch.rand(1, 3, *SHAPE))
    expected = [level[0, ..., 0].numel() for level in raw]
    assert level_sizes(decoded.shape[1], SHAPE, model.max_stride) == expected


def test_yolov5s_own_code_has_no_such_head(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="AnchorFreeDetect"):
        save_yolov5_checkpoint(tmp_path / "x.pt", build_model("yolov5n-u", num_classes=2))
    assert not (tmp_path / "x.pt").exists()


def test_a_run_logs_the_losses_of_this_head(tmp_path: Path) -> None:
    train(
        cfg="yolov5n-u", imgsz=64, epochs=1, batch_size=28, plots=False, workers=0, device="cpu",
        project=tmp_path,
    )  # fmt: skip
    header, row = (tmp_path / "exp" / "results.csv").read_text(encoding="utf-8").splitlines()
    values = dict(zip(header.split(","), row.split(","), strict=True))
    for name in ("box_loss", "cls_loss", "dfl_loss"):
        assert float(values[f"train/{name}"]) > 0
        assert float(values[f"val/{name}"]) > 0
    assert not {"train/obj_loss", "val/obj_loss"} & set(values)


@pytest.mark.parametrize("option", [{"box_loss": "nwd"}, {"label_smoothing": 0.1}])
def test_options_of_heads_with_anchors_are_refused(tmp_path: Path, option: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="is for heads with anchors, and yolov5n-u has none"):
        train(cfg="yolov5n-u", imgsz=64, epochs=1, workers=0, device="cpu", project=tmp_path, **option)
