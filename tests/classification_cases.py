"""Small classification data in the exact published formats, and a small network."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import cv2
import numpy as np
import yaml

NAMES10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
SMALL_NETWORK = """
task: classify
nc: 10
block: basic
depths: [1, 1]
widths: [8, 8, 16]
downsample: [none, none, strided]
"""


def write_yaml(file: Path, **content: object) -> Path:
    """Write a data-set YAML."""
    file.write_text(yaml.safe_dump({"task": "classify", **content}))
    return file


def some_images(count: int, side: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """(N, side, side, channels) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), np.uint8)


def cifar_binary(file: Path, pixels: np.ndarray, labels: list[int], coarse: bool = False) -> None:
    """A record is the label (CIFAR-100: coarse, then fine) and the red, green and blue plane."""
    with file.open("wb") as stream:
        for image, label in zip(pixels, labels, strict=True):
            stream.write(bytes([label // 5, label] if coarse else [label]))
            stream.write(image.transpose(2, 0, 1).tobytes())


def cifar_python(file: Path, pixels: np.ndarray, labels: list[int], key: bytes = b"labels") -> None:
    """A dict in pickle protocol 2, its keys bytes, as Python 2 wrote it."""
    planes = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    content = {b"batch_label": b"batch 1", key: labels, b"data": planes, b"filenames": [b"a.png"]}
    file.write_bytes(pickle.dumps(content, protocol=2))


def mnist(folder: Path, part: str, pixels: np.ndarray, labels: list[int], packed: bool = False) -> None:
    """A big-endian header (magic 2051 and three sizes, magic 2049 and one), then bytes."""
    images = struct.pack(">IIII", 2051, *pixels.shape[:3]) + pixels.tobytes()
    numbers = struct.pack(">II", 2049, len(labels)) + bytes(labels)
    for name, content in (("images-idx3", images), ("labels-idx1", numbers)):
        file = folder / f"{part}-{name}-ubyte{'.gz' if packed else ''}"
        file.write_bytes(gzip.compress(content) if packed else content)


def tiny_imagenet(root: Path, ids: list[str], side: int = 64) -> None:
    """Two training images and one validation image per class."""
    (root / "val/images").mkdir(parents=True)
    (root / "wnids.txt").write_text("\n".join(ids) + "\n")
    words = [f"{wnid}\tname {i}, synonym" for i, wnid in enumerate(ids)]
    (root / "words.txt").write_text("\n".join([*words, "n99999999\tsomething else"]) + "\n")
    lines = []
    for number, wnid in enumerate(ids):
        images = root / "train" / wnid / "images"
        images.mkdir(parents=True)
        for k in range(2):
            cv2.imwrite(str(images / f"{wnid}_{k}.JPEG"), some_images(1, side, seed=number)[0])
        cv2.imwrite(str(root / f"val/images/val_{number}.JPEG"), some_images(1, side, 1)[0])
        lines.append(f"val_{number}.JPEG\t{wnid}\t0\t0\t62\t62")
    (root / "val/val_annotations.txt").write_text("\n".join(lines) + "\n")


def stripes(path: Path, count: int = 60) -> Path:
    """A data set of 10 classes that can be learned: a bright stripe in the row of the class."""
    for split, seed in (("train", 0), ("test", 1)):
        rng = np.random.default_rng(seed)
        labels = np.arange(count) % 10
        images = rng.integers(0, 60, (count, 10, 10), np.uint8)
        images[np.arange(count), labels] = 255
        np.savez(path / f"{split}.npz", images=images, labels=labels)
    hyp = {"optimizer": "AdamW", "lr0": 0.01, "nominal_batch": 20, "warmup_epochs": 0, "ema_decay": 0.5,
           "ema_tau": 1, "mixup": 0.2, "label_smoothing": 0.1}  # fmt: skip
    (path / "hyp.yaml").write_text(yaml.safe_dump(hyp))
    (path / "small.yaml").write_text(SMALL_NETWORK)
    recipe = {"hyp": str(path / "hyp.yaml"), "imgsz": 12, "batch_size": 20, "epochs": 3}
    return write_yaml(
        path / "stripes.yaml",
        path=str(path),
        format="npz",
        train="train.npz",
        val="test.npz",
        resize=10,
        recipe=recipe,
    )
