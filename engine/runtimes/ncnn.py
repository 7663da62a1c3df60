"""NCNN: a folder of its two files, converted by pnnx from the traced network, and running it on the CPU.

Input `in0` (3, H, W); output `out0`: (N, 5 + classes), decoded, of a detector, or logits (classes) of a
classifier. NCNN has no batches: images are run one by one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from engine.runtimes.exported_file import ByThreads, FilePredictor, check_file, read_metadata
from engine.runtimes.metadata import Metadata
from engine.runtimes.ncnn_checks import check_files
from engine.runtimes.tracing import silenced, strided, trace
from models.classification.model import ClassificationModel
from models.detection_model import DetectionModel
from utils.errors import UserError
from utils.files import read_yaml

PARAM, WEIGHTS, METADATA = "model.ncnn.param", "model.ncnn.bin", "metadata.yaml"


def load(
    file: Path, device: torch.device, fuse: bool, half: bool, names: Sequence[str] | None = None
) -> FilePredictor:
    """Open NCNN's .param, beside which the weights lie as .bin; it runs on the CPU, in float32.

    Raises:
        UserError: no such file, not NCNN's, not a YOLOv5 graph, no class names, or another device.
    """
    check_file(file, half)
    if device.type != "cpu":
        raise UserError(f"{file}: NCNN runs on the CPU here; add --device cpu")
    check_files(file)
    try:
        import ncnn
    except ImportError as error:
        raise UserError(f"{file}: running NCNN files needs ncnn: pip install ncnn") from error
    metadata = read_metadata(_strings(file), names, None, file)
    if metadata.imgsz is None:
        raise UserError(f"{file.with_name(METADATA)}: imgsz is missing, the size that the graph takes")
    nets = ByThreads(partial(_open, ncnn, file))
    nets.get()  # or say why not

    def run(images: Tensor) -> Tensor:
        extractor = nets.get().create_extractor()  # one for each image, so threads do not meet
        extractor.input("in0", ncnn.Mat(images[0].cpu().numpy()).clone())
        code, output = extractor.extract("out0")
        if code:
            raise UserError(f"{file}: NCNN cannot run it (error {code})")
        return torch.from_numpy(output.numpy().copy())[None]

    return FilePredictor(file, run, metadata, device, 1, metadata.imgsz)


def _open(ncnn: Any, file: Path, threads: int) -> Any:
    net = ncnn.Net()
    for option in dir(net.opt):  # in 16 bits it does not give what PyTorch gives
        if option.startswith(("use_fp16", "use_bf16", "use_vulkan")):
            setattr(net.opt, option, False)
    net.opt.num_threads = threads
    with silenced():
        failed = net.load_param(str(file)) or net.load_model(str(file.with_suffix(".bin")))
    if failed:
        raise UserError(f"{file}: NCNN cannot open it or the .bin beside it")
    return net


def _strings(file: Path) -> dict[str, str]:
    """Read what `export_ncnn`, or Ultralytics' export, writes beside the graph."""
    beside = file.with_name(METADATA)
    if not beside.is_file():
        return {}
    content = read_yaml(beside)
    if not isinstance(content, dict):
        raise UserError(f"{beside}: must hold stride and names")
    return {str(key): json.dumps(value, default=str) for key, value in content.items()}


def export_ncnn(model: DetectionModel | ClassificationModel, folder: Path, metadata: Metadata) -> Path:
    """Write `folder`/model.ncnn.param, model.ncnn.bin and metadata.yaml and return the folder.

    Args:
        model: best fused.
        folder: is made.
        metadata: goes beside the graph; precision "fp16" halves the weights, which still compute in float32.

    Raises:
        UserError: a package is missing, or pnnx cannot convert the network.
    """
    try:
        import pnnx
    except ImportError as error:
        raise UserError("NCNN export needs the packages ncnn and pnnx: pip install ncnn pnnx") from error
    assert metadata.imgsz is not None, "an export has a size"
    work = folder.with_name("pnnx")  # it writes six files more than are wanted
    work.mkdir()
    trace(strided(model), metadata.imgsz, 1, sizes_first=True).save(str(work / "model.pt"))
    height, width = metadata.imgsz
    arguments = [f"inputshape=[1,3,{height},{width}]f32", f"fp16={int(metadata.precision == 'fp16')}"]
    program = Path(pnnx.__file__).with_name("pnnx")
    done = subprocess.run(
        [str(program), "model.pt", *arguments],
        cwd=work,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode or not (work / PARAM).is_file() or not (work / WEIGHTS).is_file():
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise UserError(f"pnnx cannot convert this network ({lines[-1] if lines else 'no reason given'})")
    folder.mkdir(exist_ok=True)
    for name in (PARAM, WEIGHTS):
        shutil.move(work / name, folder / name)
    shutil.rmtree(work)
    content = {key: json.loads(value) for key, value in metadata.to_strings().items()}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (folder / METADATA).write_text(text, encoding="utf-8")
    return folder
