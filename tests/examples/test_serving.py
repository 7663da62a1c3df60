"""The servers of docs/serving.md: their code as it stands there, run by the package where it is installed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from engine.inference.detector import Detector

BLOCKS = re.findall(r"```python\n(.*?)```", Path("docs/serving.md").read_text(encoding="utf-8"), re.DOTALL)
CODE = {name: block for block in BLOCKS for name in ("bentoml", "litserve") if f"import {name}\n" in block}
WEIGHTS = Path("weights/treecrowns.pt").resolve()


def test_a_server_takes_ten_lines():
    for block in CODE.values():
        lines = [line for line in block.splitlines() if line.strip() and "import" not in line]
        assert len(lines) <= 10


@pytest.fixture
def server(request, case, tmp_path, monkeypatch) -> str:
    """The code of one server, with the path of the weights."""
    monkeypatch.chdir(tmp_path)
    return CODE[request.param].replace("best.pt", str(WEIGHTS))


def expected(image: Path) -> np.ndarray:
    return Detector(WEIGHTS, device="cpu")(image, tile="auto")[0].boxes.data.numpy()


@pytest.mark.parametrize("server", ["bentoml"], indirect=True)
def test_the_service_of_bentoml_detects(server, case, monkeypatch):
    same = SimpleNamespace(service=lambda function: function, api=lambda function: function)
    monkeypatch.setitem(sys.modules, "bentoml", same)
    space: dict[str, type] = {}
    exec(server, space)
    np.testing.assert_allclose(
        space["Detection"]().detect(Image.open(case.image)), expected(case.image), atol=1e-3
    )


@pytest.mark.parametrize("server", ["litserve"], indirect=True)
def test_the_api_of_litserve_detects(server, case, monkeypatch):
    stand_in = ModuleType("litserve")
    stand_in.LitAPI = object
    monkeypatch.setitem(sys.modules, "litserve", stand_in)
    space: dict[str, Callable] = {"__name__": "server"}
    exec(server, space)
    api = space["Detection"]()
    api.setup("cpu")
    with case.image.open("rb") as file:
        answer = api.predict({"image": SimpleNamespace(file=file)})
    np.testing.assert_allclose(answer, expected(case.image), atol=1e-3)


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def started(tmp_path) -> Iterator[Callable[[list[str]], None]]:
    """Start a server in a process group of its own, which ends with the test."""
    processes = []

    def start(command: list[str]) -> None:
        environment = os.environ | {
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "BENTOML_DO_NOT_TRACK": "1",
            "BENTOML_HOME": str(tmp_path),
        }
        log = (tmp_path / "log").open("w")
        processes.append(
            subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        )

    yield start
    for process in processes:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def ask(address: str, image: Path, seconds: float = 60) -> np.ndarray:
    """Send an image as a form does, as soon as the server answers."""
    head = b'Content-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png'
    body = b"--x\r\n" + head + b"\r\n\r\n" + image.read_bytes() + b"\r\n--x--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    request = urllib.request.Request(address, body, headers)
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(request, timeout=seconds) as answer:
                return np.array(json.load(answer))
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


@pytest.mark.skipif(find_spec("bentoml") is None, reason="pip install bentoml")
@pytest.mark.parametrize("server", ["bentoml"], indirect=True)
def test_bentoml_serves_it(server, case, port, started):
    Path("service.py").write_text(server)
    arguments = ["serve", "service:Detection", "--host", "127.0.0.1", "--port", str(port)]
    started([sys.executable, "-m", "bentoml", *arguments])
    np.testing.assert_allclose(
        ask(f"http://127.0.0.1:{port}/detect", case.image), expected(case.image), atol=1e-3
    )


@pytest.mark.skipif(find_spec("litserve") is None, reason="pip install litserve")
@pytest.mark.parametrize("server", ["litserve"], indirect=True)
def test_litserve_serves_it(server, case, port, started):
    Path("server.py").write_text(server.replace("port=8000", f"port={port}"))
    started([sys.executable, "server.py"])
    np.testing.assert_allclose(
        ask(f"http://127.0.0.1:{port}/predict", case.image), expected(case.image), atol=1e-3
    )


def test_tritons_client_takes_the_place_of_the_network_of_an_example(monkeypatch):
    sent = []

    class Client:
        def __init__(self, url: str):
            sent.append(url)

        def infer(self, name: str, inputs: list) -> SimpleNamespace:
            sent.extend((name, *inputs))
            return SimpleNamespace(as_numpy=lambda output: {"output0": np.ones((1, 7, 6))}[output])

    class Input:
        def __init__(self, name: str, shape: tuple[int, ...], kind: str):
            self.told = (name, tuple(shape), kind)

        def set_data_from_numpy(self, images: np.ndarray) -> None:
            assert (self.told[1], images.dtype) == (images.shape, np.float32)

    http = SimpleNamespace(InferenceServerClient=Client, InferInput=Input)
    monkeypatch.setitem(sys.modules, "tritonclient", SimpleNamespace(http=http))
    monkeypatch.setitem(sys.modules, "tritonclient.http", http)
    (block,) = [block for block in BLOCKS if "tritonclient" in block]
    space = {"np": np}
    exec(block, space)
    output = space["Network"]("127.0.0.1:8000", "best", 64, 96)(np.zeros((1, 3, 64, 96), np.float32))
    assert output.shape == (7, 6)
    assert sent[:2] == ["127.0.0.1:8000", "best"] and sent[2].told == ("images", (1, 3, 64, 96), "FP32")
