"""The demo page in a real browser, and its answers through its API; nothing leaves, nothing stays."""

from __future__ import annotations

import re
import socket
import sys
from http.client import HTTPConnection
from pathlib import Path
from urllib.request import urlopen

import cv2
import numpy as np
import pytest

from engine.inference.detector import Detector
from tests.browser import CHROMIUM, Browser
from tests.rectangles import RectangleFinder, draw_image, read_video, save, save_video
from tools import demo
from utils.cli import parse
from utils.errors import UserError

FULL_IMAGE = next(Path("data/samples/treecrowns/images/val").glob("*.jpg"))
BOXES = [(100, 60, 124, 84), (300, 200, 350, 250), (500, 400, 530, 430)]

gradio = pytest.importorskip("gradio", reason="the page needs gradio")


@pytest.fixture(scope="module")
def full_image(tmp_path_factory) -> Path:
    """Darkened, so that the stand-in for a network finds the three white squares only."""
    image = cv2.imread(str(FULL_IMAGE))[:600, :800] // 2
    for x1, y1, x2, y2 in BOXES:
        image[y1:y2, x1:x2] = 255
    return save(tmp_path_factory.mktemp("full image") / "forest.png", image)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Address of the page, and the folder of its files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.runtimes.load_predictor", lambda *args, **options: RectangleFinder())
        patch.setenv("GRADIO_TEMP_DIR", "")
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "")
        with socket.socket() as probe:
            probe.bind((demo.HOST, 0))
            port = probe.getsockname()[1]
        folder = tmp_path_factory.mktemp("files")
        blocks = demo.serve(Detector("stub.pt", device="cpu"), "stub.pt", port, 1, folder)
        yield f"http://{demo.HOST}:{port}/", folder
        blocks.close(verbose=False)


@pytest.fixture(scope="module")
def client(page, tmp_path_factory):
    client_module = pytest.importorskip("gradio_client")
    folder = tmp_path_factory.mktemp("downloads")
    return client_module.Client(page[0], verbose=False, analytics_enabled=False, download_files=folder)


def ask(client, file: Path, conf: float = 0.25, tile: int = 0):
    from gradio_client import handle_file

    return client.predict(handle_file(file), conf, 0.45, tile, api_name="/detect")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)")
def test_a_browser_shows_what_is_in_a_dropped_full_image(page, full_image, tmp_path):
    try:
        with Browser(tmp_path / "profile") as browser:
            browser.call("Page.navigate", url=page[0])
            browser.wait_for("!!document.querySelector('#file input[type=file]')")
            browser.drop("#file input[type=file]", full_image)
            browser.wait_for("document.querySelector('#file').innerText.includes('forest')")
            browser.evaluate("document.querySelector('#detect').click()")
            browser.wait_for("document.querySelector('#summary').innerText.includes('3 objects')")
            width = browser.wait_for("document.querySelector('#image img')?.naturalWidth")
            browser.wait_for("document.querySelector('#sizes img')?.naturalWidth")
            assert width == 800
            assert "white" in browser.evaluate("document.body.innerText")
            elsewhere = [a for a in browser.requests if not a.startswith((page[0], "data:", "blob:"))]
            assert elsewhere == []
    except TimeoutError as error:
        if "does not answer" in str(error):
            pytest.skip("the browser hangs on this machine, whatever the page")
        raise


@pytest.mark.parametrize("tile", [0, 320])
def test_an_image_comes_back_with_its_boxes_counts_and_sizes(client, full_image, tile):
    drawn, video, counts, sizes, summary = ask(client, full_image, tile=tile)
    image, annotated = cv2.imread(str(full_image)).astype(int), cv2.imread(drawn["value"]).astype(int)
    changed = np.abs(image - annotated).max(2) > 90
    for x1, y1, x2, y2 in BOXES:
        assert changed[y1 - 8 : y2 + 8, x1 - 8 : x2 + 8].any()
    assert not changed[450:].any()
    assert video == {"visible": False, "value": None, "__type__": "update"}
    assert counts["data"] == [["white", 3, 30.0]] and summary == "**3 objects**"
    assert sizes["plot"].startswith("data:image")
    assert "0 objects" in ask(client, full_image, conf=0.95, tile=tile)[-1]


def test_a_video_comes_back_in_a_format_that_browsers_play(client, tmp_path):
    _, video, counts, _, summary = ask(client, save_video(tmp_path / "walk.avi", frames=5))
    assert video["value"].endswith(".webm")
    fps, frames = read_video(Path(video["value"]))
    assert (round(fps, 1), len(frames), frames[0].shape) == (12.5, 5, (240, 320, 3))
    assert counts["data"][0][:2] == ["white", 5] and summary == "**5 objects** in 5 frames"


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("empty.jpg", b"", "empty.jpg"),
        ("broken.jpg", b"not an image", "broken.jpg"),
        ("text.txt", b"hello", "Invalid file type"),
        ("large.jpg", bytes(1 << 21), "maximum file size"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_clear_line(client, page, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    for tile in (0, 320):
        with pytest.raises(Exception, match=message) as error:
            ask(client, tmp_path / name, tile=tile)
        assert str(page[1]) not in str(error.value)


def test_the_page_loads_nothing_from_elsewhere_and_keeps_its_files_in_its_folder(page, client, full_image):
    with urlopen(page[0]) as answer:
        html, policy = answer.read().decode(), answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'") and "http" not in policy
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=.?(?:https?:)?//(?!127\.0\.0\.1)", html)
    ask(client, full_image)
    assert any(page[1].rglob("forest.png"))


def test_a_port_that_is_taken_is_one_clear_line(page, finder, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(page[1]))
    port = int(page[0].split(":")[2][:-1])
    with pytest.raises(UserError, match="choose another --port"):
        demo.serve(Detector("stub.pt", device="cpu"), "stub.pt", port, 1, page[1])


def test_a_file_that_was_deleted_meanwhile_is_one_clear_line(finder, tmp_path):
    detector = Detector("stub.pt", device="cpu")
    with pytest.raises(UserError, match="drop it again"):
        demo.detect_file(detector, tmp_path / "gone.jpg", 0.25, 0.45, 0, tmp_path)


def test_a_large_image_is_reduced_before_it_is_drawn(finder, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SHOWN_SIDE", 160)
    file = save(tmp_path / "a.png", draw_image((40, 60, 70, 90)))
    result = demo.detect_file(Detector("stub.pt", device="cpu"), file, 0.25, 0.45, 0, tmp_path)
    assert result.image is not None and result.image.shape == (120, 160, 3)
    assert result.counts == [["white", 1, 30.0]], "sizes are those of the file"


@pytest.mark.parametrize(
    "tile, size, message",
    [(1, (40, 40), "from 32"), (32, (900, 900), "1,225 tiles of 32 px in 900 x 900 px are too many")],
)
def test_tiles_that_would_keep_everybody_waiting_are_refused_at_once(finder, tmp_path, tile, size, message):
    detector = Detector("stub.pt", device="cpu")
    with pytest.raises(UserError, match=message):
        demo.detect_file(
            detector, save(tmp_path / "a.png", draw_image(size=size)), 0.25, 0.45, tile, tmp_path
        )
    video = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, size[::-1])
    writer.write(draw_image(size=size))
    writer.release()
    with pytest.raises(UserError, match=message):
        demo.detect_file(detector, video, 0.25, 0.45, tile, tmp_path)
    assert finder.shapes == []


def test_videos_of_a_pixel_and_strips_come_back(finder, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "SHOWN_SIDE", 160)
    for width, height in ((1, 1), (640, 1), (1, 640)):
        video = tmp_path / f"{width}x{height}.avi"
        writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, (width, height))
        writer.write(np.full((height, width, 3), 90, np.uint8))
        writer.release()
        result = demo.detect_file(Detector("stub.pt", device="cpu"), video, 0.25, 0.45, 0, tmp_path)
        assert result.video is not None
        [frame] = read_video(Path(result.video))[1]
        assert max(frame.shape[:2]) == min(max(width, height, 16), 160) and min(frame.shape[:2]) == 16


def ask_for(page, path: str, **headers: str) -> tuple[int, str]:
    """Status and body of a request with these headers, `Host` among them."""
    connection = HTTPConnection(demo.HOST, int(page[0].split(":")[2][:-1]), timeout=20)
    try:
        connection.request("POST" if path.endswith("upload") else "GET", path, body=b"", headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/info", "/gradio_api/upload"])
def test_a_name_that_leads_here_is_no_way_in(page, path):
    port = page[0].split(":")[2][:-1]
    for host in (f"evil.example:{port}", "evil.example", f"{demo.HOST}:{port}.evil.example", demo.HOST, ""):
        assert ask_for(page, path, Host=host) == (403, "this page answers its own address only\n")


def test_the_page_answers_under_both_of_its_names(page):
    port = page[0].split(":")[2][:-1]
    for name in (demo.HOST, "localhost"):
        own = {"Host": f"{name}:{port}", "Origin": f"http://{name}:{port}"}
        assert ask_for(page, "/config", **own)[0] == 200


def test_pages_of_other_sites_cannot_upload(page):
    host = page[0][len("http://") : -1]
    for origin in ("http://evil.example", f"https://{host}", f"http://{demo.HOST}", "null"):
        assert ask_for(page, "/gradio_api/upload", Host=host, Origin=origin)[0] == 403
    own = ask_for(page, "/gradio_api/upload", Host=host, Origin=f"http://{host}")
    assert own[0] not in (200, 403), "refused for its empty body, not for where it comes from"


def test_what_the_command_says_is_logged_and_quiet_leaves_the_address(finder, monkeypatch, tmp_path, capsys):
    class Page:
        def close(self, verbose: bool) -> None: ...

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "serve", lambda *args: Page())
    monkeypatch.setattr(demo.signal, "pause", interrupt)
    monkeypatch.setattr(demo.signal, "signal", lambda *args: None)
    assert demo.main(demo.DemoConfig(weights=Path("best.pt"), device="cpu")) == 0
    said = capsys.readouterr()
    assert said.out == "best.pt: open http://127.0.0.1:7860 (Ctrl-C ends it)\n"
    assert said.err == "the page is closed, its files are deleted\n"
    assert parse(demo.DemoConfig, ["--quiet"]).log.quiet


def test_without_gradio_the_command_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install"):
        demo.main(demo.DemoConfig(weights=Path("best.pt")))


def test_importing_the_page_imports_nothing_heavy():
    import subprocess

    code = "import sys, tools.demo; sys.exit(bool({'torch', 'numpy', 'gradio', 'cv2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
