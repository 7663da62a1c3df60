"""The clients in Python, which run wherever the tests do."""

from __future__ import annotations

import ast
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

EXAMPLES = Path("examples")
CLIENTS = {"onnxruntime_python": {"onnxruntime"}, "opencv_python": set()}


def run(monkeypatch, client: str, *arguments: object) -> None:
    file = EXAMPLES / client / "detect.py"
    monkeypatch.setattr(sys, "argv", [str(file), *map(str, arguments)])
    runpy.run_path(str(file), run_name="__main__")


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_gives_the_boxes_of_detect_py(client, case, options, flags, agree, monkeypatch, capsys):
    size = ["--imgsz=256"] if client == "opencv_python" else []
    run(monkeypatch, client, case.weights, case.image, *flags(options), *size)
    agree(capsys.readouterr().out, case.expected(**options))


def test_the_boxes_are_drawn(case, monkeypatch, capsys, tmp_path):
    out = tmp_path / "boxes.png"
    run(monkeypatch, "onnxruntime_python", case.weights, case.image, "--tile=416", f"--out={out}")
    before, after = cv2.imread(str(case.image)), cv2.imread(str(out))
    changed = (before != after).any(2)
    for x1, y1, _, y2 in case.expected(tile=416)[:, :4].round().astype(int):
        middle = (min((y1 + y2) // 2, before.shape[0] - 1), min(x1, before.shape[1] - 1))
        assert changed[middle] or (before[middle] == (0, 0, 255)).all()
    assert 0 < changed.mean() < 0.3


@pytest.mark.parametrize("client", CLIENTS)
def test_a_file_that_is_no_image_is_told(client, case, monkeypatch, capsys):
    with pytest.raises(SystemExit) as exit:
        run(monkeypatch, client, case.weights, case.weights)
    assert exit.value.code == 2
    assert f"{case.weights}: no image" in capsys.readouterr().err


@pytest.mark.parametrize(("client", "runtime"), CLIENTS.items())
def test_a_client_imports_nothing_of_this_project_and_no_torch(client, runtime):
    tree = ast.parse((EXAMPLES / client / "detect.py").read_text())
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules == {"__future__", "argparse", "math", "cv2", "numpy"} | runtime


def test_the_clients_in_python_differ_in_the_runtime_alone():
    sources = [(EXAMPLES / client / "detect.py").read_text() for client in CLIENTS]
    functions = [
        {node.name: ast.unparse(node) for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
        for source in sources
    ]
    shared = ["tile_starts", "letterbox", "decode", "suppress", "detect"]
    assert [functions[0][name] for name in shared] == [functions[1][name] for name in shared]


def test_boxes_of_different_classes_do_not_suppress_each_other():
    client = runpy.run_path(str(EXAMPLES / "onnxruntime_python" / "detect.py"))
    boxes = np.array([[0, 0, 9, 9, 0.5, 0], [0, 0, 9, 9, 0.9, 1], [0, 1, 9, 9, 0.8, 1.0]])
    assert client["suppress"](boxes, 0.5).tolist() == [boxes[1].tolist(), boxes[0].tolist()]
