"""requirements.txt names what the commands import, and nothing else."""

from __future__ import annotations

import ast
import sys
from importlib import metadata
from pathlib import Path

from tools.licenses import FILES, license_of, required

ROOT = Path(__file__).resolve().parents[1]
OURS = {"benchmarks", "data", "engine", "models", "tests", "tools", "utils"}
OPTIONAL = {  # imported where they are there, or with a message that says what to install
    *("fsspec", "optuna", "pyarrow", "sqlalchemy"),  # requirements-ray.txt, and what they bring
    *("gradio", "mlflow", "onnxslim", "openvino", "psutil", "ray", "rasterio", "sahi", "tensorboard"),
    *(
        "tensorrt",
        "ncnn",
        "pnnx",
        "coremltools",
        "ai_edge_litert",
        "ai_edge_quantizer",
        "litert_torch",
        "thop",
        "timm",
        "torchvision",
        "wandb",
        "pandas",
        "modelopt",
        "pytorch_wavelets",
    ),
    "starlette",  # of gradio
    "pydantic_core",  # of pydantic
}
NOT_IMPORTED = {"torchvision", "onnxscript", "lap"}  # needed by Ultralytics, torch's exporter, trackers


def imported() -> set[str]:
    """Top-level packages that the code outside tests imports, wherever in a file."""
    names = set()
    files = [*ROOT.glob("*.py"), *(file for room in OURS - {"tests"} for file in (ROOT / room).rglob("*.py"))]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names - OURS - set(sys.stdlib_module_names)


def distributions() -> dict[str, set[str]]:
    """The packages, in lower case, that give a module."""
    return {
        module: {name.lower() for name in names}
        for module, names in metadata.packages_distributions().items()
    }


def test_what_is_imported_is_required_and_what_is_required_is_imported() -> None:
    given, of_module = {name.lower() for name in required(ROOT / "requirements.txt")}, distributions()
    missing = {name for name in imported() - OPTIONAL if not of_module.get(name, {name.lower()}) & given}
    assert not missing, "imported, and not in requirements.txt"
    used = set().union(*(of_module.get(name, {name.lower()}) for name in imported()))
    assert given - used - NOT_IMPORTED == set(), "in requirements.txt, and never imported"


def test_the_page_of_licenses_lists_every_package() -> None:
    page = (ROOT / "docs/licenses.md").read_text(encoding="utf-8")
    for file in FILES:
        for package in required(ROOT / file):
            assert f"| {package} |" in page, "python -m tools.licenses > docs/licenses.md"
    assert license_of("pytest") == "MIT"
