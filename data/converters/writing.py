"""Writing a converted data set: images, COCO files, YOLO labels and the YAML that describes them.

<target>/images/<split>/...               hard links to the source's images where possible, else copies
<target>/annotations/instances_<split>.json   every box, with its area, id and whether it is ignored
<target>/labels/<split>/....txt           YOLO labels: only the boxes that are targets
<target>/<split>.txt                      the split's images, as YOLOv5 lists them
<target>/data.yaml

A COCO file can mark a box as ignored only by making it a crowd of its class, so an ignored box is a crowd
that is also marked "ignore": 1. Regions in which every class is to be ignored are the "ignore_regions" of
their image, as data/detection/coco_json.py reads them; other tools skip that key.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from data.converters.ground_truth import AnnotatedImage, Converted, Object
from data.detection.yolo_labels import label_text
from utils.errors import UserError
from utils.files import write_folder_atomically

Labels = Literal["both", "coco", "yolo"]


def write_data_set(data: Converted, target: Path, labels: Labels = "both", copy: bool = False) -> None:
    """Write a data set into the new folder `target`, whole or not at all.

    Args:
        data: images that are missing are taken out of its `splits`, and its `notes` say so.
        target: a folder that does not exist, or is empty.
        labels: formats of the annotations.
        copy: copy the images instead of linking to them.

    Raises:
        UserError: the target exists, the name of an image leads out of it, or all images are missing.
    """
    check_target(target)
    with write_folder_atomically(target) as folder:
        for split, images in data.splits.items():
            data.splits[split] = _present(images, data.notes)
            _write_split(data, split, folder, labels, copy)
        (folder / "data.yaml").write_text(_description(data, labels), encoding="utf-8")


def check_target(target: Path) -> None:
    """Refuse to overwrite something.

    Raises:
        UserError: the target is a file, or a folder that is not empty.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} already exists; give a folder that does not, or remove it first")


def clipped(image: AnnotatedImage, notes: Counter[str]) -> list[Object]:
    """Return an image's objects clipped to the image; those of no size are dropped and noted."""
    kept = []
    for item in image.objects:
        x1, y1, x2, y2 = item.box_xyxy
        box = (max(x1, 0.0), max(y1, 0.0), min(x2, image.width), min(y2, image.height))
        if x2 <= x1 or y2 <= y1:
            notes["boxes of no size dropped"] += 1
        elif box[2] <= box[0] or box[3] <= box[1]:
            notes["boxes outside their image dropped"] += 1
        else:
            notes["boxes clipped to their image"] += box != item.box_xyxy
            kept.append(item._replace(box_xyxy=box))
    return kept


def _present(images: list[AnnotatedImage], notes: Counter[str]) -> list[AnnotatedImage]:
    """Return the images whose files are present, their names and sizes checked."""
    present = [image for image in images if image.path.is_file()]
    missing = next((image for image in images if not image.path.is_file()), None)
    if missing is not None:
        notes[f"images left out that are missing, such as {missing.path}"] += len(images) - len(present)
    if not present:
        raise UserError(f"all {len(images)} images are missing, such as {missing and missing.path}")
    seen: set[str] = set()
    for image in present:
        parts = PurePosixPath(image.name).parts
        if ".." in parts or PurePosixPath(image.name).is_absolute() or "\\" in image.name:
            raise UserError(f"an image is called '{image.name}', which leads out of the data set")
        if image.name in seen:
            raise UserError(f"two images of one split are called '{image.name}'")
        if image.width < 1 or image.height < 1:
            raise UserError(f"{image.path}: its annotations say that it is {image.width}x{image.height} px")
        seen.add(image.name)
    return present


def _write_split(data: Converted, split: str, target: Path, labels: Labels, copy: bool) -> None:
    images = data.splits[split]
    for image in images:
        image.objects = clipped(image, data.notes)
        _place(image.path, target / "images" / split / image.name, copy)
    if labels != "yolo":
        file = target / "annotations" / f"instances_{split}.json"
        file.parent.mkdir(exist_ok=True)
        content = _coco(images, data.names, data.category_ids or tuple(range(1, len(data.names) + 1)))
        file.write_text(json.dumps(content, separators=(",", ":"), ensure_ascii=False), encoding="utf-8")
    if labels != "coco":
        rows = [f"./images/{split}/{image.name}\n" for image in images]
        (target / f"{split}.txt").write_text("".join(rows), encoding="utf-8")
        for image in images:
            file = (target / "labels" / split / image.name).with_suffix(".txt")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(_yolo_labels(image), encoding="utf-8")


def _place(source: Path, target: Path, copy: bool) -> None:
    """Put an image into the data set; a hard link takes no space and stays when the source is removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not copy:
        try:
            os.link(source.resolve(), target)
            return
        except OSError:  # another file system, or one without links
            pass
    shutil.copyfile(source, target)


def _yolo_labels(image: AnnotatedImage) -> str:
    targets = [item for item in image.objects if item.label is not None and not item.ignored]
    rows = np.array([(item.label, *item.box_xyxy) for item in targets], float).reshape(-1, 5)
    return label_text(rows[:, 0], rows[:, 1:], image.width, image.height)


def _coco(
    images: list[AnnotatedImage], names: tuple[str, ...], category_ids: tuple[int, ...]
) -> dict[str, Any]:
    image_ids = [image.image_id for image in images]
    keep_image_ids = None not in image_ids and len(set(image_ids)) == len(image_ids)
    labeled = [item for image in images for item in image.objects if item.label is not None]
    object_ids = [item.object_id for item in labeled]
    keep_object_ids = None not in object_ids and len(set(object_ids)) == len(object_ids)
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images, 1):
        image_id = image.image_id if keep_image_ids else number
        size = {"width": image.width, "height": image.height}
        entries.append({"id": image_id, "file_name": image.name, **size})
        regions = [_xywh(item) for item in image.objects if item.label is None]
        if regions:
            entries[-1]["ignore_regions"] = regions
        for item in image.objects:
            if item.label is None:
                continue
            object_id = item.object_id if keep_object_ids else len(annotations) + 1
            category = category_ids[item.label]
            annotations.append(
                {"id": object_id, "image_id": image_id, "category_id": category} | _coco_box(item)
            )
    categories = [{"id": number, "name": name} for number, name in zip(category_ids, names, strict=True)]
    return {"images": entries, "annotations": annotations, "categories": categories}


def _xywh(item: Object) -> list[float]:
    x1, y1, x2, y2 = item.box_xyxy
    return [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)]


def _coco_box(item: Object) -> dict[str, Any]:
    box = _xywh(item)
    area = box[2] * box[3] if item.area is None else item.area
    about = {"bbox": box, "area": round(area, 3), "iscrowd": int(item.ignored)}
    return about | {"ignore": 1} if item.ignored else about


def _description(data: Converted, labels: Labels) -> str:
    """The data set's YAML: train and val as published, else the splits that come closest."""
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
