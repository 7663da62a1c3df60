"""How much memory a form of SPD-Conv needs at its peak, in a process of its own."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Load:
    """What a process is to run: a network of benchmarks/spd_forms.py, `train`ed or not, on a batch."""

    name: str
    train: bool
    scale: str
    batch: int
    imgsz: int
    device: str


def peak_megabytes(load: Load) -> float:
    """Return how far the peak lies above what the process held before the first run, in MB (10^6 bytes).

    On a CPU that is resident memory, which Linux counts; on a GPU, what torch allocated there.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measure, load).result()


def _measure(load: Load) -> float:
    import torch

    from benchmarks.spd_forms import inference, network, training, training_network
    from utils.device import select_device

    torch.set_num_threads(1)
    device, layout = select_device(load.device), torch.channels_last
    x = torch.rand(load.batch, 3, load.imgsz, load.imgsz, device=device)
    if load.train:
        model = training_network(load.name, load.scale, device, layout)
        run = training(model, x, layout, half=False)
    else:
        run = inference(network(load.name, load.scale), x, layout)
    if device.type != "cpu":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what there is now
    before = resident()
    run()
    return (resident() - before) / 1e6


def resident() -> int:
    """Return the highest number of bytes that this process held since its peak was reset, as Linux counts."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
