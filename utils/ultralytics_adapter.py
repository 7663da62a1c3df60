"""The only file that imports Ultralytics: lazily, offline and without side effects.

Importing Ultralytics writes a settings file, replaces `torch.save` and Pillow's `Image.open` (by one that
installs a package when an image is broken), stops OpenCV's threads, changes how NumPy and torch print, and
may use the network. Before the first import `load` sets the environment that keeps it offline; afterwards it
restores everything else.

It is used to draw, to track (`make_tracker`) and for its `Results` (`make_results`). Its media loaders are
not used: they end a video at the frame count that its header claims, and report broken images to a log only.
`data/media/sources.py` reads media instead.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from utils.detections import Detections
from utils.errors import UserError
from utils.offline import ULTRALYTICS, keep_offline

if TYPE_CHECKING:
    from ultralytics.engine.results import Results

TrackerKind = Literal["bytetrack", "botsort"]
Tracker = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
_WIDE_FONTS = (
    "Noto Sans CJK",
    "Arial Unicode MS",
    "Microsoft YaHei",
    "PingFang",
    "WenQuanYi",
    "Malgun Gothic",
)


def load(module: str) -> ModuleType:
    """Return an Ultralytics module, such as 'ultralytics.utils.plotting', imported offline.

    Raises:
        ImportError: Ultralytics is not installed.
    """
    _import_offline()
    return importlib.import_module(module)


def import_before_threads() -> None:
    """Import Ultralytics now: for a moment its import sets OpenCV's threads to 0.

    OpenCV divides by that number in functions that run in other threads meanwhile, such as
    connectedComponents, which ends the process.
    """
    _import_offline()


@functools.cache
def _import_offline() -> None:
    import cv2
    import torch
    from PIL import Image

    keep_offline()
    os.environ.update(ULTRALYTICS)
    threads, omp, save = cv2.getNumThreads(), os.environ.get("OMP_NUM_THREADS"), torch.save
    open_image = Image.open
    with np.printoptions():  # restores what the import changes
        utils = importlib.import_module("ultralytics.utils")
        plotting: Any = importlib.import_module("ultralytics.utils.plotting")
    cv2.setNumThreads(threads)
    torch.set_printoptions(profile="default")
    torch.save, Image.open = save, open_image
    if omp is None:
        os.environ.pop("OMP_NUM_THREADS", None)
    dict.__setitem__(utils.SETTINGS, "sync", False)  # no analytics, and no change of the user's settings file
    plotting.check_font = _local_font  # the original downloads a missing font


class NotDownloadedError(UserError, ConnectionError):
    """Weights are not on this disk; as a ConnectionError, Ultralytics' own checks go on without them."""


@functools.cache
def prepare_engine() -> None:
    """Let Ultralytics' trainer, validator, predictor and exporter write their log, and keep them offline.

    Fonts are local ones, and weights are downloaded only from an address that the user gave. Without this
    call, as for drawing, Ultralytics writes nothing, see `utils.offline`.
    """
    _import_offline()
    utils: Any = load("ultralytics.utils")
    data_utils: Any = load("ultralytics.data.utils")
    downloads: Any = load("ultralytics.utils.downloads")
    utils.VERBOSE = True
    utils.set_logging(verbose=True)
    data_utils.check_font = _local_font  # called for every data set that is read
    downloads.attempt_download_asset = _only_named_urls(downloads)


def _only_named_urls(downloads: Any) -> Callable[..., str]:
    """Return Ultralytics' `attempt_download_asset`, limited to weights that the user gave an address of."""
    original = downloads.attempt_download_asset

    def attempt_download_asset(file: str | Path, *args: Any, **options: Any) -> str:
        name = downloads.checks.check_yolov5u_filename(str(file).strip())
        folder = Path(load("ultralytics.utils").SETTINGS["weights_dir"])
        on_disk = Path(name).exists() or (folder / name).exists()
        if not on_disk and not name.lower().startswith(("http:/", "https:/")):
            raise NotDownloadedError(
                f"no weights file {file}, and none is downloaded unasked; give its address, such as "
                f"https://github.com/ultralytics/assets/releases/download/v8.4.0/{Path(name).name}"
            )
        return original(file, *args, **options)

    return attempt_download_asset


@functools.cache
def _local_font(font: str = "") -> str:
    """Return a local font file: one with East Asian characters if there is any, else DejaVu Sans."""
    import matplotlib
    from matplotlib import font_manager

    for name in _WIDE_FONTS:
        for entry in font_manager.fontManager.ttflist:
            if entry.name.startswith(name) and os.path.exists(entry.fname):
                return entry.fname
    return os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


def class_color(index: int) -> tuple[int, int, int]:
    """Return the color of a class, BGR."""
    return load("ultralytics.utils.plotting").colors(int(index), True)


def draw_boxes(
    image: np.ndarray,
    boxes_xyxy: np.ndarray,
    labels: Sequence[str],
    classes: np.ndarray,
    line_width: int | None = None,
) -> np.ndarray:
    """Draw boxes and labels on a copy of an image, the first box on top.

    Args:
        image: (H, W, 3) BGR uint8.
        boxes_xyxy: (n, 4) pixels.
        labels: n texts; for an empty one, only the box is drawn.
        classes: (n,) class indices, which determine the colors.
        line_width: pixels; None adapts it to image and boxes, so that small objects stay visible.

    Returns:
        (H, W, 3) BGR uint8.
    """
    plotting = load("ultralytics.utils.plotting")
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    width = line_width or _line_width(image.shape, boxes)
    scale = _font_scale(image.shape, line_width)
    unicode = not all(label.isascii() for label in labels)  # OpenCV draws ASCII only
    options: dict[str, Any] = {"pil": True, "font_size": round(28 * scale)} if unicode else {}
    annotator = plotting.Annotator(np.array(image, order="C"), line_width=width, **options)
    annotator.sf, annotator.tf = scale, max(1, round(scale))
    for box, label, index in reversed(list(zip(boxes.tolist(), labels, classes, strict=True))):
        annotator.box_label(box, label, plotting.colors(int(index), True))
    return np.array(annotator.result())


def _line_width(shape: tuple[int, ...], boxes: np.ndarray) -> int:
    """Return .25% of the image's mean side, at most a fifteenth of the median box's short side, pixels."""
    width = (shape[0] + shape[1]) / 2 * 0.0025
    if len(boxes):
        sides = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
        width = min(width, float(np.median(sides)) / 15)
    return max(1, round(width))


def _font_scale(shape: tuple[int, ...], line_width: int | None) -> float:
    """Return OpenCV's font scale; .4 is about 9 pixels, the smallest that is easy to read."""
    side = min((shape[0] + shape[1]) / 2, 4 * min(shape[:2]))  # a strip is lower than its labels would be
    scale = line_width / 3 if line_width else side * 0.00035
    return min(max(scale, 0.4), 2.0)


def make_results(
    image: np.ndarray,
    path: str,
    names: Sequence[str],
    detections: Detections,
    milliseconds: Mapping[str, float] | None = None,
) -> Results:
    """Return detections as Ultralytics' Results: boxes, plot(), save(), to_df(), to_json() and so on.

    Args:
        image: (H, W, 3) BGR uint8.
        path: of the image or video.
        names: of the classes.
        detections: in pixels of the image.
        milliseconds: time of "preprocess", "inference" and "postprocess".
    """
    import torch

    columns = detections.to_array()
    if detections.track_ids is not None:
        columns = np.insert(columns, 4, detections.track_ids, axis=1)
    boxes = torch.from_numpy(np.ascontiguousarray(columns, dtype=np.float32))
    results = load("ultralytics.engine.results").Results
    return results(image, path, dict(enumerate(names)), boxes=boxes, speed=dict(milliseconds or {}))


def make_tracker(kind: TrackerKind, conf_thres: float, low_thres: float) -> Tracker:
    """Return a tracker for one video, to be called with each frame in turn.

    It maps detections, (n, 6) x1, y1, x2, y2, confidence, class in pixels, and the (H, W, 3) BGR frame to
    the detections that belong to tracks, (m, 6), and their track ids, (m,); the most confident first.

    Args:
        kind: ByteTrack (arXiv:2110.06864) uses motion; BoT-SORT (arXiv:2206.14651) also compensates for
            the motion of the camera.
        conf_thres: confidence at which a detection starts a track.
        low_thres: confidence at which a detection continues a track.

    Raises:
        UserError: the package lap is missing.
    """
    try:
        import lap  # noqa: F401  (Ultralytics would install it)
    except ImportError as error:
        raise UserError("tracking needs the package lap: pip install lap") from error
    options = SimpleNamespace(
        track_high_thresh=conf_thres,
        track_low_thresh=min(low_thres, conf_thres),
        new_track_thresh=conf_thres,
        track_buffer=30,  # frames for which a lost track is kept
        match_thresh=0.8,
        fuse_score=True,
        gmc_method="sparseOptFlow",
        proximity_thresh=0.5,
        appearance_thresh=0.8,
        with_reid=False,
    )
    module, name = {"bytetrack": ("byte_tracker", "BYTETracker"), "botsort": ("bot_sort", "BOTSORT")}[kind]
    tracker = getattr(load(f"ultralytics.trackers.{module}"), name)(options)
    boxes = load("ultralytics.engine.results").Boxes
    track_ids: dict[int, int] = {}  # without gaps: the tracker also numbers tracks that it never confirms

    def track(detections: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        updated = tracker.update(boxes(detections.astype(np.float32), image.shape[:2]), image)
        tracks = np.asarray(updated, np.float32).reshape(-1, 8)  # xyxy, id, confidence, class, index
        tracks = tracks[np.argsort(-tracks[:, 5], kind="stable")]
        ids = [track_ids.setdefault(int(own), len(track_ids) + 1) for own in tracks[:, 4]]
        return tracks[:, [0, 1, 2, 3, 5, 6]], np.array(ids, np.int64)

    return track
