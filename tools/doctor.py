"""Check a data set, and what it means for small objects: python -m tools.doctor --data X.

python -m tools.doctor                                       # the tree crowns that ship
python -m tools.doctor --data mine.yaml --imgsz 640 --cfg yolov5s-spd
python -m tools.doctor --data visdrone.yaml --weights best.pt --split train --no-similar

Exit code 1: something is wrong (broken images, bad labels, or the same image in two splits); 0: nothing is;
2: bad input.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from utils.cli import run
from utils.errors import UserError
from utils.log import RESULT, LogOptions
from utils.options import Options, group, opt

if TYPE_CHECKING:
    import numpy as np

    from data.checkup.advice import Facts
    from data.dataset_yaml import DatasetConfig
    from data.detection.records import Survey

LOG = logging.getLogger(__name__)
DEFAULT_MODEL = "yolov5n-spd"
LISTED = 10  # lines of a kind that are listed; the others are counted


@dataclass(frozen=True)
class DoctorConfig(Options):
    """Check a data set, and what it means for small objects."""

    data: Path = opt("data/treecrowns.yaml", "data-set YAML, or the name of one that ships")
    split: Literal["train", "val", "test"] | None = opt(None, "examine this split only (default: all)")
    imgsz: int | None = opt(
        None, "input side, px (default: the data's recipe, or 640)", "--img", "--img-size", min=32
    )
    weights: Path | None = opt(None, "take anchors and strides from this checkpoint")
    cfg: str = opt(DEFAULT_MODEL, "or from this architecture")
    similar: bool = opt(
        True,
        "decode every image, to find copies that were encoded or resized again",
        off_help="find exact copies only, without decoding every image",
    )
    plots: bool = opt(True, "draw sizes, anchors, classes and crowding")
    list_all: bool = opt(False, f"list all lines, not only the first {LISTED} of a kind")
    project: Path = opt("runs/doctor", "folder of runs")
    name: str = opt("exp", "name of this run")
    exist_ok: bool = opt(False, "write into an existing run folder")
    log: LogOptions = group(LogOptions)


def main(cfg: DoctorConfig) -> int:
    """Examine, report and draw; return 1 if something is wrong."""
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
        split: gather_facts(survey, description, imgsz, strides, anchors)
        for split, survey in surveys.items()
        if survey.records
    }
    model, known = cfg.weights or cfg.cfg, "anchors and strides" if len(anchors) else "strides"
    LOG.log(RESULT, f"{description.file}: at {imgsz} px, with the {known} of {model}\n")
    LOG.log(RESULT, table(surveys, facts))
    if report.remarks:
        LOG.log(RESULT, listing(report.remarks, cfg.list_all))
    about = facts.get("train") or next(iter(facts.values()), None)
    if about is not None and len(about.sizes.in_file):
        LOG.log(RESULT, numbered_advice(advise(about)))
        if cfg.plots:
            png = make_run_folder(cfg.project, cfg.name, cfg.exist_ok) / "sizes.png"
            plot_facts(about, png)
            LOG.log(RESULT, f"\nsizes, anchors, classes: {png}")
    errors = {f"ERROR: {title}": lines for title, lines in report.errors.items()}
    sound = "\nno broken images, bad labels or copies across splits"
    LOG.log(RESULT, listing(errors, cfg.list_all) if errors else sound)
    return 1 if errors else 0


def read_levels(cfg: DoctorConfig) -> tuple[tuple[float, ...], np.ndarray]:
    """Return the detector's strides and its anchors (k, 2), pixels; none of an anchor-free detector."""
    import numpy as np

    from models import build_model, load_model
    from models.detection_model import require_detector

    model = load_model(cfg.weights) if cfg.weights else build_model(cfg.cfg)
    detector = require_detector(model, cfg.weights or cfg.cfg)
    strides, head = tuple(detector.stride.tolist()), detector.anchor_head
    if head is None:
        return strides, np.zeros((0, 2))
    return strides, (head.anchors * head.stride.view(-1, 1, 1)).flatten(0, 1).numpy()


def gather_facts(
    survey: Survey,
    description: DatasetConfig,
    imgsz: int,
    strides: tuple[float, ...],
    anchors: np.ndarray,
) -> Facts:
    """Return what advice on a split is based on."""
    import numpy as np

    from data.checkup.advice import Facts
    from data.checkup.sizes import measure, trained_sizes
    from data.tiling import tile_records

    tiling = description.tile
    tiles = tile_records(survey.records, tiling) if tiling else survey.records
    return Facts(
        sizes=measure(survey.records, tiling, imgsz),
        trained_sizes=trained_sizes(tiles, imgsz),
        counts=np.array([int((~tile.crowd).sum()) for tile in tiles]),
        imgsz=imgsz,
        tiling=tiling,
        strides=strides,
        anchors=anchors,
        names=description.names,
    )


def table(surveys: Mapping[str, Survey], facts: Mapping[str, Facts]) -> str:
    """Return counts and sizes as text, with a column for each split."""
    import numpy as np

    from data.checkup.sizes import histogram, share_small, sides, thin

    def median(sizes: np.ndarray) -> str:
        return f"{np.median(sides(sizes)):.1f}" if len(sizes) else "-"

    def percent(sizes: np.ndarray, of: Callable[[np.ndarray], float]) -> str:
        return f"{of(sizes):.1%}" if len(sizes) else "-"

    rows: list[tuple[str, Callable[[str], object]]] = [
        ("images", lambda s: len(surveys[s].records)),
        ("  tiles", lambda s: len(facts[s].counts) if facts[s].tiling else "-"),
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
            lambda s: (
                f"{facts[s].recall:.1%}" if len(facts[s].trained_sizes) and len(facts[s].anchors) else "-"
            ),
        ),
        ("under 3 px at the input", lambda s: int(thin(facts[s].sizes.at_input).sum())),
    ]
    bands = ("side under 4 px at the input", "  4 to 8", "  8 to 16", "  16 to 32", "  from 32")
    for number, title in enumerate(bands):
        rows.append((title, lambda s, n=number: int(histogram(facts[s].sizes.at_input)[n])))  # type: ignore[misc]
    lines = [f"{'':32}" + "".join(f"{split:>12}" for split in facts)]
    for title, value in rows:
        cells = [value(split) for split in facts]
        shown = [f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells]
        lines.append(f"{title:32}" + "".join(f"{cell:>12}" for cell in shown))
    return "\n".join(lines)


def _ignored(survey: Survey) -> int:
    return sum(int(record.crowd.sum()) + len(record.ignore) for record in survey.records)


def listing(kinds: Mapping[str, list[str]], list_all: bool) -> str:
    """Return each title with its lines, or the first of them, as text."""
    text: list[str] = []
    for title, lines in kinds.items():
        shown = lines if list_all else lines[:LISTED]
        text += [f"\n{title}: {len(lines):,}", *(f"  {line}" for line in shown)]
        if len(shown) < len(lines):
            text.append(f"  ... and {len(lines) - len(shown):,} more; --list-all lists them")
    return "\n".join(text)


def numbered_advice(sentences: list[str]) -> str:
    """Return advice as numbered paragraphs."""
    import textwrap

    if not sentences:
        return "\nadvice: none; sizes, anchors and input suit each other"
    paragraphs = [
        textwrap.fill(sentence, 100, initial_indent=f"{number:>2}. ", subsequent_indent="    ")
        for number, sentence in enumerate(sentences, 1)
    ]
    return "\n".join(["\nadvice", *paragraphs])


if __name__ == "__main__":
    run(DoctorConfig, main)
