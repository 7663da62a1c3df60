"""Print a network's layers, parameters and arithmetic: python -m tools.summary NAME.

python -m tools.summary yolov5n-spd
python -m tools.summary mine.yaml --imgsz 1280 --num-classes 10
python -m tools.summary resnet18 --downsample spectral
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from utils.cli import run
from utils.log import RESULT, LogOptions
from utils.options import Options, group, opt

LOG = logging.getLogger(__name__)
DETECT_SIDE, CLASSIFY_SIDE = 640, 32  # pixels


@dataclass(frozen=True)
class SummaryConfig(Options):
    """Print a network's layers, parameters and arithmetic: python -m tools.summary NAME."""

    cfg: str = opt(
        "yolov5n-spd", "model name with its scale letter, or the path of a YAML (or as the first argument)"
    )
    imgsz: int | None = opt(
        None,
        f"square input side for the arithmetic, pixels (default: {DETECT_SIDE}, classifiers {CLASSIFY_SIDE})",
        "--img",
        "--img-size",
        min=7,
    )
    num_classes: int | None = opt(None, "number of classes, instead of the YAML's", "--nc", min=1)
    downsample: str | None = opt(None, "replace the downsampling by this operator")
    log: LogOptions = group(LogOptions)


def main(config: SummaryConfig) -> None:
    """Build the network and print its summary."""
    from models import ClassificationModel, build_model
    from models.summary import summarize

    model = build_model(config.cfg, config.num_classes, downsample=config.downsample)
    side = CLASSIFY_SIDE if isinstance(model, ClassificationModel) else DETECT_SIDE
    LOG.log(RESULT, summarize(model, config.imgsz or side))


def with_flag(arguments: Sequence[str]) -> list[str]:
    """Turn a leading NAME into --cfg NAME."""
    named = bool(arguments) and not arguments[0].startswith("-")
    return ["--cfg", *arguments] if named else list(arguments)


if __name__ == "__main__":
    run(SummaryConfig, main, with_flag(sys.argv[1:]))
