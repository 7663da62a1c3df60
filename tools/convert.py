"""Convert a published data set: python -m tools.convert FORMAT SOURCE TARGET.

python -m tools.convert visdrone ~/VisDrone2019-DET datasets/visdrone
python -m tools.convert xview ~/xView datasets/xview --val 0.1
python -m tools.convert voc my-xml-files datasets/mine --labels yolo --copy
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from utils.cli import run
from utils.errors import UserError, suggest
from utils.log import RESULT, LogOptions
from utils.options import Options, group, opt
from utils.reading import guarded

if TYPE_CHECKING:
    from data.converters.ground_truth import Converted

LOG = logging.getLogger(__name__)
NAMES = ("aitod", "coco", "dota", "sku110k", "sodad", "tinyperson", "uavdt", "visdrone", "voc", "xview")


@dataclass(frozen=True)
class ConvertConfig(Options):
    """Convert a published data set into COCO files and YOLO labels: FORMAT SOURCE TARGET."""

    format: str | None = opt(None, f"one of {', '.join(NAMES)} (or as the first argument)")
    source: Path | None = opt(None, "folder of the published data set (or as the second argument)")
    target: Path | None = opt(None, "new folder of the converted data set (or as the third argument)")
    labels: Literal["both", "coco", "yolo"] = opt("both", "COCO files, YOLO labels, or both")
    val: float = opt(0.0, "share of the images to hold out where there is no val split", min=0, max=0.9)
    copy: bool = opt(False, "copy the images instead of linking to them")
    log: LogOptions = group(LogOptions)

    def __post_init__(self) -> None:
        """Check every option."""
        super().__post_init__()
        for name in ("format", "source", "target"):
            if getattr(self, name) is None:
                raise UserError(f"needs FORMAT SOURCE TARGET, got no {name}; formats: {', '.join(NAMES)}")
        if self.format not in NAMES:
            raise UserError(f"unknown format '{self.format}'. {suggest(str(self.format), NAMES)}")


def main(cfg: ConvertConfig) -> int:
    """Read the published data set, write it and summarize it."""
    from data.converters import FORMATS
    from data.converters.ground_truth import hold_out
    from data.converters.writing import check_target, write_data_set

    assert cfg.format is not None and cfg.source is not None and cfg.target is not None
    kind = FORMATS[cfg.format]
    if not cfg.source.is_dir():
        raise UserError(f"no folder {cfg.source}; the source of {kind.title} holds {kind.layout}")
    check_target(cfg.target)
    with guarded(cfg.source, f"a copy of {kind.title}"):
        data = kind.read(cfg.source)
    if cfg.val and list(data.splits) != ["train"]:
        raise UserError(f"--val is for data sets with nothing but train; there are {', '.join(data.splits)}")
    if cfg.val:
        data.splits["train"], data.splits["val"] = hold_out(data.splits["train"], cfg.val)
    write_data_set(data, cfg.target, cfg.labels, cfg.copy)
    LOG.log(RESULT, summary(data, kind.title, cfg.target))
    return 0


def summary(data: Converted, title: str, target: Path) -> str:
    """Return what was written and what was changed, as text."""
    lines = [f"{title}: {len(data.names)} classes, into {target}"]
    for split, images in data.splits.items():
        objects = [item for image in images for item in image.objects]
        ignored = sum(item.ignored or item.label is None for item in objects)
        counts = f"images {len(images):,}, objects {len(objects) - ignored:,}, to ignore {ignored:,}"
        lines.append(f"  {split}: {counts}")
    lines += [f"  {note}: {count:,}" for note, count in data.notes.items() if count]
    if list(data.splits) == ["train"]:
        lines.append("  there is no validation split: --val 0.1 holds out a tenth of the images")
    return "\n".join([*lines, f"python train.py --data {target / 'data.yaml'}"])


def with_flags(arguments: list[str]) -> list[str]:
    """Turn the leading FORMAT SOURCE TARGET into options."""
    flags = ["--format", "--source", "--target"]
    leading = next((n for n, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    named = [word for pair in zip(flags, arguments[:leading], strict=False) for word in pair]
    return named + arguments[min(leading, len(flags)) :]


if __name__ == "__main__":
    run(ConvertConfig, main, with_flags(sys.argv[1:]))
