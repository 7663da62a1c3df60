"""What holds of every client: short, and alike."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CLIENTS = sorted(Path("examples").glob("*/detect.*"))
COMMENTS = re.compile(r'"""[\s\S]*?"""|/\*\*[\s\S]*?\*/|^\s*(?://|#(?!include)).*$', re.MULTILINE)


def test_there_are_four():
    folders = [file.parent.name for file in CLIENTS]
    assert folders == ["browser", "onnxruntime_cpp", "onnxruntime_python", "opencv_python"]


@pytest.mark.parametrize("file", CLIENTS, ids=lambda file: file.parent.name)
def test_a_client_has_less_than_100_lines_of_code(file):
    code = COMMENTS.sub("", file.read_text())
    assert 50 < sum(bool(line.strip()) for line in code.splitlines()) < 100


@pytest.mark.parametrize("file", CLIENTS, ids=lambda file: file.parent.name)
def test_a_client_has_the_functions_of_the_others_in_their_order(file):
    names = ["tile_starts", "letterbox", "decode", "suppress", "detect"]
    if file.suffix == ".js":
        names[0] = "tileStarts"
    defined = re.compile(rf"(?:def|function|Input|std::vector<\w+>) ({'|'.join(names)})\(")
    assert defined.findall(file.read_text()) == names


@pytest.mark.parametrize("file", CLIENTS, ids=lambda file: file.parent.name)
def test_the_readme_shows_how_to_run_it(file):
    assert f"{file.parent.name}/" in Path("examples/README.md").read_text()
