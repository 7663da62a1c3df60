"""What our networks start from: hyperparameters, architectures of classifiers, weights, surgery."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from benchmarks.reproduce.datasets import below_root
from benchmarks.reproduce.suite import NetworkEntry
from utils.errors import UserError

LOG = logging.getLogger(__name__)
YOLOV5 = "download it from https://github.com/ultralytics/yolov5/releases/tag/v6.0"


def start_of(entry: NetworkEntry, root: Path, folder: Path) -> Path | None:
    """Return the weights to start from, after surgery where the suite says so; None: random ones.

    Args:
        entry: the network.
        root: folder with the data sets and weights.
        folder: of the run, for what surgery writes.

    Raises:
        UserError: the weights are not there, or surgery cannot be done.
    """
    if entry.weights is None:
        return None
    weights = below_root(root, entry.weights, YOLOV5)
    if not entry.surgery:
        return weights
    import torch

    from models import load_model, replace_downsampling
    from models.checkpoint import save_checkpoint
    from models.load import to_checkpoint

    file = folder / f"{weights.stem}-spd.pt"
    if not file.exists():
        model = load_model(weights)
        where = None if entry.surgery == ("*",) else entry.surgery
        example = torch.zeros(1, 3, 128, 128)
        LOG.info("%s", replace_downsampling(model, "spd", where=where, example=example))
        save_checkpoint(file, to_checkpoint(model))
    return file


def architecture_of(entry: NetworkEntry, folder: Path, imgsz: int) -> str | None:
    """Return a network's architecture as train.py takes it; a classifier's is written into the run folder.

    Raises:
        UserError: no such network or operator.
    """
    import yaml

    if not (entry.operator or entry.stages or entry.flops_of):
        return entry.cfg
    assert entry.cfg is not None
    architecture = classifier(entry)
    if entry.flops_of:
        like = classifier(entry.model_copy(update={"operator": entry.flops_of, "stages": ()}))
        architecture = widened(architecture, like, imgsz)
    file = folder / "network.yaml"
    file.write_text(yaml.safe_dump(architecture, sort_keys=False), encoding="utf-8")
    return str(file)


def classifier(entry: NetworkEntry) -> dict[str, Any]:
    """Return the architecture of a ResNet whose stages shrink as the suite says, on the grid.

    Raises:
        UserError: no such network or operator.
    """
    from benchmarks.downsampling import architecture_of as with_operator
    from models.architecture import read_architecture

    assert entry.cfg is not None
    architecture = with_operator(entry.cfg, entry.operator or "strided")
    if not entry.stages:
        return architecture
    strides = [1 if name == "none" else 2 for name in entry.stages]
    return read_architecture({**architecture, "downsample": list(entry.stages), "strides": strides})


def widened(architecture: dict[str, Any], like: dict[str, Any], imgsz: int) -> dict[str, Any]:
    """Return the architecture with all widths scaled alike, so that its FLOPs are nearest to another's."""
    from models.architecture import read_architecture
    from models.build import build_model
    from models.summary import count_gflops

    def gflops(one: dict[str, Any]) -> float:
        return count_gflops(build_model(one), imgsz)

    goal, widths = gflops(like), architecture["widths"]
    candidates = []
    for step in range(-8, 33):  # 1/16 of the width at a time, from half to three times
        scaled = [max(1, round(width * (1 + step / 16))) for width in widths]
        candidates.append(read_architecture({**architecture, "widths": scaled}))
    return min(candidates, key=lambda one: abs(gflops(one) - goal))


def hyp_of(hyp: str | None, changes: dict[str, Any], folder: Path, classifies: bool) -> str | None:
    """Return the hyperparameter file, with the suite's changes where there are any.

    Raises:
        UserError: no such file or hyperparameter.
    """
    if not changes:
        return hyp
    from engine.training.classifier_hyperparameters import ClassifierHyperparameters
    from engine.training.hyperparameters import Hyperparameters, read_hyp

    if hyp is None:
        raise UserError("a network with 'hyp' needs the option hyp of its data, which it changes")
    file = folder / "changed-hyp.yaml"
    kind = ClassifierHyperparameters if classifies else Hyperparameters
    read_hyp(Path(hyp), kind).changed(**changes).save(file)
    return str(file)
