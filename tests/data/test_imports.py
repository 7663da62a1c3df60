from __future__ import annotations

import subprocess
import sys

import pytest


def test_no_module_of_data_imports_itself_in_a_circle() -> None:
    grimp = pytest.importorskip("grimp")  # comes with import-linter
    graph = grimp.build_graph("data", cache_dir=None)  # imports for types and within functions included
    circles = {
        module: sorted(graph.find_downstream_modules(module) & graph.find_upstream_modules(module))
        for module in graph.modules
    }
    assert {module: others for module, others in circles.items() if others} == {}


@pytest.mark.parametrize("tool", ["doctor", "convert"])
def test_help_imports_no_heavy_package(tool: str) -> None:
    code = (
        f"import sys, tools.{tool} as tool\n"
        f"from utils.cli import parse\n"
        f"try: parse(tool.{tool.capitalize()}Config, ['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'torch', 'cv2', 'numpy', 'pydantic', 'yaml'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "--quiet" in run.stdout
