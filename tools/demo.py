"""A local page to try a detector on: drop an image or a video, move the sliders.

python -m tools.demo                                   # the newest training run
python -m tools.demo --weights best.pt --port 7860     # then open http://127.0.0.1:7860

Only this computer can reach the page, the page reaches nobody, and what was dropped on it is deleted.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.inference.detector import Detector
from utils.cli import run
from utils.errors import UserError
from utils.log import RESULT, LogOptions
from utils.offline import keep_offline
from utils.options import Options, group, opt

if TYPE_CHECKING:
    import gradio
    import numpy as np
    from matplotlib.figure import Figure
    from ultralytics.engine.results import Results

LOG = logging.getLogger(__name__)
HOST = "127.0.0.1"
SHOWN_SIDE = 2560  # pixels; a larger image is shown reduced
KEPT_SECONDS = 1800  # for how long a dropped file stays for another try with other settings
LARGEST_TILE = 2048
MOST_TILES = 1000  # of an image; more would keep everybody else waiting for minutes
SMALLEST_VIDEO = 16  # pixels; browsers and encoders refuse smaller sides


@dataclass(frozen=True)
class DemoConfig(Options):
    """Serve a local page to try a detector on."""

    weights: Path = opt(None, ".pt, or an export of any format (default: newest best.pt, or what ships)")
    data: Path | None = opt(None, "data-set YAML: class names, for a file that does not name them")
    port: int = opt(7860, "the page is http://127.0.0.1:<port>", min=1, max=65535)
    max_size: int = opt(200, "largest file that may be dropped, MB", min=1)
    device: str = opt("", "cpu, 0, cuda:1, mps (default: the best there is)")
    log: LogOptions = group(LogOptions)


def main(cfg: DemoConfig) -> int:
    """Serve the page until Ctrl-C."""
    from data.dataset_yaml import read_dataset_yaml
    from utils.run_folders import default_weights

    if importlib.util.find_spec("gradio") is None:
        raise UserError("the page needs the package gradio: pip install 'gradio>=6,<7'")
    weights = cfg.weights or default_weights()
    names = read_dataset_yaml(cfg.data).names if cfg.data else None
    detector = Detector(weights, cfg.device, names=names)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that files are deleted then, too
    with tempfile.TemporaryDirectory(prefix="yolov5-spd-demo-") as folder:
        page = serve(detector, str(weights), cfg.port, cfg.max_size, Path(folder))
        LOG.log(RESULT, f"{weights}: open http://{HOST}:{cfg.port} (Ctrl-C ends it)")
        try:
            signal.pause()
        except KeyboardInterrupt:
            LOG.info("the page is closed, its files are deleted")
        finally:
            page.close(verbose=False)
    return 0


def serve(detector: Detector, title: str, port: int, max_size: int, folder: Path) -> gradio.Blocks:
    """Open the page in threads of its own.

    Args:
        detector: who answers.
        title: shown above the page.
        port: of this computer.
        max_size: of a dropped file, MB.
        folder: where files lie while the page is open.

    Raises:
        UserError: the port is taken.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    keep_offline()
    import gradio
    from starlette.middleware import Middleware

    fonts = ["system-ui", "sans-serif"]  # the theme's own come from the network
    try:
        page = _page(detector, title, folder)
        page.launch(
            server_name=HOST,
            server_port=port,
            max_file_size=max_size * 2**20,
            theme=gradio.themes.Base(font=fonts, font_mono=["monospace"]),
            app_kwargs={"middleware": [Middleware(OnlyThisPage, port=port)]},
            footer_links=[],
            share=False,
            ssr_mode=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise UserError(f"port {port} is taken; choose another --port") from error
    return page


class OnlyThisPage:
    """Answers this page only, and forbids the browser, in every answer, to load anything from elsewhere.

    A request for another host is refused: a site whose name is made to lead to this computer (DNS rebinding)
    could otherwise use the page's API. So is one that another site's page sends, such as an upload.

    Args:
        app: that answers.
        port: of this computer, on which it does.
    """

    def __init__(self, app: Any, port: int):
        self.app = app
        self.hosts = {f"{name}:{port}".encode() for name in (HOST, "localhost")}
        self.hosts |= {HOST.encode(), b"localhost"} if port == 80 else set()
        self.origins = {b"http://" + host for host in self.hosts}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, with one more header in the answer, or refuse it."""
        if scope["type"] in ("http", "websocket") and not self._is_own(scope["headers"]):
            await _refuse(scope, send)
            return
        here = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'self'"

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"content-security-policy", here)]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, guarded)

    def _is_own(self, headers: list[tuple[bytes, bytes]]) -> bool:
        """Whether a request is for this page's host, and not sent by the page of another."""
        hosts = [value.lower() for name, value in headers if name == b"host"]
        origins = [value.lower() for name, value in headers if name == b"origin"]
        return len(hosts) == 1 and hosts[0] in self.hosts and self.origins.issuperset(origins)


async def _refuse(scope: Any, send: Any) -> None:
    """Answer with 403, or close a WebSocket before it opens."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": b"this page answers its own address only\n"})


def _page(detector: Detector, title: str, folder: Path) -> gradio.Blocks:
    import gradio

    trained = detector.predictor.config.get("tile") or {}

    def show(file: str | None, conf: float, iou: float, tile: float) -> dict[Any, Any]:
        if file is None:
            raise gradio.Error("drop an image or a video first", print_exception=False)
        try:
            result = detect_file(detector, Path(file), conf, iou, int(tile), folder)
        except UserError as error:
            reason = str(error).replace(file, Path(file).name)
            raise gradio.Error(reason, print_exception=False) from error
        return {
            image: gradio.Image(result.image, visible=result.video is None),
            video: gradio.Video(result.video, visible=result.video is not None),
            counts: result.counts,
            sizes: result.sizes,
            summary: result.summary,
        }

    with gradio.Blocks(title="YOLOv5-SPD", analytics_enabled=False, delete_cache=(60, KEPT_SECONDS)) as page:
        gradio.Markdown(f"## YOLOv5-SPD\n`{title}`: {', '.join(detector.names[:20])}")
        with gradio.Row():
            with gradio.Column(scale=1):
                file = gradio.File(label="an image or a video", file_types=["image", "video"], elem_id="file")
                conf = gradio.Slider(0.01, 0.95, 0.25, step=0.01, label="confidence")
                iou = gradio.Slider(0.05, 0.95, 0.45, step=0.05, label="IoU of NMS")
                tile = gradio.Slider(
                    0, LARGEST_TILE, trained.get("size", 0), step=32, label="tile, px (0: full image)"
                )
                button = gradio.Button("Detect", variant="primary", elem_id="detect")
                counts = gradio.Dataframe(headers=["class", "objects", "median side, px"], label="counts")
            with gradio.Column(scale=3):
                summary = gradio.Markdown(elem_id="summary")
                image = gradio.Image(
                    label="detections", format="jpeg", buttons=["download", "fullscreen"], elem_id="image"
                )
                video = gradio.Video(label="detections", visible=False, buttons=["download"], elem_id="video")
                sizes = gradio.Plot(label="sizes", elem_id="sizes")
        outputs = [image, video, counts, sizes, summary]
        button.click(show, [file, conf, iou, tile], outputs, api_name="detect")
    return page


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the page shows of a file.

    Attributes:
        image: (H, W, 3) RGB with boxes; None of a video.
        video: the annotated video; None of an image.
        counts: class, number of objects and their median side in pixels.
        sizes: histogram of the objects' sides.
        summary: a sentence.
    """

    image: np.ndarray | None
    video: str | None
    counts: list[list[Any]]
    sizes: Figure
    summary: str


def detect_file(
    detector: Detector, file: Path, conf: float, iou: float, tile: int, folder: Path
) -> DemoResult:
    """Detect on a file.

    Args:
        detector: the network.
        file: image or video.
        conf: smallest confidence.
        iou: of NMS.
        tile: side in pixels, 0 for full images.
        folder: where an annotated video is written.

    Raises:
        UserError: the file cannot be read, or its images would be cut into too many tiles.
    """
    import numpy as np

    from data.media.sources import VIDEO_SUFFIXES

    if not file.is_file():
        raise UserError("that file has been deleted meanwhile; drop it again")
    is_video = file.suffix.lower() in VIDEO_SUFFIXES
    _refuse_many_tiles(file, is_video, tile)
    results = detector.stream(file, conf=conf, iou=iou, tile=tile)
    per_image: list[np.ndarray] = []
    image, video = None, None
    if is_video:
        video = _annotate(results, file, folder, per_image)
    else:
        [result] = list(results)
        per_image.append(_detections(result))
        image = _drawn(result)[..., ::-1]
    detections = np.concatenate([np.zeros((0, 6), np.float32), *per_image])
    sides = np.sqrt((detections[:, 2:4] - detections[:, :2]).prod(1))
    of_class = [(name, sides[detections[:, 5] == index]) for index, name in enumerate(detector.names)]
    counts = [[name, len(own), round(float(np.median(own)), 1)] for name, own in of_class if len(own)]
    where = f" in {len(per_image)} frames" if video else ""
    return DemoResult(image, video, counts, _histogram(sides), f"**{len(detections)} objects**{where}")


def _refuse_many_tiles(file: Path, is_video: bool, tile: int) -> None:
    """Raise a UserError where tiles of this side, pixels, would be too many, as the header tells."""
    from data.tiling import count_tiles
    from engine.options import TileOptions

    if not TileOptions(tile=str(tile)).side:
        return
    width, height = _size(file, is_video)
    count = count_tiles(width, height, tile, TileOptions().overlap)
    if count > MOST_TILES:
        raise UserError(
            f"{count:,} tiles of {tile} px in {width} x {height} px are too many for this page, which takes "
            f"{MOST_TILES:,}; choose larger tiles, or detect.py"
        )


def _size(file: Path, is_video: bool) -> tuple[int, int]:
    """Width and height of an image or video, pixels, by its header; 0 of a video that does not say."""
    if not is_video:
        from data.media.image_files import ImageReadError, read_size

        try:
            return read_size(file)
        except ImageReadError as error:
            raise UserError(str(error)) from error
    import cv2

    capture = cv2.VideoCapture(str(file))
    size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    capture.release()
    return size


def _annotate(results: Iterator[Results], file: Path, folder: Path, per_frame: list[np.ndarray]) -> str:
    """Write the annotated video in a format that browsers play; its detections are added to `per_frame`."""
    import cv2

    capture = cv2.VideoCapture(str(file))
    fps = capture.get(cv2.CAP_PROP_FPS) or 30.0
    capture.release()
    target = Path(tempfile.mkdtemp(dir=folder)) / "detections.webm"
    writer = cv2.VideoWriter()
    for result in results:
        drawn = _padded(_drawn(result))
        if not writer.isOpened():
            writer.open(str(target), cv2.VideoWriter.fourcc(*"VP80"), fps, drawn.shape[1::-1])
        writer.write(drawn)
        per_frame.append(_detections(result))
    writer.release()
    return str(target)


def _drawn(result: Results) -> np.ndarray:
    """(H, W, 3) BGR with boxes, drawn after it was reduced, so that lines stay visible."""
    import cv2

    from utils.ultralytics_adapter import draw_boxes

    image, detections = result.orig_img, _detections(result)
    height, width = image.shape[:2]
    scale = min(SHOWN_SIDE / max(height, width), 1.0)
    if scale < 1:
        size = (max(round(width * scale), 1), max(round(height * scale), 1))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    labels = [f"{result.names[int(class_id)]} {score:.2f}" for score, class_id in detections[:, 4:]]
    return draw_boxes(image, detections[:, :4] * scale, labels, detections[:, 5])


def _padded(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) -> the same with a black border right and below, where it is too small for a video."""
    import cv2

    height, width = image.shape[:2]
    below, right = max(SMALLEST_VIDEO - height, 0), max(SMALLEST_VIDEO - width, 0)
    return cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT)


def _detections(result: Results) -> np.ndarray:
    """(n, 6) x1, y1, x2, y2 in pixels, confidence, class."""
    import numpy as np

    assert result.boxes is not None
    return np.asarray(result.boxes.data)


def _histogram(sides: np.ndarray) -> Figure:
    """Return how many objects are of which size, the side of a square of the same area."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.6), layout="constrained")
    axes = figure.add_subplot()
    axes.hist(sides, bins=np.geomspace(4, 1024, 33).tolist(), color="#2a78d6")
    axes.set_xscale("log", base=2)
    ticks = [2**power for power in range(2, 11)]
    axes.set_xticks(ticks, labels=[str(tick) for tick in ticks])
    for edge in (32, 96):
        axes.axvline(edge, color="gray", linestyle=":", linewidth=1)
    axes.set(xlabel="side of an object, px (dotted: COCO's small, medium, large)", ylabel="objects")
    return figure


if __name__ == "__main__":
    run(DemoConfig, main)
