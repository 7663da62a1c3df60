"""Miniature data sets in the exact formats they were published in, quirks included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.dataset_fixtures import write_image


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def coco_file(images: list[Any], annotations: list[Any], categories: dict[int, str]) -> str:
    listed = [{"id": number, "name": name, "supercategory": "none"} for number, name in categories.items()]
    return json.dumps({"images": images, "annotations": annotations, "categories": listed})


def image(number: int, name: str, width: int = 64, height: int = 48) -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": width, "height": height}


def box(number: int, image: int, category: int, *bbox: float, **more: Any) -> dict[str, Any]:
    return {
        "id": number, "image_id": image, "category_id": category, "bbox": list(bbox),
        "area": bbox[2] * bbox[3], "iscrowd": 0, "segmentation": [], **more,
    }  # fmt: skip


def visdrone(root: Path) -> None:
    for split in ("train", "val"):
        folder = root / f"VisDrone2019-DET-{split}"
        write_image(folder / "images/9999945_00000_d_0000114.jpg")
        rows = "5,6,10,8,1,4,0,0,\n30,20,4,6,1,1,0,1\n0,0,20,10,0,0,0,0,\n"
        rows += "40,10,8,8,0,11,0,0,\n50,30,6,6,0,4,1,2,\n20,20,0,5,1,1,0,0\n60,40,10,20,1,10,1,0\n"
        write(folder / "annotations/9999945_00000_d_0000114.txt", rows)


def uavdt(root: Path) -> None:
    for video in ("M0101", "M0203"):
        for frame in (1, 2):
            write_image(root / f"UAV-benchmark-M/{video}/img{frame:06}.jpg", seed=frame)
        labels = root / "UAV-benchmark-MOTD_v1.0/GT"
        write(
            labels / f"{video}_gt_whole.txt", "1,1,5,6,10,8,1,1,1\n2,1,7,6,10,8,1,4,3\n1,2,40,6,5,5,2,2,2\n"
        )
        write(labels / f"{video}_gt_ignore.txt", "2,1,0,0,64,20,1,-1,-1\n")
        write(labels / f"{video}_gt.txt", "1,1,5,6,10,8,1,-1,-1\n")


def dota(root: Path) -> None:
    for split in ("train", "val"):
        write_image(root / split / "images/P0001.png")
        write_image(root / split / "images/P0002.png", seed=1)
        rows = "imagesource:GoogleEarth\ngsd:0.146\n"
        rows += "10.0 5.0 20.0 10.0 15.0 20.0 5.0 15.0 small-vehicle 0\n30 5 40 5 40 15 30 15 plane 1\n"
        write(root / split / "labelTxt-v1.0/labelTxt/P0001.txt", rows)
        write(root / split / "labelTxt-v1.0/labelTxt/P0002.txt", "imagesource:GoogleEarth\ngsd:null\n")


def xview(root: Path) -> None:
    for name in range(10):
        write_image(root / f"train_images/{name}.tif", seed=name)

    def feature(image: str, kind: int, corners: str) -> dict[str, Any]:
        about = {
            "bounds_imcoords": corners,
            "type_id": kind,
            "image_id": image,
            "cat_id": "1040010028371A00",
        }
        return {"type": "Feature", "properties": about, "geometry": {"type": "Polygon", "coordinates": []}}

    features = [
        *(feature("0.tif", 18, "5,6,15,14"), feature("0.tif", 94, "-3,0,10,10")),
        *(feature("0.tif", 75, "1,1,9,9"), feature("1395.tif", 18, "1,1,9,9")),
    ]
    write(root / "xView_train.geojson", json.dumps({"type": "FeatureCollection", "features": features}))


def sku110k(root: Path) -> None:
    for split in ("train", "val", "test"):
        write_image(root / f"images/{split}_0.jpg")
        rows = f"{split}_0.jpg,5,6,15,14,object,64,48\n{split}_0.jpg,50,30,70,48,object,64,48\n"
        write(root / f"annotations/annotations_{split}.csv", rows)


def voc(root: Path) -> None:
    year = root / "VOCdevkit/VOC2007"
    objects = voc_object("person", "1 1 64 48", 0, part=True) + voc_object("car", "11 21 20.5 30", 1)
    size = "<size><width>64</width><height>48</height><depth>3</depth></size>"
    for split, name in (("train", "000012"), ("val", "000017")):
        write(year / f"ImageSets/Main/{split}.txt", f"{name}\n")
        write_image(year / f"JPEGImages/{name}.jpg")
        text = f"<annotation><filename>{name}.jpg</filename>{size}{objects}</annotation>"
        write(year / f"Annotations/{name}.xml", text)
    write(year / "ImageSets/Main/trainval.txt", "000012\n000017\n")
    write(year / "ImageSets/Main/car_train.txt", "000012 -1\n")


def voc_object(name: str, corners: str, difficult: int, part: bool = False) -> str:
    tags = ("xmin", "ymin", "xmax", "ymax")
    sides = "".join(f"<{tag}>{side}</{tag}>" for tag, side in zip(tags, corners.split(), strict=True))
    head = f"<part><name>head</name><bndbox>{sides}</bndbox></part>" if part else ""
    about = f"{head}<name>{name}</name><difficult>{difficult}</difficult>"
    return f"<object>{about}<bndbox>{sides}</bndbox></object>"


def aitod(root: Path) -> None:
    names = "airplane bridge storage-tank ship swimming-pool vehicle person wind-mill"
    categories = dict(enumerate(names.split(), 1))
    for split in ("train", "val", "test"):
        write_image(root / f"{split}/images/0000005_0_0.png")
        content = coco_file([image(7, "0000005_0_0.png")], [box(3, 7, 6, 5, 6, 10, 8)], categories)
        write(root / f"annotations/aitodv2_{split}.json", content)
    write(root / "annotations/aitodv2_trainval.json", content)


def sodad(root: Path) -> None:
    names = "people rider bicycle motor vehicle traffic-sign traffic-light traffic-camera warning-cone ignore"
    categories = dict(enumerate(names.split(), 1))
    write_image(root / "Images/00001.jpg")
    boxes = [box(1, 1, 5, 5, 6, 10, 8), box(2, 1, 10, 0, 0, 30, 20), box(3, 1, 1, 40, 30, 5, 5, ignore=1)]
    for split in ("train", "val", "test"):
        write(root / f"Annotations/{split}.json", coco_file([image(1, "00001.jpg")], boxes, categories))


def tinyperson(root: Path) -> None:
    marks = {"ignore": False, "uncertain": False, "logo": False, "in_dense_image": False}
    boxes = [
        *(box(1, 4, 1, 5, 6, 4, 5, **marks), box(2, 4, 2, 20, 6, 4, 5, **marks | {"in_dense_image": True})),
        *(box(3, 4, 1, 0, 30, 60, 10, **marks | {"ignore": True}),),
        *(box(4, 4, 2, 40, 6, 4, 5, **marks | {"uncertain": True}),),
    ]
    categories = {1: "sea_person", 2: "earth_person"}
    content = coco_file([image(4, "labeled_images/bb_V0014_I0001440.jpg")], boxes, categories)
    for split in ("train", "test"):
        write_image(root / split / "labeled_images/bb_V0014_I0001440.jpg")
        write(root / f"annotations/tiny_set_{split}.json", content)
    one_class = [entry | {"category_id": 1} for entry in boxes]
    merged = coco_file([image(4, "labeled_images/bb_V0014_I0001440.jpg")], one_class, {1: "person"})
    write(root / "annotations/task/tiny_set_test_all.json", merged)
