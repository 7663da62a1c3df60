"""What only a GPU can answer: forms of the training step, TensorRT's SPD, suppression. See benchmarks/gpu.sh.

    python -m benchmarks.gpu --part steps --batches 64 128 256
    python -m benchmarks.gpu --part tensorrt
    python -m benchmarks.gpu --part nms
    python -m benchmarks.gpu --part steps --device cpu --quick       # shows that it runs

steps: a training step, loss and optimizer included, of one batch again and again: plain contiguous float32;
what train.py does, with mixed precision; with `--compile`; and compiled with CUDA graphs ("reduce-overhead").
tensorrt: SPD as released, rewritten for inference, and the strided network, each as an engine in 16 bits.
nms: suppression at the settings of an evaluation, for images that come with every box above the threshold.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from utils.cli import run
from utils.errors import UserError
from utils.options import Options, opt

if TYPE_CHECKING:
    import torch

FORMS = ("plain", "train.py", "compiled", "CUDA graphs")
ENGINES = ("released", "released fused", "paper fused", "baseline fused")
NONE = "-"  # a cell where memory ran out, or the device cannot


@dataclass(frozen=True)
class GpuBenchmark(Options):
    """Measure one part."""

    part: Literal["steps", "tensorrt", "nms"] = opt("steps", "what to measure")
    device: str = opt("0", "number of the GPU, or cpu to see that it runs")
    cfg: tuple[str, ...] = opt(("yolov5n", "yolov5n-spd", "yolov5n-spd-p234-u"), "networks of the steps")
    batches: tuple[int, ...] = opt((64, 128, 256), "images a batch", min=1)
    imgsz: int = opt(640, "input side, px", "--img", min=32)
    rounds: int = opt(10, "steps that are timed, in turns", min=1)
    quick: bool = opt(False, "small sizes and few forms: shows that it runs")


def main(cfg: GpuBenchmark) -> int:
    """Print the table of a part."""
    import torch

    from utils.device import select_device

    if cfg.quick:
        cfg = cfg.replace(batches=(2,), imgsz=64, rounds=1, cfg=cfg.cfg[:1])
    device = select_device(cfg.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}\n")
    {"steps": compare_steps, "tensorrt": compare_engines, "nms": time_suppression}[cfg.part](cfg, device)
    return 0


def compare_steps(cfg: GpuBenchmark, device: torch.device) -> None:
    """Images a second of each form, and the memory of what train.py does."""
    from benchmarks.markdown import print_head, print_row
    from benchmarks.race import race
    from benchmarks.train import cut_images
    from benchmarks.train_epoch import Epoch

    forms = FORMS[:2] if cfg.quick else FORMS
    print_head("network", "batch", *(f"{form}, images/s" for form in forms), "GiB")
    with tempfile.TemporaryDirectory() as folder:
        cut_images(Path(folder), max(cfg.batches))
        for name in cfg.cfg:
            for batch in cfg.batches:
                case = Epoch(name, True, folder, cfg.imgsz, batch, 0, 1, 1, cfg.device)
                cells, memory = [], NONE
                for form in forms:  # one after the other: together they would not fit
                    with _memory_may_run_out():
                        seconds = race({form: _step(case, form)}, cfg.rounds, device.type)[form]
                        cells.append(f"{batch / seconds:.0f}")
                        if form == "train.py":
                            memory = _peak_gib(device)
                    cells += [NONE] * (forms.index(form) + 1 - len(cells))
                    _forget(device)
                print_row(name, batch, *cells, memory)


def _step(case: Any, form: str) -> Callable[[], object]:
    """Return a training step."""
    from benchmarks.train_epoch import one_batch, plain_step

    with contextlib.redirect_stdout(io.StringIO()):
        if form == "plain":
            return plain_step(case)
        state, images, ground_truth, loss_fn = one_batch(case)
    if form == "compiled":
        state.network.compile()
    if form == "CUDA graphs":
        state.network.compile(mode="reduce-overhead")
    return lambda: state.step(images, ground_truth, loss_fn, 10**6)


@contextlib.contextmanager
def _memory_may_run_out() -> Any:
    """Leave the cell empty then; anything else is an error."""
    import torch

    with contextlib.suppress(torch.OutOfMemoryError):
        yield


def _peak_gib(device: torch.device) -> str:
    import torch

    return f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f}" if device.type == "cuda" else NONE


def _forget(device: torch.device) -> None:
    """Free what the last form held, so that the next one's memory is its own."""
    import gc

    import torch

    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def compare_engines(cfg: GpuBenchmark, device: torch.device) -> None:
    """Milliseconds of a batch in TensorRT, as multiples of the released form's."""
    import torch

    from benchmarks.markdown import print_head, print_row
    from benchmarks.race import race
    from benchmarks.spd_forms import network
    from engine.runtimes import load_predictor
    from engine.runtimes.metadata import Metadata
    from engine.runtimes.tensorrt import export_tensorrt, import_tensorrt

    if device.type != "cuda":
        raise UserError("engines run on an Nvidia GPU only; leave out --device cpu")
    import_tensorrt("--part tensorrt")
    print_head("yolov5n, 16 bits", *ENGINES)
    names = [f"class{number}" for number in range(80)]
    for batch in (1, 32):
        images = torch.rand(batch, 3, cfg.imgsz, cfg.imgsz)
        runs: dict[str, Callable[[], object]] = {}
        with tempfile.TemporaryDirectory() as folder:
            for form in ENGINES:
                graph = Path(folder) / "model.onnx"
                torch.onnx.export(
                    network(form, "n"), (images,), graph, dynamo=True, input_names=["images"], verbose=False
                )
                about = Metadata(names, 32, imgsz=(cfg.imgsz, cfg.imgsz), batch=batch, precision="fp16")
                file = export_tensorrt(graph, Path(folder) / f"{form.replace(' ', '_')}.engine", about)
                predictor, on_device = load_predictor(file, device), images.to(device)
                runs[form] = partial(predictor, on_device)
            seconds = race(runs, 5 * cfg.rounds, device.type)
        base = seconds[ENGINES[0]]
        ratios = [f"{seconds[form] / base:.2f}x" for form in ENGINES[1:]]
        print_row(f"batch {batch}", f"{1000 * base:.2f} ms", *ratios)


def time_suppression(cfg: GpuBenchmark, device: torch.device) -> None:
    """Milliseconds of NMS beside those of the CPU."""
    from benchmarks.markdown import print_head, print_row
    from benchmarks.nms import CONF, IOU, MAX_DET, made_up_output
    from benchmarks.race import race
    from utils.nms import non_max_suppression

    boxes, classes = (3000, 10) if cfg.quick else (25_200, 80)
    print_head(f"{boxes:,} boxes, {classes} classes, images", "CPU, ms", f"{device}, ms")
    for batch in (1,) if cfg.quick else (1, 8, 32):
        output = made_up_output(boxes, classes).repeat(batch, 1, 1)
        on_device = output.to(device)

        suppress = partial(
            non_max_suppression, conf_thres=CONF, iou_thres=IOU, multi_label=True, max_det=MAX_DET
        )
        cpu = race({"cpu": partial(suppress, output)}, cfg.rounds)["cpu"]
        here = race({"here": partial(suppress, on_device)}, cfg.rounds, device.type)["here"]
        print_row(batch, f"{1000 * cpu:.1f}", f"{1000 * here:.1f}")


if __name__ == "__main__":
    run(GpuBenchmark, main)
