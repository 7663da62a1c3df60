"""Which way of downsampling classifies best? Trains each on equal terms and writes a table and a plot.

    python -m benchmarks.downsampling --data data/mnist5k-14.yaml --seeds 3 --epochs 20
    python -m benchmarks.downsampling --data data/cifar10.yaml --cfg resnet18 --downsample strided,spd,hybrid

One network, one recipe, one budget and the same seeds for all: only the operator of the stages that shrink
differs, on the same grid (ceil(H/2)). Nothing is chosen on the test images: the weights after the last
epoch count. `hybrid` is DiffStride in every such stage but the last, and spectral pooling there.

Every training runs in a process with one thread of the CPU or one GPU. Finished trainings are kept: the same
command goes on where it stopped, and --seeds may grow. benchmarks/study_table.py explains the numbers.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.cli import run
from utils.errors import UserError, suggest
from utils.options import Options, opt

DEFAULT = "strided,max,spd,spectral,diffstride,hybrid"
FREE = {"seeds", "downsample", "jobs", "device", "folder"}  # may change when a study goes on


@dataclass(frozen=True)
class StudyConfig(Options):
    """Compare ways of downsampling on a classification data set."""

    data: Path = opt("data/mnist5k-14.yaml", "data-set YAML for classification, or a folder")
    cfg: str = opt("resnet18-quarter", "ResNet whose shrinking stages are studied, such as resnet18")
    downsample: tuple[str, ...] = opt((DEFAULT,), "operators; the first is what others are compared with")
    seeds: int = opt(3, "trainings of each, with seeds 0, 1, ...", min=1)
    epochs: int | None = opt(None, "epochs of each training (default: the data's recipe)", min=1)
    batch_size: int | None = opt(None, "images a batch (default: the data's recipe)", "--batch", min=1)
    hyp: Path | None = opt(None, "hyperparameter YAML (default: the data's recipe)")
    jobs: int | None = opt(None, "trainings at a time (default: one a CPU core or GPU)", min=1)
    device: str = opt("", "cpu, or cuda for all GPUs (default: the best there is)")
    folder: Path = opt("runs/downsampling", "where everything is written, and read when a study goes on")

    def __post_init__(self) -> None:
        """Check every option."""
        super().__post_init__()
        if self.device not in ("", "cpu", "cuda"):
            raise UserError(f"--device takes cpu or cuda, got {self.device}")

    @property
    def operators(self) -> list[str]:
        """The operators asked for, each once."""
        names = [name.strip() for part in self.downsample for name in part.split(",") if name.strip()]
        return list(dict.fromkeys(names))


@dataclass(frozen=True)
class Training:
    """One training of a study."""

    operator: str
    seed: int
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether it was trained to the end and tested."""
        return (self.folder / "predictions.csv").exists()


def architecture_of(cfg: str, operator: str) -> dict[str, Any]:
    """Return the network of that name with all its shrinking stages shrunk by one operator, on the grid.

    Raises:
        UserError: no classifier, nothing that shrinks, or no such operator.
    """
    from models.architecture import is_classifier, read_architecture
    from models.classification.reductions import reduction_names

    architecture = read_architecture(cfg)
    if not is_classifier(architecture):
        raise UserError(f"{cfg} is a detector; the study takes a ResNet, such as resnet18")
    choices = [*(name for name in reduction_names() if name != "none"), "hybrid"]
    if operator not in choices:
        raise UserError(f"unknown operator '{operator}'. {suggest(operator, choices)}")
    places = [i for i, name in enumerate(architecture["downsample"]) if name != "none"]
    if not places:
        raise UserError(f"no stage of {cfg} shrinks")
    names, strides = list(architecture["downsample"]), list(architecture["strides"])
    for i in places:
        last = i == places[-1]
        names[i] = operator if operator != "hybrid" else "spectral" if last else "diffstride"
        strides[i] = 2
    return read_architecture({**architecture, "downsample": names, "strides": strides, "fixed_grid": True})


def main(cfg: StudyConfig) -> int:
    """Train what is not trained yet, then write the table and the plot."""
    import yaml

    from benchmarks.study_table import write_study

    architectures = {operator: architecture_of(cfg.cfg, operator) for operator in cfg.operators}
    remember(cfg)
    for operator, architecture in architectures.items():
        text = yaml.safe_dump(architecture, sort_keys=False)
        (cfg.folder / f"{operator}.yaml").write_text(text, encoding="utf-8")
    trainings = [
        Training(operator, seed, cfg.folder / f"{operator}-seed{seed}")
        for seed in range(cfg.seeds)
        for operator in cfg.operators
    ]
    train_all(cfg, [training for training in trainings if not training.finished], len(trainings))
    folders = {op: [t.folder for t in trainings if t.operator == op] for op in cfg.operators}
    print(write_study(cfg.folder, folders))
    print(f"\ntable.md, table.csv and plot.png are in {cfg.folder}")
    return 0


def remember(cfg: StudyConfig) -> None:
    """Note what all trainings of the folder have in common.

    Raises:
        UserError: the folder holds a study on other terms.
    """
    import yaml

    terms = {key: value for key, value in cfg.plain().items() if key not in FREE}
    file = cfg.folder / "study.yaml"
    if file.exists():
        before = yaml.safe_load(file.read_text(encoding="utf-8"))
        for key, value in terms.items():
            if before.get(key) != value:
                raise UserError(
                    f"{cfg.folder} holds a study with {key} {before.get(key)}, not {value}: its trainings "
                    "cannot be compared with new ones; choose another --folder"
                )
        return
    cfg.folder.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(terms, sort_keys=False), encoding="utf-8")


def train_all(cfg: StudyConfig, missing: list[Training], total: int) -> None:
    """Train in processes of their own; print a line for each that is done."""
    import torch

    gpus = 0 if cfg.device == "cpu" else torch.cuda.device_count()
    if cfg.device == "cuda" and not gpus:
        raise UserError("--device cuda: there is no GPU here")
    jobs = min(cfg.jobs or gpus or os.cpu_count() or 1, max(len(missing), 1))
    print(f"{total} trainings, {total - len(missing)} done before; {jobs} at a time", flush=True)
    if not missing:
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    started = (context.Value("i", 0), gpus)
    start, done = time.perf_counter(), total - len(missing)
    with ProcessPoolExecutor(jobs, context, _prepare_worker, started) as pool:
        futures = {pool.submit(train_one, cfg, training): training for training in missing}
        try:
            for number, future in enumerate(as_completed(futures), 1):
                training, top1 = futures[future], future.result()
                spent = time.perf_counter() - start
                left = spent / number * (len(missing) - number) / 60
                what = f"[{done + number}/{total}] {training.operator}, seed {training.seed}"
                print(f"{what}: top-1 {top1:.4f}; {left:.0f} minutes left", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_device = "cpu"  # of this worker


def _prepare_worker(count: Any, gpus: int) -> None:
    """Take the next GPU, or one thread of the CPU."""
    global _device
    import torch

    torch.set_num_threads(1)
    with count.get_lock():
        _device = str(count.value % gpus) if gpus else "cpu"
        count.value += 1


def train_one(cfg: StudyConfig, training: Training) -> float:
    """Train as train.py does, without looking at the test images before the end; return top-1 there."""
    import json

    from engine.training import command as train

    options = train.TrainConfig.of(
        cfg=str(cfg.folder / f"{training.operator}.yaml"),
        data=cfg.data,
        hyp=cfg.hyp,
        epochs=cfg.epochs,
        batch_size=cfg.batch_size,
        seed=training.seed,
        device=_device,
        noval=True,  # the last epoch's weights count
        plots=False,
        project=cfg.folder,
        name=training.folder.name,
        exist_ok=True,
    )
    log = cfg.folder / f"{training.folder.name}.log"
    with (
        log.open("w", encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        code = train.main(options)
    if code:
        raise RuntimeError(f"the training of {training.folder.name} ended with code {code}; see {log}")
    return json.loads((training.folder / "metrics.json").read_text(encoding="utf-8"))["top1"]


if __name__ == "__main__":
    run(StudyConfig, main)
