"""Replace a trained network's downsampling and keep its outputs: python -m tools.surgery --weights X.

python -m tools.surgery --weights yolov5s.pt --to spd --out yolov5s-spd-init.pt
python -m tools.surgery --weights best.pt --where 'model.1.*' 'model.3.*'

Exit code 1: the outputs changed, and nothing was written; 2: bad input.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from utils.cli import run
from utils.errors import UserError
from utils.log import RESULT, LogOptions
from utils.options import Options, group, opt

LOG = logging.getLogger(__name__)
TOLERANCE = 1e-4  # largest relative difference of outputs that still counts as unchanged


@dataclass(frozen=True)
class SurgeryConfig(Options):
    """Replace a network's downsampling and keep its outputs, as a start for fine-tuning."""

    weights: Path = opt("yolov5s.pt", "checkpoint of ours or of YOLOv5")
    to: Literal["spd"] = opt("spd", "what replaces strided convolutions and poolings")
    out: Path | None = opt(None, "checkpoint to write (default: NAME-spd-init.pt beside the weights)")
    where: tuple[str, ...] = opt((), "names or patterns of the layers to replace (default: all)")
    preserve: bool = opt(True, "keep the outputs", off_help="start the new layers from random weights")
    skip: bool = opt(False, "leave what cannot be replaced")
    log: LogOptions = group(LogOptions)


def main(config: SurgeryConfig) -> int:
    """Replace, compare, write; return 1 if the outputs differ."""
    import torch

    from models import load_model
    from models.checkpoint import save_checkpoint
    from models.load import to_checkpoint
    from models.surgery import replace_downsampling
    from models.surgery.compare import outputs_of, relative_difference
    from models.surgery.replace import EXAMPLE_SIDE

    out = config.out or config.weights.with_name(f"{config.weights.stem}-{config.to}-init.pt")
    if out.resolve() == config.weights.resolve():
        raise UserError(f"--out {out} would overwrite the weights; give another name")
    model = load_model(config.weights)
    images = torch.rand(2, model.yaml["ch"], EXAMPLE_SIDE, EXAMPLE_SIDE)
    before = outputs_of(model, images)
    report = replace_downsampling(
        model, config.to, config.preserve, config.where or None, config.skip, images[:1]
    )
    LOG.log(RESULT, report)
    difference = relative_difference(before, outputs_of(model, images))
    LOG.log(RESULT, f"largest relative difference of the outputs: {difference:.2g}")
    if config.preserve and not difference <= TOLERANCE:  # NaN is a difference, too
        LOG.error(f"the outputs differ by more than {TOLERANCE:g}, so {out} was not written")
        return 1
    save_checkpoint(out, to_checkpoint(model))
    LOG.log(RESULT, f"saved {out}; try: python train.py --weights {out}")
    return 0


if __name__ == "__main__":
    run(SurgeryConfig, main)
