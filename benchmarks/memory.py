"""Does memory stay flat over a long video? It is read in a loop, detected on, drawn and written.

python -m benchmarks.memory --weights best.pt --video street.avi --frames 10000
"""

from __future__ import annotations

import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from pathlib import Path

from utils.cli import run
from utils.options import Options, opt


@dataclass(frozen=True)
class MemoryBenchmark(Options):
    """Print this process's memory at ten points of a long video."""

    video: Path = opt("street.avi", "video that is looped")
    weights: Path | None = opt(None, "network (default: newest best.pt, or what ships)")
    frames: int = opt(10_000, "frames to detect on", min=10)
    imgsz: int | None = opt(None, "input side, px (default: as trained)", "--img", min=32)


def main(cfg: MemoryBenchmark) -> int:
    """Print the table; the video that is written goes with its folder."""
    import psutil

    from benchmarks.markdown import print_head, print_row
    from data.media.sources import open_source
    from engine.inference.outputs.media import Media
    from engine.inference.outputs.result import DetectedFrame
    from engine.inference.pipeline import detect_images
    from engine.inference.settings import DetectSettings
    from engine.inference.sizes import input_size
    from engine.runtimes import load_predictor
    from utils.run_folders import default_weights

    open_source(cfg.video)  # a missing file is said before the weights are read
    predictor = load_predictor(cfg.weights or default_weights())
    settings = DetectSettings(input_size((cfg.imgsz,) if cfg.imgsz else None, predictor))
    looped = chain.from_iterable(open_source(cfg.video) for _ in count())
    frames = (replace(frame, number=i) for i, frame in enumerate(islice(looped, cfg.frames), 1))
    print_head("frames", "memory, MB", "frames/s so far")
    process, start = psutil.Process(), time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Media(Path(folder))) as media,
        closing(detect_images(predictor, frames, settings)) as results,
    ):
        for number, one in enumerate(results, 1):
            about = (one.item, "looped", predictor.names)
            media.add(DetectedFrame(*about, one.detections, one.shape, one.tiles, one.stages))
            if number % (cfg.frames // 10) == 0:
                memory, rate = process.memory_info().rss / 1e6, number / (time.perf_counter() - start)
                print_row(number, f"{memory:.0f}", f"{rate:.1f}")
    return 0


if __name__ == "__main__":
    run(MemoryBenchmark, main)
