"""UAVDT-DET: frames of videos; <video>_gt_whole.txt has a row for each box in each frame.

frame, target, left, top, width, height, out-of-view, occlusion, category (Du et al., ECCV 2018,
arXiv:1804.00518); categories are 1 car, 2 truck, 3 bus. Rows of <video>_gt_ignore.txt are regions to
ignore. The benchmark decides which videos are for testing.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from data.converters.ground_truth import AnnotatedImage, Converted, Object
from data.converters.reading import list_images, numbers, read_rows, read_sizes
from utils.errors import UserError

NAMES = ("car", "truck", "bus")
TEST_VIDEOS = frozenset(
    (
        *("M0203", "M0205", "M0208", "M0209", "M0403", "M0601", "M0602", "M0606", "M0701", "M0801"),
        *("M0802", "M1001", "M1004", "M1007", "M1009", "M1101", "M1301", "M1302", "M1303", "M1401"),
    )
)
LAYOUT = "<any>/GT/<video>_gt_whole.txt with <any>/<video>/img000001.jpg, such as video M0101"


def read(source: Path) -> Converted:
    """Read every video that has annotations."""
    files = sorted(source.rglob("M*_gt_whole.txt"))
    if not files:
        raise UserError(f"no annotations below {source}; looked for {LAYOUT}")
    folders = {path.name: path for path in sorted(source.rglob("M[0-9][0-9][0-9][0-9]")) if path.is_dir()}
    notes: Counter[str] = Counter()
    splits: dict[str, list[AnnotatedImage]] = {}
    for file in files:
        video = file.name.removesuffix("_gt_whole.txt")
        if video not in folders:
            raise UserError(f"{file}: no folder {video} with the video's frames below {source}")
        split = "test" if video in TEST_VIDEOS else "train"
        splits.setdefault(split, []).extend(_read_video(folders[video], file, notes))
    return Converted(NAMES, splits, notes=notes)


def _read_video(folder: Path, file: Path, notes: Counter[str]) -> list[AnnotatedImage]:
    sizes = read_sizes(list_images(folder), notes)
    frames = {
        _frame_number(path): AnnotatedImage(path, f"{folder.name}/{path.name}", *size)
        for path, size in sizes.items()
    }
    ignore = file.with_name(f"{folder.name}_gt_ignore.txt")
    for source in (file, ignore):
        if source == ignore and not ignore.is_file():
            notes["videos without a file of regions to ignore"] += 1
            continue
        for where, cells in read_rows(source, 9):
            frame, _, left, top, width, height, _, _, category = numbers(where, cells)
            if frame not in frames:
                notes["boxes dropped: their frame is missing"] += 1
                continue
            if source == file and category not in (1, 2, 3):
                raise UserError(f"{where}: category {category:g} is not one of 1 car, 2 truck, 3 bus")
            label = None if source == ignore else int(category) - 1
            notes["regions to ignore"] += label is None
            box = (left, top, left + width, top + height)
            frames[int(frame)].objects.append(Object(box, label, label is None))
    return list(frames.values())


def _frame_number(path: Path) -> int:
    digits = path.stem.removeprefix("img")
    if not digits.isdecimal():
        raise UserError(f"{path}: a frame of a video is called img000001.jpg, img000002.jpg, ...")
    return int(digits)
