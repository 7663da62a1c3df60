"""Milliseconds an image of a network alone, without NMS, in PyTorch and in ONNX Runtime, on the CPU.

Taken at the end of a run beside whatever else the machine does; the row notes the load of that minute.
`--latency` retakes them for all networks of a CSV in turns, which is what to compare them by.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.race import race

ROUNDS = 15


@dataclass(frozen=True)
class Timed:
    """A trained network to be timed.

    Attributes:
        weights: its checkpoint.
        onnx: where it is, or will be written, as ONNX; networks that differ in nothing but weights may share
            it. None: not timed in ONNX Runtime.
        imgsz: side of the input, px.
        peer: whether it is one of Ultralytics'.
        threads: of the CPU.
    """

    weights: Path
    onnx: Path | None
    imgsz: int
    peer: bool
    threads: int

    def runners(self) -> dict[str, Callable[[], object]]:
        """Return functions that run the network once on an image, by column of the CSV."""
        import torch

        torch.set_num_threads(self.threads)
        images = torch.rand(1, 3, self.imgsz, self.imgsz)
        predict = self._predictor()
        functions: dict[str, Callable[[], object]] = {"ms_pytorch": lambda: predict(images)}
        if self.onnx is not None:
            session = _session(self._exported(self.onnx), self.threads)
            feed = {session.get_inputs()[0].name: images.numpy()}
            functions["ms_onnx"] = lambda: session.run(None, feed)
        return functions

    def _predictor(self) -> Any:
        if self.peer:
            from benchmarks.reproduce.peers import Peer

            return Peer(self.weights, self.threads)
        from engine.runtimes import load_predictor

        return load_predictor(self.weights, task=None)

    def _exported(self, file: Path) -> Path:
        """Return the network as ONNX, written the first time, which takes half a minute."""
        from filelock import FileLock

        with FileLock(file.with_name(f".{file.name}.lock")):
            if not file.exists():
                os.replace(self._export(), file)
        return file

    def _export(self) -> Path:
        if self.peer:
            from benchmarks.reproduce.peers import export_onnx

            return export_onnx(self.weights, self.imgsz, self.threads)
        from engine.export import export

        return export(self.weights, include=("onnx",), imgsz=(self.imgsz,))[0]


def _session(file: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def measure(contestants: Mapping[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Return milliseconds of each."""
    return {name: 1000 * seconds for name, seconds in race(contestants, rounds).items()}


def load() -> float | None:
    """Return the mean number of busy processes in the last minute; None where unknown."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
