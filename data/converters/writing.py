"""Writing a converted data set: pictures, COCO files, YOLO labels and the YAML that describes them.

<target>/images/<split>/...               hard links to the source's pictures where possible, else copies
<target>/annotations/instances_<split>.json   every box, with its area, id and whether it is ignored
<target>/labels/<split>/....txt           YOLO labels: only the boxes that are targets
<target>/<split>.txt                      the split's pictures, as YOLOv5 lists them
<target>/data.yaml

COCO files know ignored boxes only as crowds of a class, so an ignored box is a crowd, marked "ignore": 1
besides. A region in which every class is to be ignored stands in its picture's "ignore_regions", as
data/coco_json.py reads it; other tools pass over that key.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from data.converters.truth import Converted, Object, Picture
from utils.errors import UserError

Labels = Literal["both", "coco", "yolo"]


def write_data_set(data: Converted, target: Path, labels: Labels = "both", copy: bool = False) -> None:
    """Write a data set into the new folder `target`; it is there whole or not at all.

    Args:
        data: its `splits` lose the pictures that are not there, and its `notes` say so.
        target: a folder that does not exist, or is empty.
        labels: which form the truth gets.
        copy: copy the pictures instead of linking them.

    Raises:
        UserError: the target exists, a picture's name leads out of it, or no picture is there.
    """
    check_target(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        for split, pictures in data.splits.items():
            data.splits[split] = _present(pictures, data.notes)
            _write_split(data, split, temporary, labels, copy)
        (temporary / "data.yaml").write_text(_description(data, labels), encoding="utf-8")
        if target.exists():
            target.rmdir()
        os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def check_target(target: Path) -> None:
    """Refuse a target that would overwrite something.

    Raises:
        UserError: it is a file or a folder with content.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} exists already; give a folder that does not, or remove it first")


def clipped(picture: Picture, notes: Counter[str]) -> list[Object]:
    """Return a picture's objects cut to the picture; those of no size are left out and noted."""
    kept = []
    for item in picture.objects:
        x1, y1, x2, y2 = item.box_xyxy
        box = (max(x1, 0.0), max(y1, 0.0), min(x2, picture.width), min(y2, picture.height))
        if x2 <= x1 or y2 <= y1:
            notes["boxes of no size dropped"] += 1
        elif box[2] <= box[0] or box[3] <= box[1]:
            notes["boxes outside their picture dropped"] += 1
        else:
            notes["boxes cut to their picture"] += box != item.box_xyxy
            kept.append(item._replace(box_xyxy=box))
    return kept


def _present(pictures: list[Picture], notes: Counter[str]) -> list[Picture]:
    there = [picture for picture in pictures if picture.path.is_file()]
    missing = next((picture for picture in pictures if not picture.path.is_file()), None)
    if missing is not None:
        notes[f"pictures left out that are not there, such as {missing.path}"] += len(pictures) - len(there)
    if not there:
        raise UserError(f"none of {len(pictures)} pictures is there, such as {missing and missing.path}")
    seen: set[str] = set()
    for picture in there:
        parts = PurePosixPath(picture.name).parts
        if ".." in parts or PurePosixPath(picture.name).is_absolute() or "\\" in picture.name:
            raise UserError(f"a picture is called '{picture.name}', which leads out of the data set")
        if picture.name in seen:
            raise UserError(f"two pictures of one split are called '{picture.name}'")
        if picture.width < 1 or picture.height < 1:
            raise UserError(f"{picture.path}: its annotations say {picture.width}x{picture.height} px")
        seen.add(picture.name)
    return there


def _write_split(data: Converted, split: str, target: Path, labels: Labels, copy: bool) -> None:
    pictures = data.splits[split]
    for picture in pictures:
        picture.objects = clipped(picture, data.notes)
        _place(picture.path, target / "images" / split / picture.name, copy)
    if labels != "yolo":
        file = target / "annotations" / f"instances_{split}.json"
        file.parent.mkdir(exist_ok=True)
        content = _coco(pictures, data.names, data.category_ids or tuple(range(1, len(data.names) + 1)))
        file.write_text(json.dumps(content, separators=(",", ":"), ensure_ascii=False), encoding="utf-8")
    if labels != "coco":
        rows = [f"./images/{split}/{picture.name}\n" for picture in pictures]
        (target / f"{split}.txt").write_text("".join(rows), encoding="utf-8")
        for picture in pictures:
            file = (target / "labels" / split / picture.name).with_suffix(".txt")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(_yolo_rows(picture)), encoding="utf-8")


def _place(source: Path, target: Path, copy: bool) -> None:
    """Put a picture into the data set; a hard link takes no space and survives the source's removal."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not copy:
        try:
            os.link(source.resolve(), target)
            return
        except OSError:  # another file system, or one without links
            pass
    shutil.copyfile(source, target)


def _yolo_rows(picture: Picture) -> Iterator[str]:
    for item in picture.objects:
        if item.label is None or item.ignored:
            continue
        x1, y1, x2, y2 = item.box_xyxy
        width, height = picture.width, picture.height
        values = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        yield f"{item.label} " + " ".join(f"{value:.7g}" for value in values) + "\n"


def _coco(pictures: list[Picture], names: tuple[str, ...], category_ids: tuple[int, ...]) -> dict[str, Any]:
    picture_ids = [picture.picture_id for picture in pictures]
    keep_picture_ids = None not in picture_ids and len(set(picture_ids)) == len(picture_ids)
    labelled = [item for picture in pictures for item in picture.objects if item.label is not None]
    object_ids = [item.object_id for item in labelled]
    keep_object_ids = None not in object_ids and len(set(object_ids)) == len(object_ids)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, picture in enumerate(pictures, 1):
        image_id = picture.picture_id if keep_picture_ids else number
        size = {"width": picture.width, "height": picture.height}
        images.append({"id": image_id, "file_name": picture.name, **size})
        regions = [_xywh(item) for item in picture.objects if item.label is None]
        if regions:
            images[-1]["ignore_regions"] = regions
        for item in picture.objects:
            if item.label is None:
                continue
            object_id = item.object_id if keep_object_ids else len(annotations) + 1
            category = category_ids[item.label]
            annotations.append(
                {"id": object_id, "image_id": image_id, "category_id": category} | _coco_box(item)
            )
    categories = [{"id": number, "name": name} for number, name in zip(category_ids, names, strict=True)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _xywh(item: Object) -> list[float]:
    x1, y1, x2, y2 = item.box_xyxy
    return [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)]


def _coco_box(item: Object) -> dict[str, Any]:
    box = _xywh(item)
    area = box[2] * box[3] if item.area is None else item.area
    about = {"bbox": box, "area": round(area, 3), "iscrowd": int(item.ignored)}
    return about | {"ignore": 1} if item.ignored else about


def _description(data: Converted, labels: Labels) -> str:
    """The data set's YAML: train and val as published, else what comes nearest."""
    import yaml

    def first(*splits: str) -> str | None:
        return next((name for name in data.splits for split in splits if name.startswith(split)), None)

    train, val, test = first("trainval", "train"), first("val"), first("test")
    used = {"train": train or val or test, "val": val or test or train, "test": test}
    content: dict[str, Any] = {key: f"images/{split}" for key, split in used.items() if split}
    if labels != "yolo":
        content["annotations"] = {
            key: f"annotations/instances_{split}.json" for key, split in used.items() if split
        }
    content["names"] = dict(enumerate(data.names))
    if data.category_ids is not None:
        content["category_ids"] = list(data.category_ids)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
