"""Write the good files of the corpus, from which bad ones are made: `python -m tests.fuzz.seeds`.

The corpus holds them as `<target>/good-*`; what was found to break a reader lies beside them, named after
what went wrong.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).parent / "corpus"

COCO = {
    "images": [
        {"id": 1, "file_name": "1.png", "width": 64, "height": 48, "ignore_regions": [[0, 0, 9, 9]]},
        {"id": "b", "file_name": "2.png", "width": 640.0, "height": 480},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0},
        {"id": 2, "image_id": "b", "category_id": 2, "bbox": [1.5, 2, 30, 4], "iscrowd": 1, "ignore": 1},
    ],
    "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "person"}],
}
DATASET = {
    "path": ".", "train": ["a", "b.txt"], "val": "v", "names": {"0": "car", "1": "person"},
    "tile": {"size": 64, "overlap": 0.2, "min_area": 0.4}, "category_ids": [1, 2],
    "annotations": {"val": "v.json"}, "images": {"val": "v"}, "nc": 2, "download": "x",
    "recipe": {"hyp": "low.yaml", "imgsz": 64, "epochs": 1, "batch_size": 2},
}  # fmt: skip
CLASSIFICATION = {
    "task": "classify", "path": ".", "format": "cifar", "train": ["a.bin"], "test": "b.bin",
    "names": ["car", "person"], "resize": 14, "recipe": {"imgsz": 28},
}  # fmt: skip
HYP = {
    "optimizer": "SGD", "lr0": "1e-2", "lrf": 0.1, "momentum": 0.9, "warmup_epochs": 3.0, "mosaic": 1.0,
    "box_loss": "nwd", "fl_gamma": 0.0, "nominal_batch": 64, "hsv_h": 0.015, "scale": 0.5, "anchors": 3,
}  # fmt: skip
MODEL = {
    "nc": 2, "depth_multiple": 0.33, "width_multiple": 0.25, "activation": "nn.ReLU()",
    "anchors": [[10, 13, 16, 30]],
    "backbone": [
        [-1, 1, "Conv", [16, 3, 2]], [-1, 1, "Downsample", [16, "spd"]], [-1, 3, "C3", [32, True]],
        [-1, 1, "SPPF", [32, 5]],
    ],
    "head": [
        [-1, 1, "nn.Upsample", ["None", 2, "nearest"]], [[-1, 0], 1, "Concat", [1]],
        [[5], 1, "Detect", ["nc", "anchors"]],
    ],
}  # fmt: skip
CLASSIFIER = {
    "task": "classify", "nc": 2, "block": "basic", "depths": [1, 1], "widths": [8, 8, 16],
    "downsample": ["none", "none", "spd"], "strides": [1, 1, 2],
}  # fmt: skip
METADATA = {
    "format": 1, "names": ["car", "person"], "stride": 32, "task": "detect", "imgsz": [64, 64], "batch": 1,
    "dynamic": False, "nms": False, "precision": "fp32", "config": {"epochs": 3},
}  # fmt: skip
GEOJSON = {
    "features": [{"properties": {"image_id": "1.tif", "type_id": 18, "bounds_imcoords": "1,2,30,40"}}],
}
RESULTS = [
    {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5},
    {"image_id": "b", "category_id": 3, "bbox": [1.0, 2, 30, 40], "score": 1},
]
VOC = (
    "<annotation><filename>1.jpg</filename><size><width>64</width><height>48</height></size><object>"
    "<name>car</name><difficult>0</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax>"
    "</bndbox></object></annotation>"
)
TEXTS = {
    "labels/good-boxes": "0 0.5 0.5 0.2 0.3\n1 .1 .2 .1 .1\n1 .1 .2 .1 .1\n",
    "labels/good-polygon": "0 0.1 0.1 0.5 0.1 0.5 0.5\r\n\n 1 1e-1 0.5 0.2 1.0\n",
    "coco/good": json.dumps(COCO),
    "coco_results/good": json.dumps(RESULTS),
    "dataset_yaml/good.json": json.dumps(DATASET),
    "dataset_yaml/good.yaml": "path: .\ntrain: a\nval: b\nnames:\n  0: car\n  1: person\ntile: {size: 64}\n",
    "classification_yaml/good.json": json.dumps(CLASSIFICATION),
    "hyp_yaml/good.json": json.dumps(HYP),
    "hyp_yaml/good.yaml": "lr0: 1e-2\nmosaic: &a 0.5\nmixup: *a\n",
    "model_yaml/good.json": json.dumps(MODEL),
    "model_yaml/good-classifier.json": json.dumps(CLASSIFIER),
    "results_csv/good": "epoch,train/box_loss,lr/pg0\n0,0.5,0.1\n1,0.4,0.1\n2,,\n",
    "path_list/good-streams": "rtsp://camera/live\n0\n",
    "path_list/good": "# images\na.jpg\n'b c.png'\n./sub/d.tif\n",
    "source/good-glob": "*.jpg",
    "source/good-stream": "rtsp://user:word@camera/live?x=1",
    "source/good-camera": "0",
    "metadata/good": json.dumps(METADATA),
    "metadata/good-yolov5": json.dumps({"stride": "32", "names": "{0: 'car', 1: 'person'}"}),
    "openvino/good": json.dumps({"stride": 32, "names": ["car", "person"]}),
    "voc/good": VOC,
    "text_tables/good-dota": "imagesource:GoogleEarth\ngsd:0.1\n1 2 3 2 3 4 1 4 ship 0\n",
    "text_tables/good-visdrone": "1,2,30,40,1,4,0,0,\n5,6,7,8,0,0,0,0\n",
    "geojson/good": json.dumps(GEOJSON),
    "options/good-train": "train\n--epochs\n3\n--imgsz=64\n--cache\nram\n--freeze\n1\n2\n--no-amp",
    "options/good-detect": "detect\n--weights\na.pt\nb.pt\n--source\n0\n--conf\n.5\n--classes\n0\n--half",
    "options/good-val": "val\n--weights\na.pt\n--task=test\n--conf-thres\n0.01",
    "options/good-export": "export\n--weights\na.pt\n--include\nonnx\n--imgsz\n64\n32",
    "limits/good": "image_pixels=2e9 classes=50000,tiles=7",
    "checkpoint_fields/good": "good",
    "resumed_options/good": "good",
    "training_state/good": "good",
}


def binary_seeds() -> dict[str, bytes]:
    """The good files that are no text."""
    import numpy as np

    from data.detection.record_cache import fingerprint, save_cache
    from data.image_record import ImageRecord, annotation_arrays

    def npz(**arrays: Any) -> bytes:
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        return stream.getvalue()

    numbers = np.arange(2 * 8 * 8, dtype=np.uint8).reshape(2, 8, 8)
    head = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 2, 3)
    batch = {b"data": np.zeros((1, 3072), np.uint8), b"labels": [3]}
    with tempfile.TemporaryDirectory() as place:
        cache = Path(place) / "c.npz"
        record = ImageRecord(Path("a.jpg"), 1, 64, 48, *annotation_arrays([[1, 2, 3, 4]], [0]))
        save_cache(cache, fingerprint("", []), [record, record], ["a.jpg:1: bad"], [])
        cached = cache.read_bytes()
    return {
        "idx/good": head + bytes(12),
        "idx/good-labels": bytes([0, 0, 8, 1]) + struct.pack(">I", 3) + b"\0\1\2",
        "idx/good.gz": gzip.compress(head + bytes(12), mtime=0),
        "cifar/good-binary": bytes([3]) + bytes(3072),
        "cifar/good-pickle": pickle.dumps(batch, 2),
        "npz/good": npz(images=numbers, labels=np.array([0, 1]), names=np.array(["car", "person"])),
        "npz/good-keras": npz(x_train=numbers, y_train=np.array([0, 1])),
        "label_cache/good": cached,
        "pixel_cache/good": struct.pack("<8sqqII", b"pixels01", 0, 1, 2, 3) + bytes(18),
        "checkpoint/good": _checkpoint(),
        "onnx/good": _onnx(),
        "ncnn/good": NCNN.encode() + bytes(4 + 9 * 4),  # a flag, 6 weights and 2 biases; and one more
        "litert/good": _litert(),
        **_images(),
        **_videos(),
    }


def _checkpoint() -> bytes:
    import torch

    from models import build_model
    from models.load import to_checkpoint
    from tests.fuzz.targets import TINY

    torch.manual_seed(0)
    stream = io.BytesIO()
    torch.save({"format": 1, **to_checkpoint(build_model(TINY))}, stream)
    return stream.getvalue()


def _onnx() -> bytes:
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])
    output = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 3, 8])
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    node = helper.make_node("Add", ["images", "w"], ["output0"])
    return helper.make_model(helper.make_graph([node], "g", [value], [output], [weight])).SerializeToString()


NCNN = """7767517
4 4
Input            in0   0 1 in0
Convolution      conv  1 1 in0 1 0=2 1=1 5=1 6=6
Sigmoid          act   1 1 1 2
Reshape          out   1 1 2 out0 0=6 1=-1
\0"""


def _litert() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        content = {"stride": 32, "names": ["tree"], "imgsz": [64, 64], "task": "detect"}
        archive.writestr(zipfile.ZipInfo("metadata.json"), json.dumps(content))
    return struct.pack("<I4s", 8, b"TFL3") + bytes(24) + stream.getvalue()


def _images() -> dict[str, bytes]:
    import cv2
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (32, 40, 3), np.uint8)
    files = {
        f"image/good{suffix}": cv2.imencode(suffix, pixels)[1].tobytes()
        for suffix in (".jpg", ".png", ".bmp", ".ppm", ".webp", ".tif", ".jp2")
    }
    stream = io.BytesIO()
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels).save(stream, "JPEG", exif=turned)
    return {**files, "image/good-turned.jpg": stream.getvalue()}


def _videos() -> dict[str, bytes]:
    import cv2
    import numpy as np
    from PIL import Image

    frames = [np.full((16, 16, 3), 40 * number, np.uint8) for number in range(3)]
    stream = io.BytesIO()
    first, *rest = map(Image.fromarray, frames)
    first.save(stream, "GIF", save_all=True, append_images=rest)
    files = {"video/good.gif": stream.getvalue()}
    with tempfile.TemporaryDirectory() as place:
        for suffix, code in ((".mp4", "mp4v"), (".avi", "MJPG")):
            path = Path(place) / f"v{suffix}"
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), 5, (16, 16))
            for frame in frames:
                writer.write(frame)
            writer.release()
            files[f"video/good{suffix}"] = path.read_bytes()
    return files


def main() -> None:
    """Write every file."""
    contents = {**{name: text.encode() for name, text in TEXTS.items()}, **binary_seeds()}
    for name, content in contents.items():
        path = CORPUS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        print(f"{path.relative_to(CORPUS)}: {len(content):,} bytes")


if __name__ == "__main__":
    main()
