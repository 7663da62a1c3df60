"""The options of train.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engine.options import RunOptions
from engine.training.loggers import check_loggers
from utils.errors import UserError
from utils.log import LogOptions
from utils.options import Options, group, opt

if TYPE_CHECKING:
    pass

OVERRIDES = {  # hyperparameters that have a flag too
    "optimizer": "optimizer",
    "nominal_batch": "nbs",
    "label_smoothing": "label_smoothing",
    "box_loss": "box_loss",
    "close_mosaic": "close_mosaic",
}


FREE_ON_RESUME = {"resume", "device", "workers", "cache"}  # may differ from the interrupted run's


@dataclass(frozen=True)
class TrainConfig(Options):
    """Train a detector. What is left out comes from the data set's own recipe, where its YAML has one."""

    weights: Path | None = opt(None, "start from this checkpoint's weights, as far as they fit")
    cfg: str | None = opt(
        None, "architecture, such as yolov5s-spd or a model YAML (default: that of --weights, or yolov5n-spd)"
    )
    downsample: str | None = opt(
        None,
        "block that replaces each strided convolution: strided, spd, max, avg, blur, spectral, diffstride",
    )
    data: Path = opt(None, "data-set YAML (default: data/treecrowns.yaml, of classifiers data/mnist5k.yaml)")
    hyp: Path = opt(None, "hyperparameter YAML (default: the data's recipe, or data/hyps/low.yaml)")
    epochs: int = opt(None, "epochs (default: the data's recipe, or 100)", min=1)
    batch_size: int = opt(
        None,
        "images a batch, of all processes together; -1: as many as fit (default: the data's recipe, or 16)",
        "--batch",
        min=-1,
    )
    imgsz: int = opt(
        None, "square input side, px (default: the data's recipe, or 640)", "--img", "--img-size", min=4
    )
    optimizer: Literal["SGD", "Adam", "AdamW"] | None = opt(None, "optimizer (default: the hyp file's)")
    nbs: int | None = opt(
        None, "images an optimizer step, over several batches (default: the hyp file's)", min=1
    )
    freeze: tuple[int, ...] = opt(
        (), "layers that stay as they are: one number is that many from the first, several are these", min=0
    )
    multi_scale: bool = opt(False, "batches of half to one and a half times --imgsz", task="detect")
    rect: bool = opt(
        False, "batches of similar shape with little border, without mosaics and quarter turns", task="detect"
    )
    image_weights: bool = opt(False, "show images of rare and hard classes more often", task="detect")
    close_mosaic: int | None = opt(
        None,
        "last epochs without mosaics, blends and pasted objects (default: the hyp file's)",
        min=0,
        task="detect",
    )
    augment_on: Literal["auto", "cpu", "device"] = opt(
        "auto",
        "make training images in worker processes, on the training device, or where it is faster",
        task="detect",
    )
    single_cls: bool = opt(False, "train one class, 'object', whatever the labels say", task="detect")
    sync_bn: bool = opt(False, "several processes: BatchNorm sees the batches of all of them")
    compile: bool = opt(False, "torch.compile the network: minutes at the start, faster steps")
    cos_lr: bool = opt(False, "let the learning rate fall along a cosine instead of a line")
    patience: int = opt(100, "stop after this many epochs without a better fitness", min=1)
    seed: int = opt(0, "of weights, order and augmentation", min=0)
    amp: bool = opt(True, "mixed precision on CUDA")
    autoanchor: bool = opt(
        True, "fit new anchors where the model's do not suit the boxes", "--auto-anchor", task="detect"
    )
    cache: Literal["ram", "disk"] | None = opt(
        None, "keep decoded images in memory or on disk", const="ram", task="detect"
    )
    workers: int | None = opt(None, "processes that read images (default: by the machine)", min=0)
    device: str = opt("", "cpu, 0, cuda:1, mps (default: the best there is)")
    box_loss: Literal["ciou", "nwd", "ciou+nwd"] | None = opt(
        None, "likeness of boxes; nwd is kinder to tiny ones (default: the hyp file's)", task="detect"
    )
    label_smoothing: float | None = opt(
        None, "class targets e/2 and 1 - e/2 (default: the hyp file's)", min=0, max=1
    )
    mask_ignored: bool = opt(True, "no loss for what is found in crowds and regions to ignore", task="detect")
    noval: bool = opt(False, "evaluate after the last epoch only")
    nosave: bool = opt(False, "write weights after the last epoch only")
    save_period: int = opt(0, "keep the weights of every so many epochs as well, 0: none", min=0)
    logger: tuple[str, ...] = opt(
        (),
        "where numbers go besides results.csv: wandb, mlflow (tensorboard: always, if installed)",
    )
    plots: bool = opt(True, "draw label statistics, training batches and results")
    run: RunOptions = group(RunOptions, project="runs/train")
    log: LogOptions = group(LogOptions)
    resume: str | None = opt(None, "go on with this last.pt, or with the newest run", const="newest")

    def __post_init__(self) -> None:
        """Check every option."""
        super().__post_init__()
        check_loggers(self.logger)
        if self.batch_size == 0:
            raise UserError("--batch-size must be at least 1, or -1 for as many as fit; got 0")
        if self.rect and (self.multi_scale or self.image_weights):
            other = "--multi-scale" if self.multi_scale else "--image-weights"
            raise UserError(f"--rect sorts images by shape, which {other} cannot have; choose one")
        if self.image_weights and self.noval:
            raise UserError("--image-weights follows the AP of each epoch: leave --noval out")
        if self.nosave and self.save_period:
            raise UserError("--nosave writes no weights before the end: leave --save-period out")
