"""The licenses of the packages that this project needs, from the installed packages' own metadata.

python -m tools.licenses > docs/licenses.md
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = {
    "requirements.txt": "Needed by every command",
    "requirements-ray.txt": "Needed by `--ray` and `--tune`",
    "requirements-dev.txt": "Needed by tests and checks",
}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
LONGEST = 200  # characters; some packages put the whole text where its name belongs


def required(file: Path) -> list[str]:
    """Return the packages that a requirements file names itself, not those of files that it includes."""
    lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [match[0] for line in lines if (match := NAME.match(line))]


def license_of(package: str) -> str:
    """Return what an installed package says its license is."""
    about = metadata.metadata(package)
    classifiers = [
        text.rpartition(" :: ")[2] for text in about.get_all("Classifier") or [] if "License ::" in text
    ]
    written = [about["License-Expression"], *classifiers, (about["License"] or "").strip()]
    lines = [text.splitlines()[0] for text in written if text]
    return next((line for line in lines if len(line) <= LONGEST), "not said in its metadata")


def table() -> str:
    """Return the page."""
    parts = ["# Licenses of what is needed\n\nMade by `python -m tools.licenses > docs/licenses.md`.\n"]
    for name, title in FILES.items():
        parts.append(f"\n## {title}: `{name}`\n\n| package | license |\n|---|---|\n")
        for package in required(ROOT / name):
            try:
                parts.append(f"| {package} | {license_of(package)} |\n")
            except metadata.PackageNotFoundError:
                parts.append(f"| {package} | not installed here |\n")
    return "".join(parts)


if __name__ == "__main__":
    print(table(), end="")
