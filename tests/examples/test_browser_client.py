"""The page in a real browser, with onnxruntime-web from npm; it asks nobody but its own server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest

from tests.browser import CHROMIUM, Browser

SIZE = 256  # of the input, pixels
PAGE = Path("examples/browser")

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="the page is tested in Chromium"),
    pytest.mark.skipif(
        not (PAGE / "node_modules" / "onnxruntime-web").is_dir(),
        reason="the page needs onnxruntime-web: npm install in examples/browser",
    ),
]


class Handler(SimpleHTTPRequestHandler):
    extensions_map: ClassVar = {".html": "text/html", ".mjs": "text/javascript", ".js": "text/javascript"}

    def log_message(self, *arguments: object) -> None:
        """Stay quiet."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=PAGE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        browser.call("Page.navigate", url=f"http://127.0.0.1:{server.server_port}/")
        browser.wait_for("document.readyState == 'complete'")
        yield browser
        assert {url.split("/")[2] for url in browser.requests} == {f"127.0.0.1:{server.server_port}"}
    server.shutdown()
    server.server_close()


def detect(browser: Browser, weights: Path, image: Path, **options: float) -> str:
    """Fill in the form, press the button and return what the page says."""
    browser.drop("[name=weights]", weights)
    browser.drop("[name=image]", image)
    for name, value in {"conf": 0.25, "iou": 0.45, "overlap": 0.2, **options}.items():
        browser.evaluate(f"document.querySelector('[name={name}]').value = {value}")
    browser.evaluate("document.querySelector('button').click()")
    return browser.wait_for("document.querySelector('output').value", 60)


def test_the_page_gives_the_boxes_of_detect_py(browser, case, options, agree):
    expected = case.expected(**options)
    assert detect(browser, case.weights, case.image, **options) == f"{len(expected)} objects"
    grown = 0 < options["tile"] < SIZE  # OpenCV interpolates in fixed point: some pixels differ by 1 of 255
    text = browser.evaluate("document.querySelector('pre').textContent")
    agree(text, expected, scores=5e-3 if grown else 1e-3)


def test_the_boxes_are_drawn_in_red(browser, case, tmp_path):
    detect(browser, case.weights, case.image, tile=416)
    browser.screenshot(tmp_path / "page.png")
    page = cv2.imread(str(tmp_path / "page.png"))
    left, top, width = (
        browser.evaluate(f"document.querySelector('canvas').getBoundingClientRect().{side}")
        for side in ("left", "top", "width")
    )
    scale = width / cv2.imread(str(case.image)).shape[1]
    for box in case.expected(tile=416)[:, :4]:
        x1, y1, _, y2 = (box * scale + np.array([left, top, left, top])).round().astype(int)
        if (y1 + y2) // 2 < page.shape[0]:
            blue, green, red = page[(y1 + y2) // 2, x1 - 1 : x1 + 2].reshape(-1, 3).astype(int).T
            assert ((red > 200) & (blue < 120) & (green < 120)).any()


def test_a_file_that_is_no_network_is_told(browser, case):
    assert "protobuf" in detect(browser, case.image, case.image, tile=416)
