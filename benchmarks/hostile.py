"""The worst time and memory of hostile files: each is read by a process of its own.

    python -m benchmarks.hostile                       # prints a table, and fails above 5 s or 500 MB
    python -m benchmarks.hostile --only checkpoint

The files are those of `tests/fuzz/corpus` and bombs made here, which ask for gigabytes in a few bytes.
Processes are forked from one that has imported the readers and read good files; time (of the processor) and
memory are what the bad one adds. It must end in no traceback, and start no program.
"""

from __future__ import annotations

import gzip
import importlib
import io
import json
import logging
import os
import pickle
import resource
import struct
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from utils.cli import run
from utils.errors import UserError
from utils.options import Options, opt

TESTS: Any = SimpleNamespace()  # what tests/fuzz/targets.py and tests/fuzz/seeds.py hold, once it is needed
LOG = logging.getLogger(__name__)
SECONDS, MEGABYTES = 5.0, 500.0
GIVEN_UP = 60  # seconds of the processor, after which the system ends it


@dataclass(frozen=True)
class HostileConfig(Options):
    """Read hostile files, each in a process of its own, and print what that takes."""

    only: tuple[str, ...] = opt((), "readers (default: all)")
    csv: Path | None = opt(None, "where a row for each file is written as well")


@dataclass(frozen=True)
class Taken:
    """What a file took."""

    reader: str
    file: str
    size: int
    seconds: float
    megabytes: float
    outcome: str


def main(cfg: HostileConfig) -> int:
    """Print the worst file of each reader; return 1 where one is above a limit or not refused well."""
    from benchmarks.markdown import print_head, print_row

    for module in ("tests.fuzz.seeds", "tests.fuzz.targets"):
        vars(TESTS).update(vars(importlib.import_module(module)))
    taken: list[Taken] = []
    csv = cfg.csv and cfg.csv.resolve()
    prepare(cfg.only or list(TESTS.TARGETS))
    for reader, name, make in hostile_files():
        if not cfg.only or reader in cfg.only:
            taken.append(measured(reader, name, make()))
            LOG.info("%s", taken[-1])
    print_head("reader", "files", "slowest", "s", "largest", "MB", "outcomes")
    for reader in dict.fromkeys(one.reader for one in taken):
        own = [one for one in taken if one.reader == reader]
        slowest, largest = max(own, key=lambda x: x.seconds), max(own, key=lambda x: x.megabytes)
        outcomes = {
            outcome: [one.outcome for one in own].count(outcome)
            for outcome in sorted({x.outcome for x in own})
        }
        told = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
        print_row(
            reader,
            len(own),
            slowest.file,
            f"{slowest.seconds:.2f}",
            largest.file,
            f"{largest.megabytes:.0f}",
            told,
        )
    worst = max(one.seconds for one in taken), max(one.megabytes for one in taken)
    print(f"\n{len(taken)} files; worst time {worst[0]:.2f} s, worst memory {worst[1]:.0f} MB")
    bad = [
        one
        for one in taken
        if one.outcome not in ("read", "refused") or one.seconds > SECONDS or one.megabytes > MEGABYTES
    ]
    for one in bad:
        print(f"not well: {one}")
    if csv:
        rows = [
            f"{x.reader},{x.file},{x.size},{x.seconds:.3f},{x.megabytes:.1f},{x.outcome}\n" for x in taken
        ]
        csv.write_text("reader,file,bytes,seconds,megabytes,outcome\n" + "".join(rows), encoding="utf-8")
    return int(bool(bad))


def prepare(readers: Sequence[str]) -> None:
    """Import what reads files, and read the good ones, so that a bad one pays for itself alone."""
    import cv2
    import torch

    cv2.setNumThreads(0)  # threads do not survive a fork
    torch.set_num_threads(1)
    os.chdir(TESTS.folder())
    for reader in readers:
        for good in sorted((TESTS.CORPUS / reader).glob("good*")):
            TESTS.TARGETS[reader].read(good.read_bytes())


def measured(reader: str, name: str, content: bytes) -> Taken:
    """Let a process of its own read a file."""
    answer, own = os.pipe()
    process = os.fork()
    if not process:
        os.close(answer)
        resource.setrlimit(resource.RLIMIT_CPU, (GIVEN_UP, GIVEN_UP))
        os.write(own, json.dumps(read_one(reader, content)).encode())
        os._exit(0)
    os.close(own)
    with os.fdopen(answer, "rb") as stream:
        said = stream.read()
    _, status = os.waitpid(process, 0)
    if not said:
        return Taken(reader, name, len(content), 0.0, 0.0, f"died of signal {os.WTERMSIG(status)}")
    return Taken(reader, name, len(content), *json.loads(said))


def read_one(reader: str, content: bytes) -> tuple[float, float, str]:
    """Return seconds, megabytes and what came of a file."""
    from data.media.frame import BrokenVideo
    from data.media.image_files import ImageReadError

    started: list[str] = []
    sys.addaudithook(lambda event, _: started.append(event) if event in PROGRAMS else None)
    logging.disable(logging.CRITICAL)
    before, start = highest(), time.process_time()
    outcome = "read"
    try:
        TESTS.TARGETS[reader].read(content)
    except (UserError, ImageReadError, BrokenVideo):
        outcome = "refused"
    except Exception as error:
        outcome = f"traceback: {type(error).__name__}"
    if started:
        outcome = f"started a program: {started[0]}"
    return time.process_time() - start, highest() - before, outcome


PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect")


def highest() -> float:
    """Most memory that this process has had, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def hostile_files() -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    """Yield reader, name and what makes the content of every file."""
    for reader in TESTS.TARGETS:
        for file in sorted((TESTS.CORPUS / reader).iterdir()):
            yield reader, file.name, file.read_bytes
    for (reader, name), make in BOMBS.items():
        yield reader, name, make


def aliases(depth: int = 12) -> bytes:
    """A YAML of a few hundred bytes that stands for 10^depth values."""
    lines = ["a: &a [" + ",".join(["lol"] * 10) + "]"]
    for number in range(depth):
        before, name = chr(97 + number), chr(98 + number)
        lines.append(f"{name}: &{name} [" + ",".join([f"*{before}"] * 10) + "]")
    return "\n".join(lines).encode()


def merges() -> bytes:
    """The same with merged mappings."""
    lines = ["a: &a {x: 1, y: 2}"]
    for number in range(12):
        before, name = chr(97 + number), chr(98 + number)
        lines.append(f"{name}: &{name} {{<<: [" + ",".join([f"*{before}"] * 10) + "]}")
    return "\n".join(lines).encode()


def archive(members: dict[str, bytes], packed: bool = True) -> bytes:
    """A zip archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return stream.getvalue()


def checkpoint_of(data: bytes, packed: bool = False) -> bytes:
    """A checkpoint whose pickle is `data`."""
    return archive({"archive/data.pkl": data, "archive/version": b"3\n"}, packed)


def shared(depth: int = 26) -> bytes:
    """A pickle of lists that hold the one before twice."""
    value: list[Any] = [1]
    for _ in range(depth):
        value = [value, value]
    return pickle.dumps({"format": 1, "model": value, "names": value, "weights": {}}, 2)


def png(width: int, height: int) -> bytes:
    """A PNG of no pixels whose header says a size."""
    import zlib

    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


def packed_png(side: int) -> bytes:
    """A whole PNG of one color, which packs a thousand times."""
    import cv2
    import numpy as np

    return cv2.imencode(".png", np.zeros((side, side, 3), np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 9])[
        1
    ].tobytes()


def gif(frames: int, side: int = 8) -> bytes:
    """An animation of many frames."""
    from PIL import Image

    first = Image.new("P", (side, side))
    stream = io.BytesIO()
    others = [Image.new("P", (side, side), number % 250 + 1) for number in range(frames - 1)]
    first.save(stream, "GIF", save_all=True, append_images=others)
    return stream.getvalue()


def npy_header(shape: str) -> bytes:
    """An .npy file that says it holds a shape, and ends."""
    text = f"{{'descr':'|u1','fortran_order':False,'shape':{shape}}}".encode()
    text += b" " * (64 - (len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def zeros(shape: str) -> bytes:
    """An .npy file of 300 MB of zeros."""
    return npy_header(shape) + bytes(300_000_000)


def idx_bomb() -> bytes:
    """A gzip file of 280 MB of zeros, said to be images."""
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=1, mtime=0) as file:
        file.write(bytes([0, 0, 8, 3]) + struct.pack(">3I", 280, 1000, 1000))
        for _ in range(28):
            file.write(bytes(10**7))
    return stream.getvalue()


def coco_of(**changes: Any) -> bytes:
    """A TESTS.COCO file with some lists replaced."""
    return json.dumps({**TESTS.COCO, **changes}).encode()


def model_of(row: list[Any], **changes: Any) -> bytes:
    """A model YAML with a row among its layers."""
    layers = [[-1, 1, "Conv", [16, 3, 2]], row]
    head = [[[1], 1, "Detect", ["nc", "anchors"]]]
    return json.dumps({"nc": 1, "anchors": [[10, 13]], "backbone": layers, "head": head, **changes}).encode()


MANY = 100_000
RESULTS = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1}]
BOMBS: dict[tuple[str, str], Callable[[], bytes]] = {
    **{
        (reader, name): make
        for reader in ("dataset_yaml", "classification_yaml", "model_yaml", "hyp_yaml", "openvino")
        for name, make in {
            "aliases.yaml": aliases,
            "merges.yaml": merges,
            "aliases-in-names.yaml": lambda: b"train: a\n" + aliases() + b"\nnames: *m\nnc: *m\nlr0: *m\n",
            "deep.yaml": lambda: b"names: " + b"[" * 100_000,
            "large.yaml": lambda: b"a" * 300_000,
            "digits.yaml": lambda: b"lr0: " + b"9" * 100_000,
            "many-keys.yaml": lambda: "\n".join(f"k{n}: {n}" for n in range(20_000)).encode(),
        }.items()
    },
    ("labels", "590,000-rows"): lambda: b"0 .5 .5 .1 .1\n" * 590_000,
    ("labels", "one-line"): lambda: b"0 " + b".5 " * 2_700_000,
    ("labels", "digits"): lambda: b"0 " + b"9" * 8_000_000,
    ("labels", "above-the-limit"): lambda: bytes(20_000_000),
    ("coco", "brackets"): lambda: b"[" * 10_000_000,
    ("coco", "digits"): lambda: coco_of().replace(b'"width": 64', b'"width": ' + b"9" * 1_000_000),
    ("coco", "categories"): lambda: coco_of(categories=[{"id": n, "name": "a"} for n in range(MANY)]),
    ("coco", "bad-boxes"): lambda: coco_of(
        annotations=[{"id": n, "image_id": 1, "category_id": 1, "bbox": "x"} for n in range(MANY)]
    ),
    ("coco", "unknown-categories"): lambda: coco_of(
        annotations=[{"id": n, "image_id": 1, "category_id": 9 + n, "bbox": [1] * 4} for n in range(MANY)]
    ),
    ("coco", "images-of-one-id"): lambda: coco_of(
        images=[{"id": 1, "file_name": "a", "width": 1, "height": 1}] * MANY
    ),
    ("coco", "regions"): lambda: coco_of(
        images=[{"id": 1, "file_name": "a", "width": 9, "height": 9, "ignore_regions": [[0, 0, 1, 1]] * MANY}]
    ),
    ("coco_results", "brackets"): lambda: b"[" * 10_000_000,
    ("coco_results", "cut"): lambda: json.dumps(RESULTS * MANY)[:-1].encode(),
    ("coco_results", "text-ids"): lambda: json.dumps(
        [{"image_id": "x" * 1000, "category_id": n, "bbox": [1, 2, 3, 4], "score": 1} for n in range(20_000)]
    ).encode(),
    ("results_csv", "columns"): lambda: ",".join(f"c{n}" for n in range(MANY)).encode() + b"\n0\n1\n",
    ("results_csv", "rows"): lambda: b"epoch,a\n" + b"0,1\n" * MANY,
    ("results_csv", "one-cell"): lambda: b'epoch,a\n"' + b"x" * 10_000_000,
    ("path_list", "lines"): lambda: b"a.jpg\n" * MANY,
    ("path_list", "long-line"): lambda: b"a" * 5_000_000,
    ("source", "stars"): lambda: b"**/" * 30 + b"*.jpg",
    ("source", "brackets"): lambda: b"[" * 4000 + b"*" * 4000,
    ("image", "header-30000.png"): lambda: png(30_000, 30_000),
    ("image", "header-2e9.png"): lambda: png(2**31 - 1, 2**31 - 1),
    ("image", "8000-of-one-color.png"): lambda: packed_png(8000),
    ("image", "20000-of-one-color.png"): lambda: packed_png(20_000),
    ("video", "many-frames.gif"): lambda: gif(11_000),
    ("video", "header-65535.gif"): lambda: b"GIF89a" + struct.pack("<HH", 65535, 65535) + gif(3)[10:],
    ("idx", "zeros.gz"): idx_bomb,
    ("idx", "sizes"): lambda: bytes([0, 0, 8, 3]) + b"\xff" * 12,
    ("cifar", "memo"): lambda: b"\x80\x02Nr" + struct.pack("<I", 2**27) + b".",
    ("cifar", "bytearray"): lambda: b"\x80\x05\x96" + struct.pack("<Q", 2**33) + b".",
    ("cifar", "shared"): lambda: shared(),
    ("npz", "header"): lambda: archive({"images.npy": npy_header("(1000000000000,)")}),
    ("npz", "zeros"): lambda: archive({"images.npy": zeros("(300000000,1,1)")}),
    ("label_cache", "zeros"): lambda: archive({"header.npy": zeros("(300000000,)")}),
    ("checkpoint", "bytearray.pt"): lambda: checkpoint_of(
        b"\x80\x02cbuiltins\nbytearray\n(J" + struct.pack("<i", 2_000_000_000) + b"tR."
    ),
    ("checkpoint", "packed.pt"): lambda: checkpoint_of(bytes(300_000_000), packed=True),
    ("checkpoint", "memo.pt"): lambda: checkpoint_of(b"\x80\x02Nr" + struct.pack("<I", 2**30) + b"."),
    ("checkpoint", "shared.pt"): lambda: checkpoint_of(shared()),
    ("checkpoint", "deep.pt"): lambda: checkpoint_of(b"\x80\x02" + b"(" * 3_100_000 + b"."),
    ("checkpoint", "members.pt"): lambda: archive({f"archive/{n}": b"" for n in range(25_000)}, packed=False),
    ("checkpoint", "code.pt"): lambda: checkpoint_of(b"\x80\x02cos\nsystem\nX\x04\0\0\0true\x85R."),
    ("metadata", "names"): lambda: json.dumps({"names": str(["a"] * 300_000), "stride": "32"}).encode(),
    ("metadata", "deep"): lambda: json.dumps({"names": "[" * 500_000, "stride": "32"}).encode(),
    ("metadata", "operators"): lambda: json.dumps({"names": "-" * 10**5, "stride": "1+" * 10**5}).encode(),
    ("onnx", "zeros"): lambda: bytes(50_000_000),
    ("voc", "entities"): lambda: b"<!DOCTYPE a [<!ENTITY a 'aaaaaaaaaa'>"
    + b"".join(f"<!ENTITY {chr(98 + n)} '{f'&{chr(97 + n)};' * 10}'>".encode() for n in range(10))
    + b"]><annotation><filename>&k;</filename></annotation>",
    ("voc", "deep"): lambda: b"<a>" * 500_000,
    ("geojson", "features"): lambda: json.dumps({"features": [1] * MANY}).encode(),
    ("text_tables", "columns"): lambda: b"1," * 3_000_000,
    ("model_yaml", "channels"): lambda: model_of([-1, 1, "Conv", [10**9, 3, 1]]),
    ("model_yaml", "kernel"): lambda: model_of([-1, 1, "Conv", [64, 100_000, 1]]),
    ("model_yaml", "repeats"): lambda: model_of([-1, 10**6, "C3", [64]]),
    ("model_yaml", "wide"): lambda: model_of([-1, 200, "C3", [16_384]]),
    ("model_yaml", "classes"): lambda: model_of([-1, 1, "Conv", [16, 3, 2]], nc=10**6),
    ("model_yaml", "factor"): lambda: model_of([-1, 1, "nn.Upsample", [None, 100, "nearest"]]),
    ("model_yaml", "transformer"): lambda: model_of([-1, 1, "C3TR", [4096]]),
    ("model_yaml", "activation"): lambda: model_of([-1, 1, "Conv", [8]], activation="nn.ReLU(" * 10_000),
    ("options", "words"): lambda: b"train\n" + b"--epochs\n3\n" * 1000,
    ("limits", "words"): lambda: b"tiles=7 " * 100_000,
}  # fmt: skip


if __name__ == "__main__":
    run(HostileConfig, main)
