"""The options of train.py, as they are given; what a run uses is in `engine.training.settings`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from engine.options import FleetOptions, RunOptions
from engine.training.choices import BoxLoss, OptimizerName
from engine.training.loggers import check_loggers
from utils.errors import UserError
from utils.log import LogOptions
from utils.options import Options, group, opt


@dataclass(frozen=True)
class OptimizationOptions(Options):
    """Optimization."""

    optimizer: OptimizerName | None = opt(None, "optimizer (default: the hyp file's)")
    nbs: int | None = opt(
        None,
        "nominal batch: images per optimizer step, over several batches (default: the hyp file's)",
        min=1,
    )
    cos_lr: bool = opt(False, "let the learning rate fall along a cosine instead of a line")
    label_smoothing: float | None = opt(
        None, "class targets e/2 and 1 - e/2 (default: the hyp file's)", min=0, max=1
    )
    box_loss: BoxLoss | None = opt(
        None,
        "similarity in the box loss; nwd is kinder to tiny boxes (default: the hyp file's)",
        task="detect",
    )
    mask_ignored: bool = opt(
        True,
        "leave detections in crowds and regions to ignore out of the loss",
        task="detect",
        off_help="train on crowds and regions to ignore as on any background",
    )
    autoanchor: bool = opt(
        True,
        "fit new anchors where the model's do not suit the boxes",
        "--auto-anchor",
        task="detect",
        off=("--noautoanchor",),
    )
    freeze: tuple[int, ...] = opt(
        (),
        "layers to freeze: one number is that many from the first, several are these",
        min=0,
        task="detect",
    )
    patience: int = opt(100, "stop after this many epochs without a better fitness", min=1)
    amp: bool = opt(True, "use mixed precision on CUDA")
    sync_bn: bool = opt(False, "several processes: BatchNorm over the batches of all of them")
    compile: bool = opt(False, "torch.compile the network: minutes at the start, faster steps")


@dataclass(frozen=True)
class ImageOptions(Options):
    """Images."""

    cache: Literal["ram", "disk"] | None = opt(
        None, "keep decoded images in memory or on disk", const="ram", task="detect"
    )
    workers: int | None = opt(None, "processes that read images (default: by the machine)", min=0)
    augment_on: Literal["auto", "cpu", "device"] = opt(
        "auto",
        "make training images in worker processes, on the training device, or where it is faster",
        task="detect",
    )
    multi_scale: bool = opt(False, "batches of half to one and a half times --imgsz", task="detect")
    rect: bool = opt(
        False,
        "batches of similar shape with little border, without mosaics and quarter turns",
        task="detect",
    )
    image_weights: bool = opt(False, "show images of rare and hard classes more often", task="detect")
    close_mosaic: int | None = opt(
        None,
        "last epochs without mosaics, blends and pasted objects (default: the hyp file's)",
        min=0,
        task="detect",
    )
    single_cls: bool = opt(False, "train one class, 'object', whatever the labels say", task="detect")

    def __post_init__(self) -> None:
        """Check that the options fit together."""
        super().__post_init__()
        if self.rect and (self.multi_scale or self.image_weights):
            other = "--multi-scale" if self.multi_scale else "--image-weights"
            raise UserError(f"--rect sorts images by shape, which {other} cannot have; choose one")


@dataclass(frozen=True)
class SavingOptions(Options):
    """Evaluation and saving."""

    noval: bool = opt(False, "evaluate after the last epoch only")
    nosave: bool = opt(False, "write weights after the last epoch only")
    save_period: int = opt(0, "keep the weights of every so many epochs as well, 0: none", min=0)
    plots: bool = opt(True, "draw label statistics, training batches and results", off=("--noplots",))
    logger: tuple[str, ...] = opt(
        (), "where numbers go besides results.csv: wandb, mlflow (tensorboard: always, if installed)"
    )

    def __post_init__(self) -> None:
        """Check that the options fit together."""
        super().__post_init__()
        check_loggers(self.logger)
        if self.nosave and self.save_period:
            raise UserError("--nosave writes no weights before the end: leave --save-period out")


@dataclass(frozen=True)
class TuneOptions(Options):
    """Search for hyperparameters."""

    tune: int | None = opt(
        None,
        "search hyperparameters until the study in the run folder has this many trials; others may join it",
        min=1,
    )
    tune_metric: str = opt("fitness", "what is maximized: AP_S, AP, fitness or another metric of results.csv")
    tune_space: Path | None = opt(
        None, "YAML of what is searched, and in which range (default: by the network, in data/hyps/search)"
    )


@dataclass(frozen=True)
class TrainConfig(Options):
    """Train a detector or a classifier. What is left out comes from the data set's recipe, if it has one."""

    left_out: ClassVar[Mapping[str, str]] = {
        "--evolve": "--tune N searches hyperparameters",
        "--evolve-population": "--tune N searches hyperparameters",
        "--resume-evolve": "the same --tune command continues a study",
        "--bucket": "copy the run folder with the tools of your cloud",
        "--quad": "--batch-size and --imgsz choose what a batch holds",
        "--local-rank": "start processes with torchrun, which sets it",
        "--entity": "set WANDB_ENTITY, and --logger wandb",
        "--upload-dataset": "--logger wandb logs numbers, not data",
        "--bbox-interval": "--logger wandb logs numbers, not images",
        "--artifact-alias": "--logger wandb logs numbers, not files",
        "--ndjson-console": "results.csv has every epoch as it ends",
        "--ndjson-file": "results.csv has every epoch as it ends",
    }

    weights: Path | None = opt(None, "start from this checkpoint's weights, as far as they fit")
    cfg: str | None = opt(
        None,
        "name or YAML of the architecture (default: of --weights, of the data's recipe, or yolov5n-spd)",
    )
    downsample: str | None = opt(
        None,
        "block for each strided 3x3 convolution: strided, spd, max, avg, blur, spectral or diffstride",
    )
    data: Path | None = opt(
        None, "data-set YAML (default: data/treecrowns.yaml, of classifiers data/mnist5k.yaml)"
    )
    hyp: Path | None = opt(None, "hyperparameter YAML (default: the data's recipe, or data/hyps/low.yaml)")
    epochs: int | None = opt(None, "epochs (default: the data's recipe, or 100)", min=1)
    batch_size: int | None = opt(
        None,
        "images per batch, of all processes together; -1: as many as fit (default: the data's recipe, or 16)",
        "--batch",
        min=-1,
    )
    imgsz: int | None = opt(
        None, "square input side, px (default: the data's recipe, or 640)", "--img", "--img-size", min=4
    )
    device: str = opt("", "cpu, 0, cuda:1, mps (default: the best there is)")
    seed: int = opt(0, "of weights, order and augmentation", min=0)
    resume: str | None = opt(None, "continue this last.pt, or the newest interrupted run", const="newest")
    optimization: OptimizationOptions = group(OptimizationOptions)
    image: ImageOptions = group(ImageOptions)
    saving: SavingOptions = group(SavingOptions)
    tuning: TuneOptions = group(TuneOptions)
    fleet: FleetOptions = group(FleetOptions)
    run: RunOptions = group(RunOptions, project="runs/train")
    log: LogOptions = group(LogOptions)

    def __post_init__(self) -> None:
        """Check that the options fit together."""
        super().__post_init__()
        if self.batch_size == 0:
            raise UserError("--batch-size must be at least 1, or -1 for as many as fit; got 0")
        if self.image.image_weights and self.saving.noval:
            raise UserError("--image-weights follows the AP of each epoch: leave --noval out")
        if self.fleet.ray is not None and self.tuning.tune is None:
            raise UserError("--ray shares out the trials of --tune; several GPUs train together by torchrun")
        if self.tuning.tune is not None and self.resume:
            raise UserError("--tune continues its study by itself: leave --resume out")
