"""The client in C++, built where a compiler, OpenCV and ONNX Runtime's headers are."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path("examples/onnxruntime_cpp")
MISSING = ("OpenCVConfig.cmake", "ONNXRUNTIME_INCLUDE", "ONNXRUNTIME_LIBRARY", "CMAKE_CXX_COMPILER")


@pytest.fixture(scope="module")
def program(onnxruntime_root, tmp_path_factory) -> Path:
    if shutil.which("cmake") is None:
        pytest.skip("the client in C++ is built with cmake")
    build = tmp_path_factory.mktemp("build")
    configure = ["cmake", "-S", SOURCE, "-B", build, f"-DONNXRUNTIME_ROOT={onnxruntime_root}"]
    result = subprocess.run(configure, capture_output=True, text=True, timeout=120)
    missing = [name for name in MISSING if name in result.stderr]
    if result.returncode and missing:
        pytest.skip(f"the client in C++ needs a compiler, OpenCV and ONNX Runtime; not here: {missing}")
    assert not result.returncode, result.stderr
    result = subprocess.run(["cmake", "--build", build], capture_output=True, text=True, timeout=300)
    assert not result.returncode, result.stdout + result.stderr
    assert "warning" not in result.stdout + result.stderr
    return build / "detect"


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=120)


def test_it_gives_the_boxes_of_detect_py(program, case, options, flags, agree, tmp_path):
    out = tmp_path / "boxes.png"
    result = run(program, case.weights, case.image, *flags(options), f"--out={out}")
    assert not result.returncode, result.stderr
    agree(result.stdout, case.expected(**options))
    assert out.stat().st_size


def test_a_file_that_cannot_be_read_is_told(program, case):
    result = run(program, case.weights, case.weights)
    assert result.returncode == 2 and "no image" in result.stderr
    result = run(program, case.image, case.image)
    assert result.returncode == 2 and "forest.png" in result.stderr
