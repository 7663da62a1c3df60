"""Pascal VOC: an XML file for each image (Everingham et al., IJCV 2010), and other data in that format.

Pixels count from 1 and a box includes its last ones, so a box x1..x2 becomes x1 - 1 to x2. Difficult objects
are ignored, as in VOC's evaluation. Splits are ImageSets/Main/{train,val,trainval,test}.txt; without them
every XML file below the source belongs to `train`. Classes are the 20 of VOC or, where others occur, all that
occur, sorted.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from data.converters.ground_truth import AnnotatedImage, Converted, Object
from data.converters.reading import numbers, read_text
from data.media.image_files import IMAGE_SUFFIXES
from utils.errors import UserError
from utils.reading import is_regular, reading

NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable"),
    *("dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
LAYOUT = "VOC<year>/Annotations/*.xml, VOC<year>/JPEGImages/*.jpg and VOC<year>/ImageSets/Main/<split>.txt"


@dataclass(frozen=True)
class _Box:
    name: str
    corners: tuple[float, float, float, float]
    difficult: bool


def read(source: Path) -> Converted:
    """Read one year, or all years of a VOCdevkit together."""
    notes: Counter[str] = Counter()
    entries: list[tuple[str, AnnotatedImage, list[_Box]]] = []
    for split, file in _split_files(source):
        image, boxes = _read_image(file)
        notes["difficult boxes, ignored"] += sum(box.difficult for box in boxes)
        entries.append((split, image, boxes))
    used = {box.name for _, _, boxes in entries for box in boxes}
    names = NAMES if used <= set(NAMES) else tuple(sorted(used))
    splits: dict[str, list[AnnotatedImage]] = {}
    for split, image, boxes in entries:
        image.objects = [Object(box.corners, names.index(box.name), box.difficult) for box in boxes]
        splits.setdefault(split, []).append(image)
    return Converted(names, splits, notes=notes)


def _split_files(source: Path) -> list[tuple[str, Path]]:
    """The XML files, each with its split; trainval only where train or val is missing."""
    years = [source, *sorted(path for path in source.glob("**/VOC*") if path.is_dir())]
    files: list[tuple[str, Path]] = []
    for year in years:
        lists = {
            split: file
            for split in ("train", "val", "trainval", "test")
            if (file := year / "ImageSets" / "Main" / f"{split}.txt").is_file()
        }
        if "train" in lists and "val" in lists:
            lists.pop("trainval", None)
        for split, file in lists.items():
            stems = [line.split()[0] for line in read_text(file).splitlines() if line.strip()]
            files += [(split, year / "Annotations" / f"{stem}.xml") for stem in stems]
    files = files or [("train", file) for file in sorted(source.rglob("*.xml"))]
    if not files:
        raise UserError(f"no annotations below {source}; looked for {LAYOUT}")
    return files


def _read_image(file: Path) -> tuple[AnnotatedImage, list[_Box]]:
    with reading(file, "an XML file"):
        try:
            root = ElementTree.fromstring(file.read_bytes())
        except ElementTree.ParseError as error:
            raise UserError(f"{file} is not readable as XML: {error}") from error
    width, height = numbers(str(file), [_text(file, root, f"size/{side}") for side in ("width", "height")])
    boxes = [
        _read_object(f"{file}: object {number}", file, node)
        for number, node in enumerate(root.iter("object"))
    ]
    path = _image_of(file, root)
    return AnnotatedImage(path, path.name, int(width), int(height)), boxes


def _read_object(where: str, file: Path, node: ElementTree.Element) -> _Box:
    sides = [_text(file, node, f"bndbox/{side}", where) for side in ("xmin", "ymin", "xmax", "ymax")]
    x1, y1, x2, y2 = numbers(where, sides)
    difficult = (node.findtext("difficult") or "0").strip() not in ("", "0")
    return _Box(_text(file, node, "name", where), (x1 - 1, y1 - 1, x2, y2), difficult)


def _text(file: Path, node: ElementTree.Element, tag: str, where: str = "") -> str:
    text = (node.findtext(tag) or "").strip()
    if not text:
        raise UserError(f"{where or file}: no <{tag}>")
    return text


def _image_of(file: Path, root: ElementTree.Element) -> Path:
    """The image in JPEGImages/, images/ or beside the XML file: of the same stem, else as <filename> says."""
    folders = [file.parent.parent / "JPEGImages", file.parent.parent / "images", file.parent]
    written = Path((root.findtext("filename") or "").strip()).name
    names = [file.stem + suffix for suffix in (".jpg", *sorted(IMAGE_SUFFIXES))] + [written or file.stem]
    paths = [folder / name for folder in folders for name in names]
    return next((path for path in paths if is_regular(path)), folders[0] / names[0])
