"""The tools that ours is measured against, made to run offline: Ultralytics' networks and SAHI."""

from __future__ import annotations

import importlib.machinery
import os
import sys
import types
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.inference.pipeline import detect_image
from engine.inference.settings import DetectSettings
from engine.runtimes import Predictor
from utils.errors import UserError
from utils.overlap import suppress
from utils.ultralytics_adapter import load


def stand_in_for_torchvision() -> None:
    """Put a small module in torchvision's place where it does not import: others need its NMS."""
    os.environ["YOLO_AUTOINSTALL"] = "0"
    try:
        import torchvision  # noqa: F401

        return
    except (ImportError, RuntimeError):
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]

    def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
        order = scores.argsort(descending=True, stable=True)
        kept = suppress(boxes[order].cpu().double().numpy(), iou_threshold)
        return order[torch.from_numpy(kept).to(order.device)]

    top: Any = types.ModuleType("torchvision")
    top.__version__ = "0"
    for name in ("ops", "transforms"):
        setattr(top, name, types.ModuleType(f"torchvision.{name}"))
    top.ops.nms = nms
    for module in (top, top.ops, top.transforms):
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
        sys.modules[module.__name__] = module


def yolo(name: str) -> Any:
    """Return one of Ultralytics' networks with random weights."""
    stand_in_for_torchvision()
    return load("ultralytics").YOLO(f"{name}.yaml", task="detect", verbose=False)


def sahi_on_tiles(
    predictor: Predictor, image: np.ndarray, settings: DetectSettings, tile: int, overlap: float
) -> np.ndarray:
    """Detect through SAHI with our network, as its documentation tells: (n, 6) rows.

    Args:
        predictor: the network.
        image: (H, W, 3) uint8 BGR.
        settings: of one tile.
        tile: side, pixels.
        overlap: share of a side.
    """
    stand_in_for_torchvision()
    try:
        from sahi.models.base import DetectionModel
        from sahi.predict import get_sliced_prediction
        from sahi.prediction import ObjectPrediction
    except ImportError as error:
        raise UserError(f"comparing with SAHI needs its package: pip install sahi ({error})") from error

    def first_of(values: Sequence[Any]) -> Any:
        return values[0] if isinstance(values[0], list | tuple) else values

    class OurModel(DetectionModel):
        """Our network as SAHI wants it."""

        def load_model(self) -> None:
            self.model = predictor
            self.category_mapping = {str(i): name for i, name in enumerate(predictor.names)}

        def perform_inference(self, image: np.ndarray) -> None:
            self._original_predictions = detect_image(
                predictor, image[..., ::-1], settings
            ).detections.to_array()

        def _create_object_prediction_list_from_original_predictions(
            self, shift_amount_list: Sequence[Any] = ((0, 0),), full_shape_list: Any = None
        ) -> None:
            shift = first_of(shift_amount_list)
            shape = first_of(full_shape_list) if full_shape_list else None
            self._object_prediction_list_per_image = [
                [
                    ObjectPrediction(
                        bbox=row[:4],
                        score=row[4],
                        category_id=int(row[5]),
                        category_name=predictor.names[int(row[5])],
                        shift_amount=list(shift),
                        full_shape=shape,
                    )
                    for row in self._original_predictions.tolist()
                    if row[2] - row[0] >= 1 and row[3] - row[1] >= 1
                ]
            ]

    model = OurModel(confidence_threshold=settings.conf_thres, device="cpu")
    result = get_sliced_prediction(
        np.ascontiguousarray(image[..., ::-1]),
        model,
        slice_height=tile,
        slice_width=tile,
        overlap_height_ratio=overlap,
        overlap_width_ratio=overlap,
        perform_standard_pred=False,
        verbose=0,
    )
    rows = [[*one.bbox.to_xyxy(), one.score.value, one.category.id] for one in result.object_prediction_list]
    return np.array(rows, np.float32).reshape(-1, 6)
