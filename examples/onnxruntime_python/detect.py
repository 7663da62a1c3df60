"""Detect with an exported ONNX file in ONNX Runtime, with nothing of this project: see ../README.md."""

from __future__ import annotations

import argparse
import math

import cv2
import numpy as np
import onnxruntime

GRAY = 114  # borders around a tile that is not as wide or high as the input


class Network:
    """An ONNX file, and the height and width of its input."""

    def __init__(self, file: str):
        self.session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        self.height, self.width = self.session.get_inputs()[0].shape[2:]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(1, 3, H, W) float32 RGB in 0..1 -> (N, 5 + classes) cx, cy, w, h, objectness, class scores."""
        return self.session.run(None, {"images": images})[0][0]


def tile_starts(length: int, side: int, overlap: float) -> np.ndarray:
    """First pixels of the tiles along one side of an image, evenly spread."""
    count = 1 if side >= length else math.ceil((length - side) / (side * (1 - overlap)) - 1e-9) + 1
    return np.floor(np.linspace(0, max(length - side, 0), count) + 0.5).astype(int)


def letterbox(tile: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(h, w, 3) uint8 BGR -> input (1, 3, H, W), its scale and its border in x, y, x, y."""
    scale = min(height / tile.shape[0], width / tile.shape[1])
    new_h, new_w = (max(round(side * scale), 1) for side in tile.shape[:2])
    resized = cv2.resize(
        tile, (new_w, new_h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    top, left = (height - new_h) // 2, (width - new_w) // 2
    canvas = np.full((height, width, 3), GRAY, np.uint8)
    canvas[top : top + new_h, left : left + new_w] = resized
    images = canvas[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32) / 255
    return images, np.tile([new_w / tile.shape[1], new_h / tile.shape[0]], 2), np.tile([left, top], 2)


def decode(output: np.ndarray, conf: float) -> np.ndarray:
    """(N, 5 + classes) -> those above the confidence, (n, 6) x1, y1, x2, y2, confidence, class."""
    scores = output[:, 5:] * output[:, 4:5]
    output, scores = output[scores.max(1) > conf], scores[scores.max(1) > conf]
    center, half = output[:, :2], output[:, 2:4] / 2
    return np.hstack((center - half, center + half, scores.max(1, keepdims=True), scores.argmax(1)[:, None]))


def suppress(boxes: np.ndarray, iou: float) -> np.ndarray:
    """Non-maximum suppression: (n, 6) -> those that overlap no better one of their class, best first."""
    boxes, kept = boxes[np.argsort(-boxes[:, 4], kind="stable")], []
    while len(boxes):
        best, rest = boxes[0], boxes[1:]
        kept.append(best)
        sides = np.minimum(best[2:4], rest[:, 2:4]) - np.maximum(best[:2], rest[:, :2])
        shared = sides.clip(0).prod(1)
        union = (best[2:4] - best[:2]).prod() + (rest[:, 2:4] - rest[:, :2]).prod(1) - shared
        boxes = rest[(shared <= iou * union) | (rest[:, 5] != best[5])]
    return np.array(kept).reshape(-1, 6)


def detect(network: Network, image: np.ndarray, options: argparse.Namespace) -> np.ndarray:
    """(H, W, 3) uint8 BGR -> (n, 6) x1, y1, x2, y2 in pixels of the image, confidence, class."""
    side, boxes = options.tile or max(image.shape), [np.zeros((0, 6))]
    for y in tile_starts(image.shape[0], side, options.overlap):
        for x in tile_starts(image.shape[1], side, options.overlap):
            tile = image[y : y + side, x : x + side]
            images, scale, border = letterbox(tile, network.height, network.width)
            kept = suppress(decode(network(images), options.conf), options.iou)
            corners = (kept[:, :4] - border) / scale
            kept[:, :4] = corners.clip(0, np.tile(tile.shape[1::-1], 2)) + np.array([x, y, x, y])
            boxes.append(kept)
    return suppress(np.vstack(boxes), options.iou)  # objects in the overlap of two tiles


def main() -> None:
    """Print the detections of an image, one a line, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", help="an .onnx file of export.py")
    parser.add_argument("image")
    parser.add_argument("--conf", type=float, default=0.25, help="smallest confidence")
    parser.add_argument("--iou", type=float, default=0.45, help="largest IoU of two boxes of a class")
    parser.add_argument("--tile", type=int, default=0, help="side of a tile, pixels; 0 for none")
    parser.add_argument(
        "--overlap", type=float, default=0.2, help="share of a side that two tiles have in common"
    )
    parser.add_argument("--out", help="write the image with its boxes here")
    options = parser.parse_args()
    image = cv2.imread(options.image)
    if image is None:
        parser.error(f"{options.image}: no image")
    for x1, y1, x2, y2, confidence, category in detect(Network(options.weights), image, options):
        print(f"{category:.0f} {confidence:.4f} {x1:.2f} {y1:.2f} {x2:.2f} {y2:.2f}")
        cv2.rectangle(image, (round(x1), round(y1)), (round(x2), round(y2)), (0, 0, 255), 2)
    if options.out:
        cv2.imwrite(options.out, image)


if __name__ == "__main__":
    main()
