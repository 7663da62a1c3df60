"""Check a data set and say what it means for small objects: python -m tools.doctor --data X.

python -m tools.doctor                                       # the tree crowns that ship
python -m tools.doctor --data mine.yaml --imgsz 640 --cfg yolov5s-spd
python -m tools.doctor --data visdrone.yaml --weights best.pt --split train --no-similar

Exit code 1: something is broken (images, labels, or the same image in two splits); 0: nothing is; 2: bad
input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from utils.cli import run
from utils.errors import UserError
from utils.options import Options, opt

if TYPE_CHECKING:
    import numpy as np

    from data.checkup.advice import Facts
    from data.dataset_yaml import DatasetConfig
    from data.detection.records import Survey

DEFAULT_MODEL = "yolov5n-spd"
LISTED = 10  # faults of a kind that are listed; more are counted


@dataclass(frozen=True)
class DoctorConfig(Options):
    """Check a data set and say what it means for small objects."""

    data: Path = opt("data/treecrowns.yaml", "data-set YAML, or the name of one that ships")
    split: Literal["train", "val", "test"] | None = opt(None, "look at this split only (default: at all)")
    imgsz: int | None = opt(
        None, "input side, px (default: the data's recipe, or 640)", "--img", "--img-size", min=32
    )
    weights: Path | None = opt(None, "take anchors and strides from this checkpoint")
    cfg: str = opt(DEFAULT_MODEL, "or from this architecture")
    similar: bool = opt(True, "decode every image, to find copies that were encoded or scaled anew")
    plots: bool = opt(True, "draw sizes, anchors, classes and crowding")
    list_all: bool = opt(False, f"list all faults, not the first {LISTED} of a kind")
    project: Path = opt("runs/doctor", "folder of runs")
    name: str = opt("exp", "name of this run")
    exist_ok: bool = opt(False, "write into an existing run folder")


def main(cfg: DoctorConfig) -> int:
    """Examine, print, draw; return 1 if something is broken."""
    from data.checkup.advice import advise
    from data.checkup.files import examine_files
    from data.checkup.plots import plot_facts
    from data.dataset_yaml import read_dataset_yaml
    from data.detection.records import survey_records
    from utils.run_folders import make_run_folder

    description = read_dataset_yaml(cfg.data)
    if cfg.split and cfg.split not in description.splits:
        raise UserError(f"{description.file}: no key '{cfg.split}'; it has {', '.join(description.splits)}")
    strides, anchors = read_levels(cfg)
    imgsz = cfg.imgsz or description.recipe.get("imgsz", 640)
    splits = [cfg.split] if cfg.split else list(description.splits)
    surveys = {split: survey_records(description, split) for split in splits}
    report = examine_files(description, surveys, cfg.similar)
    facts = {
        split: gather_facts(found, description, imgsz, strides, anchors)
        for split, found in surveys.items()
        if found.records
    }
    print(f"{description.file}: at {imgsz} px, with the anchors and strides of {cfg.weights or cfg.cfg}\n")
    print_table(surveys, facts)
    print_lines(report.remarks, cfg.list_all)
    about = facts.get("train") or next(iter(facts.values()), None)
    if about is not None and len(about.sizes.in_file):
        print_advice(advise(about))
        if cfg.plots:
            png = make_run_folder(cfg.project, cfg.name, cfg.exist_ok) / "sizes.png"
            plot_facts(about, png)
            print(f"\nsizes, anchors, classes: {png}")
    print_lines({f"ERROR: {title}": lines for title, lines in report.errors.items()}, cfg.list_all)
    if not report.errors:
        print("\nno broken images, bad labels or copies across splits")
    return 1 if report.errors else 0


def read_levels(cfg: DoctorConfig) -> tuple[tuple[float, ...], np.ndarray]:
    """Return strides and (k, 2) anchors in pixels of the detector."""
    from models import build_model, load_model
    from models.detection_model import require_detector

    model = load_model(cfg.weights) if cfg.weights else build_model(cfg.cfg)
    head = require_detector(model, cfg.weights or cfg.cfg).head
    anchors = (head.anchors * head.stride.view(-1, 1, 1)).flatten(0, 1).numpy()
    return tuple(head.stride.tolist()), anchors


def gather_facts(
    found: Survey,
    description: DatasetConfig,
    imgsz: int,
    strides: tuple[float, ...],
    anchors: np.ndarray,
) -> Facts:
    """Return what advice on a split is based on."""
    import numpy as np

    from data.checkup.advice import Facts
    from data.checkup.sizes import measure, view_sizes
    from data.detection.tiling import tile_records

    tiling = description.tile
    views = tile_records(found.records, tiling) if tiling else found.records
    return Facts(
        sizes=measure(found.records, tiling, imgsz),
        views=view_sizes(views, imgsz),
        view_counts=np.array([int((~view.crowd).sum()) for view in views]),
        imgsz=imgsz,
        tiling=tiling,
        strides=strides,
        anchors=anchors,
        names=description.names,
    )


def print_table(surveys: Mapping[str, Survey], facts: Mapping[str, Facts]) -> None:
    """Print counts and sizes, a column a split."""
    import numpy as np

    from data.checkup.sizes import histogram, share_small, sides, thin

    def median(sizes: np.ndarray) -> str:
        return f"{np.median(sides(sizes)):.1f}" if len(sizes) else "-"

    def percent(sizes: np.ndarray, of: Callable[[np.ndarray], float]) -> str:
        return f"{of(sizes):.1%}" if len(sizes) else "-"

    rows: list[tuple[str, Callable[[str], object]]] = [
        ("images", lambda s: len(surveys[s].records)),
        ("  tiles", lambda s: len(facts[s].view_counts) if facts[s].tiling else "-"),
        ("  without objects", lambda s: int((facts[s].sizes.per_image == 0).sum())),
        ("objects", lambda s: len(facts[s].sizes.in_file)),
        ("  most in an image", lambda s: int(facts[s].sizes.per_image.max())),
        ("boxes and regions to ignore", lambda s: _ignored(surveys[s])),
        ("median side in the file, px", lambda s: median(facts[s].sizes.in_file)),
        ("  at the input, px", lambda s: median(facts[s].sizes.at_input)),
        ("COCO-small in the file", lambda s: percent(facts[s].sizes.in_file, share_small)),
        ("  at the input", lambda s: percent(facts[s].sizes.at_input, share_small)),
        (
            "best possible recall of anchors",
            lambda s: f"{facts[s].recall:.1%}" if len(facts[s].views) else "-",
        ),
        ("under 3 px at the input", lambda s: int(thin(facts[s].sizes.at_input).sum())),
    ]
    bands = ("side under 4 px at the input", "  4 to 8", "  8 to 16", "  16 to 32", "  from 32")
    for number, title in enumerate(bands):
        rows.append((title, lambda s, n=number: int(histogram(facts[s].sizes.at_input)[n])))  # type: ignore[misc]
    print(f"{'':32}" + "".join(f"{split:>12}" for split in facts))
    for title, value in rows:
        cells = [value(split) for split in facts]
        shown = [f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells]
        print(f"{title:32}" + "".join(f"{cell:>12}" for cell in shown))


def _ignored(found: Survey) -> int:
    return sum(int(record.crowd.sum()) + len(record.ignore) for record in found.records)


def print_lines(kinds: Mapping[str, list[str]], list_all: bool) -> None:
    """Print each title with its lines, as many as are to be listed."""
    for title, lines in kinds.items():
        print(f"\n{title}: {len(lines):,}")
        shown = lines if list_all else lines[:LISTED]
        for line in shown:
            print(f"  {line}")
        if len(shown) < len(lines):
            print(f"  ... and {len(lines) - len(shown):,} more; --list-all lists them")


def print_advice(sentences: list[str]) -> None:
    """Print numbered advice."""
    import textwrap

    print("\nadvice" if sentences else "\nadvice: none; sizes, anchors and input suit each other")
    for number, sentence in enumerate(sentences, 1):
        print(textwrap.fill(sentence, 100, initial_indent=f"{number:>2}. ", subsequent_indent="    "))


if __name__ == "__main__":
    run(DoctorConfig, main)
