"""benchmarks/gpu.sh keeps what is measured and goes on; the parts that need no GPU run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from benchmarks.gpu import GpuBenchmark, main

SCRIPT = Path("benchmarks/gpu.sh").resolve()


def run_script(folder: Path, tools: Path) -> subprocess.CompletedProcess[str]:
    paths = f"{tools}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", str(SCRIPT), str(folder)], env={**os.environ, "PATH": paths}, capture_output=True, text=True
    )


def test_a_part_that_fails_is_named_and_measured_the_next_time_and_no_other(tmp_path):
    tools, folder, calls = tmp_path / "tools", tmp_path / "tables", tmp_path / "calls"
    tools.mkdir()
    fake = tools / "python"
    fake.write_text(
        f'#!/bin/sh\necho "$*" >> {calls}\n'
        f'case "$*" in *spectral*) [ -e {tmp_path}/works ] || '
        '{ echo "no memory left" >&2; exit 2; };; esac\n'
        'echo "| a | table |"\n'
    )
    smi = tools / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho utilization\necho 40, 1, 2, 3\necho 60, 1, 2, 3\nexec sleep 60\n")
    for tool in (fake, smi):
        tool.chmod(0o755)
    first = run_script(folder, tools)
    assert first.returncode == 1 and "not measured: spectral (code 2: no memory left)" in first.stderr
    assert len(calls.read_text().splitlines()) == 8
    assert {file.stem for file in folder.glob("*.md")} == {
        "steps", "nms", "tensorrt", "spd", "loader", "step", "epoch",
    }  # fmt: skip
    text = (folder / "steps.md").read_text()
    assert text.startswith("`python -m benchmarks.gpu --part steps --device 0`")
    assert "| a | table |" in text

    (tmp_path / "works").touch()
    second = run_script(folder, tools)
    assert second.returncode == 0, second.stderr
    assert len(calls.read_text().splitlines()) == 9 and (folder / "spectral.md").exists()


def test_suppression_is_timed_on_any_device(capsys):
    assert main(GpuBenchmark(part="nms", device="cpu", quick=True)) == 0
    assert "| 1 | " in capsys.readouterr().out
