"""PyTorch Hub, as with YOLOv5: torch.hub.load(FOLDER, "custom", path="best.pt", source="local").

The result is `engine.inference.Detector`: call it with paths, arrays or Pillow images; it returns
Ultralytics' Results. Nothing is downloaded: `path` names a file of yours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.inference import Detector

dependencies = ["torch", "ultralytics", "cv2", "yaml"]


def custom(path: str = "best.pt", device: str = "", **options: Any) -> Detector:
    """Return a detector from its file.

    Args:
        path: .pt of ours, of YOLOv5 or of the SPD-Conv release, or an exported file.
        device: "cpu", "0", "cuda:1", "mps"; "" takes the best there is.
        options: further arguments of `Detector`, such as `half`.
    """
    from engine.inference import Detector

    for ignored in ("autoshape", "_verbose", "verbose", "force_reload", "trust_repo"):  # YOLOv5's own
        options.pop(ignored, None)
    return Detector(path, device, **options)
