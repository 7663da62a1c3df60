"""A local page to try a detector on: drop an image or a video, move the sliders.

python -m tools.demo                                   # the newest training run
python -m tools.demo --weights best.pt --port 7860     # then open http://127.0.0.1:7860

Only this computer can reach the page, the page reaches nobody, and what was dropped on it is deleted.
"""

from __future__ import annotations

import importlib.util
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
from utils.offline import keep_offline
from utils.options import Options, opt

if TYPE_CHECKING:
    import gradio
    import numpy as np
    from matplotlib.figure import Figure
    from ultralytics.engine.results import Results

HOST = "127.0.0.1"
SHOWN_SIDE = 2560  # pixels; a larger image is shown reduced
KEPT_SECONDS = 1800  # for how long a dropped file can be looked at again with other settings
LARGEST_TILE = 2048


@dataclass(frozen=True)
class DemoConfig(Options):
    """Serve a local page to try a detector on."""

    weights: Path = opt(None, ".pt, .onnx, .torchscript or OpenVINO (default: the newest run's best.pt)")
    data: Path | None = opt(None, "data-set YAML: class names, for a file that does not name them")
    port: int = opt(7860, "the page is http://127.0.0.1:<port>", min=1, max=65535)
    max_size: int = opt(200, "largest file that may be dropped, MB", min=1)
    device: str = opt("", "cpu, 0, cuda:1, mps (default: the best there is)")


def main(cfg: DemoConfig) -> int:
    """Serve the page until Ctrl-C."""
    from data.dataset_yaml import read_dataset_yaml
    from utils.run_folders import newest_weights

    if importlib.util.find_spec("gradio") is None:
        raise UserError("the page needs the package gradio: pip install 'gradio>=6,<7'")
    weights = cfg.weights or newest_weights()
    names = read_dataset_yaml(cfg.data).names if cfg.data else None
    detector = Detector(weights, cfg.device, names=names)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that files are deleted then, too
    with tempfile.TemporaryDirectory(prefix="yolov5-spd-demo-") as folder:
        page = serve(detector, str(weights), cfg.port, cfg.max_size, Path(folder))
        print(f"{weights}: open http://{HOST}:{cfg.port} (Ctrl-C ends it)", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("the page is closed, its files are deleted")
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
            app_kwargs={"middleware": [Middleware(OnlyThisPage)]},
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
    """Forbids the browser, in every answer, to load anything from anywhere else."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, with one more header in the answer."""
        here = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'self'"

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"content-security-policy", here)]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, guarded)


def _page(detector: Detector, title: str, folder: Path) -> gradio.Blocks:
    import gradio

    trained = detector.predictor.config.get("tile") or {}

    def show(file: str | None, conf: float, iou: float, tile: float) -> dict[Any, Any]:
        if file is None:
            raise gradio.Error("drop an image or a video first", print_exception=False)
        try:
            seen = look(detector, Path(file), conf, iou, int(tile), folder)
        except UserError as error:
            reason = str(error).replace(file, Path(file).name)
            raise gradio.Error(reason, print_exception=False) from error
        return {
            image: gradio.Image(seen.image, visible=seen.video is None),
            video: gradio.Video(seen.video, visible=seen.video is not None),
            counts: seen.counts,
            sizes: seen.sizes,
            summary: seen.summary,
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
                    label="found", format="jpeg", buttons=["download", "fullscreen"], elem_id="image"
                )
                video = gradio.Video(label="found", visible=False, buttons=["download"], elem_id="video")
                sizes = gradio.Plot(label="sizes", elem_id="sizes")
        outputs = [image, video, counts, sizes, summary]
        button.click(show, [file, conf, iou, tile], outputs, api_name="detect")
    return page


@dataclass(frozen=True, eq=False)
class Seen:
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


def look(detector: Detector, file: Path, conf: float, iou: float, tile: int, folder: Path) -> Seen:
    """Detect on a file.

    Args:
        detector: who looks.
        file: image or video.
        conf: smallest confidence.
        iou: of NMS.
        tile: side in pixels, 0 for full images.
        folder: where an annotated video is written.

    Raises:
        UserError: the file cannot be read.
    """
    import numpy as np

    from data.media.sources import VIDEO_SUFFIXES

    if not file.is_file():
        raise UserError("that file has been deleted meanwhile; drop it again")
    results = detector.stream(file, conf=conf, iou=iou, tile=tile)
    rows: list[np.ndarray] = []
    image, video = None, None
    if file.suffix.lower() in VIDEO_SUFFIXES:
        video = _annotate(results, file, folder, rows)
    else:
        [result] = list(results)
        rows.append(_boxes(result))
        image = _drawn(result)[..., ::-1]
    found = np.concatenate([np.zeros((0, 6), np.float32), *rows])
    sides = np.sqrt((found[:, 2] - found[:, 0]) * (found[:, 3] - found[:, 1]))
    of_class = [(name, sides[found[:, 5] == index]) for index, name in enumerate(detector.names)]
    counts = [[name, len(own), round(float(np.median(own)), 1)] for name, own in of_class if len(own)]
    where = f" in {len(rows)} frames" if video else ""
    return Seen(image, video, counts, _histogram(sides), f"**{len(found)} objects**{where}")


def _annotate(results: Iterator[Results], file: Path, folder: Path, rows: list[np.ndarray]) -> str:
    """Write the annotated video in a format that browsers play; its detections are added to `rows`."""
    import cv2

    capture = cv2.VideoCapture(str(file))
    fps = capture.get(cv2.CAP_PROP_FPS) or 30.0
    capture.release()
    target = Path(tempfile.mkdtemp(dir=folder)) / "found.webm"
    writer = cv2.VideoWriter()
    for result in results:
        drawn = _drawn(result)
        if not writer.isOpened():
            writer.open(str(target), cv2.VideoWriter.fourcc(*"VP80"), fps, drawn.shape[1::-1])
        writer.write(drawn)
        rows.append(_boxes(result))
    writer.release()
    return str(target)


def _drawn(result: Results) -> np.ndarray:
    """(H, W, 3) BGR with boxes, drawn after it was reduced, so that lines stay visible."""
    import cv2

    from utils.ultralytics_adapter import draw_boxes

    image, boxes = result.orig_img, _boxes(result)
    scale = min(SHOWN_SIDE / max(image.shape[:2]), 1.0)
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    labels = [f"{result.names[int(row[5])]} {row[4]:.2f}" for row in boxes]
    return draw_boxes(image, boxes[:, :4] * scale, labels, boxes[:, 5])


def _boxes(result: Results) -> np.ndarray:
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
