"""Make a checkpoint small for shipping: weights in 16 bits, and nothing of the training run's state.

python -m tools.strip --weights runs/train/exp/weights/best.pt --out weights/mine.pt

The network computes in 32 bits again once it is loaded. What the rounding changes is printed: score the file
with val.py before it replaces the original.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.cli import run
from utils.errors import UserError
from utils.log import RESULT, LogOptions
from utils.options import Options, group, opt

LOG = logging.getLogger(__name__)
STATE = ("training",)  # optimizer, moving average, random states: for --resume alone


@dataclass(frozen=True)
class StripConfig(Options):
    """Make a checkpoint small for shipping: python -m tools.strip --weights best.pt."""

    weights: Path = opt(None, "checkpoint of a detector or classifier (.pt; default: newest best.pt)")
    out: Path | None = opt(None, "file to write (default: <weights>-half.pt beside it)")
    log: LogOptions = group(LogOptions)


def main(config: StripConfig) -> int:
    """Round, write, and say by how much the outputs differ."""
    import torch

    from models.checkpoint import read_checkpoint, save_checkpoint
    from models.load import from_checkpoint
    from models.surgery.compare import outputs_of, relative_difference
    from models.surgery.replace import EXAMPLE_SIDE
    from utils.run_folders import default_weights

    weights = config.weights or default_weights()
    out = config.out or weights.with_name(f"{weights.stem}-half.pt")
    if out.resolve() == weights.resolve():
        raise UserError(f"--out {out} would overwrite the weights; give another name")
    content = read_checkpoint(weights)
    stripped = {key: value for key, value in content.items() if key not in STATE}
    stripped["weights"] = {name: rounded(tensor) for name, tensor in content["weights"].items()}
    model = from_checkpoint(content, str(weights))
    images = torch.rand(2, 3, EXAMPLE_SIDE, EXAMPLE_SIDE)
    before, after = (outputs_of(one, images) for one in (model, from_checkpoint(stripped, str(out))))
    save_checkpoint(out, stripped)
    difference = relative_difference(before, after)
    sizes = [file.stat().st_size / 1e6 for file in (weights, out)]
    LOG.log(RESULT, f"largest relative difference of the outputs: {difference:.2g}")
    LOG.log(RESULT, f"saved {out}, {sizes[1]:.2f} MB instead of {sizes[0]:.2f} MB")
    return 0


def rounded(tensor: Any) -> Any:
    """Return a tensor in 16 bits, if all of its values have a place there."""
    half = tensor.half()
    return half if tensor.is_floating_point() and half.isfinite().all() else tensor


if __name__ == "__main__":
    run(StripConfig, main)
