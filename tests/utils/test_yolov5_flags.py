"""YOLOv5's flags: each one is an option of ours, or is left out with what to use instead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.evaluation.config import ValConfig
from engine.export.config import ExportConfig
from engine.inference.config import DetectConfig
from engine.training.config import TrainConfig
from utils.cli import parse
from utils.errors import UserError
from utils.options import Options, options_of

# Of YOLOv5 v7.0's train.py, val.py, detect.py and export.py.
FLAGS: dict[type[Options], str] = {
    TrainConfig: """weights cfg data hyp epochs batch-size batch imgsz img img-size rect resume nosave noval
        noautoanchor noplots evolve bucket cache image-weights device multi-scale single-cls optimizer sync-bn
        workers project name exist-ok quad cos-lr label-smoothing patience freeze save-period seed local_rank
        entity upload_dataset bbox_interval artifact_alias""",
    ValConfig: """data weights batch-size imgsz img img-size conf-thres iou-thres max-det task device workers
        single-cls augment verbose save-txt save-hybrid save-conf save-json project name exist-ok half dnn""",
    DetectConfig: """weights source data imgsz img img-size conf-thres iou-thres max-det device view-img
        save-txt save-format save-csv save-conf save-crop nosave classes agnostic-nms augment visualize
        update project name exist-ok line-thickness hide-labels hide-conf half dnn vid-stride""",
    ExportConfig: """data weights imgsz img img-size batch-size device half inplace keras optimize int8
        per-tensor dynamic cache simplify mlmodel opset workspace nms agnostic-nms topk-per-class topk-all
        iou-thres conf-thres include verbose""",
}
CASES = [(config, f"--{flag}") for config, flags in FLAGS.items() for flag in flags.split()]


def spellings(config: type[Options]) -> set[str]:
    every: set[str] = set()
    for option in options_of(config):
        every |= {option.flag, *option.aliases, *option.off}
    return every


@pytest.mark.parametrize(("config", "flag"), CASES)
def test_every_flag_of_yolov5_works_or_says_what_to_use_instead(config: type[Options], flag: str) -> None:
    plain = flag.replace("_", "-")
    if plain in spellings(config):
        assert plain not in config.left_out
        return
    with pytest.raises(UserError, match=f"{flag} of YOLOv5 is left out: .{{10,}}"):
        parse(config, [flag])


@pytest.mark.parametrize(("config", "flag"), CASES)
def test_the_page_for_yolov5s_users_lists_every_flag(config: type[Options], flag: str) -> None:
    page = Path("docs/yolov5.md").read_text(encoding="utf-8")
    assert re.search(rf"`{flag}`", page), f"{flag} is not in docs/yolov5.md"


@pytest.mark.parametrize(
    ("argv", "name", "value"),
    [
        (["--weights", ""], "weights", None),
        (["--noplots"], "plots", False),
        (["--noautoanchor"], "autoanchor", False),
        (["--cache"], "cache", "ram"),
        (["--batch", "4"], "batch_size", 4),
    ],
)
def test_idioms_of_yolov5s_command_lines(argv: list[str], name: str, value: object) -> None:
    assert parse(TrainConfig, argv).get(name) == value
