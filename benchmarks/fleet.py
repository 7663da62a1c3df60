"""What does detection on Ray cost, and does the driver's memory stay flat?

    python -m benchmarks.fleet                        # 2,000 images: detect.py, then 1 and 2 actors
    python -m benchmarks.fleet --simulate 10_000 100_000 1_000_000 10_000_000
    python -m benchmarks.fleet --quick

Speed: the same images through detect.py and through its --ray, one thread for each network, random weights.
The time of a run is that between its first and its last image, so that the start of Python and of Ray, which
is printed beside it, does not count as work. The share of Parquet is the time on a core of the thread
that writes it.

Simulation: made-up detections take the place of reading and of the network; everything else is what a run
does: the listing, Ray Data, the actors, putting images together, shards. Its readers take 4,096 rows at a
time instead of 64 files.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.cli import run
from utils.options import Options, opt

if TYPE_CHECKING:
    from engine.inference.config import DetectConfig
    from engine.inference.settings import DetectSettings

BLOCK = 4096  # rows that a simulated reader takes
OBJECTS = 3  # in a simulated image


@dataclass(frozen=True)
class FleetBenchmark(Options):
    """Compare detection on Ray with detect.py, or simulate a large run."""

    images: int = opt(2000, "images", min=4)
    imgsz: int = opt(320, "side of the network's input, px", min=32)
    model: str = opt("yolov5n", "network, with random weights")
    simulate: tuple[int, ...] = opt((), "rows of simulated runs, instead", min=1)
    folder: Path | None = opt(None, "where files go (default: a temporary folder)")
    quick: bool = opt(False, "small sizes: shows that it runs, not how fast")


def main(cfg: FleetBenchmark) -> int:
    """Print the tables."""
    with tempfile.TemporaryDirectory(dir=cfg.folder) as name:
        if cfg.simulate:
            simulate(cfg.simulate, Path(name))
        else:
            compare(cfg, Path(name))
    return 0


def compare(cfg: FleetBenchmark, folder: Path) -> None:
    """Time detect.py and its --ray on the same images."""
    import torch

    from benchmarks.markdown import print_head, print_row
    from engine.inference.config import DetectConfig
    from utils.log import LogOptions, setup_logging

    setup_logging(LogOptions(quiet=True))
    torch.set_num_threads(1)
    count = 24 if cfg.quick else cfg.images
    weights, source = _save_random(cfg.model, folder), _images(folder / "images", count, cfg.imgsz)
    options = {
        "weights": (weights,),
        "source": (str(source),),
        "imgsz": (64 if cfg.quick else cfg.imgsz,),
        "device": "cpu",
        "project": folder / "runs",
        "nosave": True,
    }
    seconds, start = _plain(DetectConfig.of(**options, save_txt=True))
    print_head("", "images/s", "against the row above", "start, s", "Parquet")
    print_row("detect.py", f"{count / seconds:.2f}", "", f"{start:.1f}", "")
    before = seconds
    for actors in (1, 2):
        seconds, start, writing = _fleet(DetectConfig.of(**options, ray="local", actors=actors))
        ratio = f"{seconds / before:.2f}x its time" if actors == 1 else f"{before / seconds:.2f}x as fast"
        name = f"{actors} actor{'s' * (actors > 1)}"
        print_row(name, f"{count / seconds:.2f}", ratio, f"{start:.1f}", writing)
        before = seconds


def _save_random(name: str, folder: Path) -> Path:
    from models import build_model
    from models.checkpoint import save_checkpoint
    from models.load import to_checkpoint

    path = folder / f"{name}.pt"
    save_checkpoint(path, to_checkpoint(build_model(name, num_classes=80)))
    return path


def _images(folder: Path, count: int, side: int) -> Path:
    """Write images that are as costly to decode as photos of twice the input's side."""
    import cv2
    import numpy as np

    folder.mkdir()
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (64, 64, 3), np.uint8)
    image = cv2.resize(small, (2 * side, 2 * side), interpolation=cv2.INTER_CUBIC)
    encoded = cv2.imencode(".jpg", image)[1].tobytes()
    for number in range(count):
        (folder / f"{number:05d}.jpg").write_bytes(encoded)
    return folder


def _plain(cfg: DetectConfig) -> tuple[float, float]:
    """Seconds between the first and the last image, over all but the first, and seconds before."""
    from engine.inference import command, progress

    times: list[float] = []
    add = progress.Progress.add

    def note(self: progress.Progress, result: Any) -> None:
        times.append(time.perf_counter())
        add(self, result)

    start = time.perf_counter()
    progress.Progress.add = note  # type: ignore[method-assign]
    try:
        command.main(cfg)
    finally:
        progress.Progress.add = add  # type: ignore[method-assign]
    return _span(times, [1] * len(times)), times[0] - start


def _fleet(cfg: DetectConfig) -> tuple[float, float, str]:
    """The same of a run on Ray, and the writing thread's time on a core as a share of all."""
    from engine.inference import command
    from engine.inference.fleet import run as fleet_run

    times, sizes, spent = [], [], [0.0]
    write = fleet_run.write_unit

    def note(folder: Path, unit: int, files: Any, *rest: Any) -> None:
        start = time.thread_time()
        write(folder, unit, files, *rest)
        spent[0] += time.thread_time() - start
        times.append(time.perf_counter())
        sizes.append(len(files))

    start = time.perf_counter()
    fleet_run.write_unit = note  # type: ignore[assignment]
    try:
        command.main(cfg)
    finally:
        fleet_run.write_unit = write
    return _span(times, sizes), times[0] - start, f"{spent[0] / (times[-1] - times[0]):.1%}"


def _span(times: list[float], sizes: list[int]) -> float:
    """Seconds for all images at the speed after the first of them."""
    return (times[-1] - times[0]) * sum(sizes) / max(sum(sizes[1:]), 1)


# ------------------------------------------------------------------ simulation


def simulate(sizes: tuple[int, ...], folder: Path) -> None:
    """Run made-up detections of so many images through everything but reading and the network."""
    from benchmarks.markdown import print_head, print_row
    from engine.inference.config import DetectConfig
    from engine.inference.fleet.cluster import joined
    from engine.inference.settings import DetectSettings
    from engine.options import FleetOptions

    print_head("images", "seconds", "images/s", "driver, MiB", "bytes an image", "shards")
    settings = DetectSettings((640, 640), batch_size=BLOCK)
    with joined(FleetOptions(ray="local", actors=1), DetectConfig().hardware.device or "cpu") as fleet:
        for count in sizes:
            place = folder / str(count)
            place.mkdir()
            seconds, memory = _simulated_run(place, count, settings, fleet)
            files = [file for file in place.rglob("*.parquet") if file.name != "listing.parquet"]
            size = sum(file.stat().st_size for file in files) / count
            print_row(
                f"{count:,}",
                f"{seconds:.0f}",
                f"{count / seconds:.0f}",
                f"{memory:.0f}",
                f"{size:.0f}",
                len(files),
            )


def _simulated_run(folder: Path, count: int, settings: DetectSettings, fleet: Any) -> tuple[float, float]:
    """Seconds, and the most memory of this process's own, MiB."""
    from engine.inference.fleet.listing import write_listing
    from engine.inference.fleet.run import LISTING, RunState, finish
    from engine.inference.fleet.shards import Origin
    from engine.inference.fleet.stream import Work

    start = time.perf_counter()
    names = (f"s3://archive/flight-{number // 10_000:04d}/{number:08d}.jpg" for number in range(count))
    write_listing(names, folder / LISTING)
    state = RunState.of(count, Origin(["tree"], "0" * 16, "0" * 16))
    state.save(folder)
    load: Any = _nothing
    work = Work(simulated_tiles, load, settings, fleet, SimulatedNetwork)
    memory, done = _own_memory(), 0
    for number, files in enumerate(finish(folder, state, work, BLOCK)):
        done += len(files)
        if number % 20 == 0:
            memory = max(memory, _own_memory())
    assert done == count
    return time.perf_counter() - start, max(memory, _own_memory())


def _nothing() -> None:
    """Stand in for loading a network."""


def simulated_tiles(batch: Any) -> Iterator[Any]:
    """Yield what a reader does, without pixels."""
    import pyarrow as pa

    from engine.inference.fleet.tiles import tile_schema

    rows = len(batch)
    one = {"frame": 1, "frames": 1, "tile": 0, "tiles": 1, "width": 4000, "height": 3000, "x0": 0, "y0": 0}
    one |= {"x1": 4000, "y1": 3000, "input_height": 480, "input_width": 640}
    columns = {name: pa.repeat(pa.scalar(value, pa.int32()), rows) for name, value in one.items()}
    columns["index"] = batch["index"]
    schema = tile_schema()
    yield pa.table({f.name: columns.get(f.name, pa.nulls(rows, f.type)) for f in schema}, schema)


class SimulatedNetwork:
    """Detects the same objects everywhere."""

    def __init__(self, load: Any, settings: DetectSettings):
        import numpy as np

        box = [100.0, 200.0, 140.0, 230.0, 0.9, 0.0]
        self.boxes = np.array([box] * OBJECTS, np.float32).tobytes()

    def __call__(self, tiles: Any) -> Any:
        """Return a table of detections."""
        import pyarrow as pa

        from engine.inference.fleet.tiles import detected_schema

        kept = tiles.select(detected_schema().names[:-1])
        return kept.append_column("boxes", pa.repeat(pa.scalar(self.boxes, pa.binary()), len(tiles)))


def _own_memory() -> float:
    """MiB that belong to this process alone; what it reads of Ray's shared memory is not its own."""
    if not os.path.exists("/proc/self/status"):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


if __name__ == "__main__":
    run(FleetBenchmark, main)
