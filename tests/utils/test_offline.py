from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from models import build_model
from models.checkpoint import save_checkpoint
from models.load import to_checkpoint
from utils.offline import ENVIRONMENT, keep_offline

PROJECT = Path(__file__).parents[2]
# Runs in the command's process before anything else: forbids the network and other programs, notes new files.
WATCH = """
import os, sys
log = open(os.environ["WATCH_LOG"], "a", buffering=1)
def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        address = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[0]
        host = address[0] if isinstance(address, tuple) else address
        if str(host) not in ("127.0.0.1", "::1", "localhost", "None"):
            log.write(f"network {event} {host}\\n")
            raise PermissionError("no network")
    elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
        log.write(f"program {arguments[0]} {arguments[1] if len(arguments) > 1 else ''}\\n")
    elif event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        log.write(f"file {arguments[0]}\\n")
sys.addaudithook(watch)
"""


def test_variables_of_the_user_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "online")
    keep_offline()
    assert {name: os.environ[name] for name in ENVIRONMENT} == {**ENVIRONMENT, "WANDB_MODE": "online"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import cv2

    place = tmp_path_factory.mktemp("offline")
    for part in ("data/images", "data/labels", "home", "watch", "weights"):
        (place / part).mkdir(parents=True)
    (place / "watch" / "sitecustomize.py").write_text(WATCH)
    for number in range(2):
        image = np.full((64, 64, 3), 90, np.uint8)
        image[16:32, 16:32] = 255
        cv2.imwrite(str(place / f"data/images/{number}.png"), image)
        (place / f"data/labels/{number}.txt").write_text("0 .375 .375 .25 .25")
    data = {"path": str(place / "data"), "train": "images", "val": "images", "names": ["a"]}
    (place / "data" / "set.yaml").write_text(yaml.safe_dump(data))
    save_checkpoint(place / "weights" / "w.pt", to_checkpoint(build_model("yolov5n", 1)))
    return place


COMMANDS = {
    "train": "train.py --data {p}/data/set.yaml --cfg yolov5n --imgsz 64 --epochs 1 --batch-size 2 "
    "--workers 0 --project {p}/run",
    "val": "val.py --weights {p}/weights/w.pt --data {p}/data/set.yaml --imgsz 64 --workers 0 "
    "--project {p}/run",
    "detect": "detect.py --weights {p}/weights/w.pt --source {p}/data/images --imgsz 64 --project {p}/run",
    "export": "export.py --weights {p}/weights/w.pt --imgsz 64 --include onnx openvino torchscript",
    "doctor": "-m tools.doctor --data {p}/data/set.yaml",
}
STARTED = ("program fc-list ", "program /sbin/ldconfig ")  # by matplotlib, and by torch for CUDA
DECLARED = (  # see docs/limits.md
    "{p}/run/",
    "{p}/weights/",
    "{p}/data/set-",
    "{p}/data/.set-",
    "{p}/home/.config/Ultralytics",
    "{p}/home/.config/matplotlib",
    "{p}/home/.cache/matplotlib",
    "{p}/tmp/",
    "/dev/",
)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_uses_no_network_starts_no_program_and_writes_only_declared_files(
    place: Path, name: str
) -> None:
    log = place / f"{name}.log"
    (place / "tmp").mkdir(exist_ok=True)
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "MPL", "YOLO"))
    }
    environment |= {
        "HOME": str(place / "home"),
        "TMPDIR": str(place / "tmp"),
        "PYTHONPATH": str(place / "watch"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "WATCH_LOG": str(log),
    }
    command = [sys.executable, *COMMANDS[name].format(p=place).split()]
    result = subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode in (0, 1), result.stderr[-2000:]
    events = [line for line in log.read_text().splitlines() if line.strip()]
    assert events, "nothing was watched"
    assert not [event for event in events if event.startswith("network")]
    programs = [event for event in events if event.startswith("program")]
    assert not [program for program in programs if not program.startswith(STARTED)]
    written = [event.removeprefix("file ") for event in events if event.startswith("file /")]
    declared = tuple(prefix.format(p=place) for prefix in DECLARED)
    assert not [file for file in written if not file.startswith(declared)]
    left = [str(file) for file in (place / "home").rglob("*") if file.is_file()]
    assert not [file for file in left if not file.startswith(declared)]
