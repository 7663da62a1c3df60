"""xView: satellite images at 30 cm per pixel, all boxes in one GeoJSON file.

Lam et al., arXiv:1802.07856. A feature's `bounds_imcoords` is "x1,y1,x2,y2" in pixels of the image
`image_id`, its `type_id` one of 60 numbers from 11 to 94. Features of other types (75 and 82, which have no
name) and of images that were not published are dropped. Only the training images have public labels.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from data.converters.ground_truth import AnnotatedImage, Converted, Object
from data.converters.reading import list_images, numbers, read_sizes, read_text
from utils.errors import UserError
from utils.reading import reading

CLASSES = {
    11: "Fixed-wing Aircraft",
    12: "Small Aircraft",
    13: "Cargo Plane",
    15: "Helicopter",
    17: "Passenger Vehicle",
    18: "Small Car",
    19: "Bus",
    20: "Pickup Truck",
    21: "Utility Truck",
    23: "Truck",
    24: "Cargo Truck",
    25: "Truck w/Box",
    26: "Truck Tractor",
    27: "Trailer",
    28: "Truck w/Flatbed",
    29: "Truck w/Liquid",
    32: "Crane Truck",
    33: "Railway Vehicle",
    34: "Passenger Car",
    35: "Cargo Car",
    36: "Flat Car",
    37: "Tank car",
    38: "Locomotive",
    40: "Maritime Vessel",
    41: "Motorboat",
    42: "Sailboat",
    44: "Tugboat",
    45: "Barge",
    47: "Fishing Vessel",
    49: "Ferry",
    50: "Yacht",
    51: "Container Ship",
    52: "Oil Tanker",
    53: "Engineering Vehicle",
    54: "Tower crane",
    55: "Container Crane",
    56: "Reach Stacker",
    57: "Straddle Carrier",
    59: "Mobile Crane",
    60: "Dump Truck",
    61: "Haul Truck",
    62: "Scraper/Tractor",
    63: "Front loader/Bulldozer",
    64: "Excavator",
    65: "Cement Mixer",
    66: "Ground Grader",
    71: "Hut/Tent",
    72: "Shed",
    73: "Building",
    74: "Aircraft Hangar",
    76: "Damaged Building",
    77: "Facility",
    79: "Construction Site",
    83: "Vehicle Lot",
    84: "Helipad",
    86: "Storage Tank",
    89: "Shipping container lot",
    91: "Shipping Container",
    93: "Pylon",
    94: "Tower",
}
NAMES = tuple(CLASSES.values())
LAYOUT = "xView_train.geojson with train_images/*.tif"


def read(source: Path) -> Converted:
    """Read the training images, including those without objects."""
    files = sorted(source.rglob("xView_train.geojson"))
    if not files:
        raise UserError(f"no annotations below {source}; looked for {LAYOUT}")
    notes: Counter[str] = Counter()
    sizes = read_sizes(list_images(source / "train_images"), notes)
    images = {path.name: AnnotatedImage(path, path.name, *size) for path, size in sizes.items()}
    labels = {category: number for number, category in enumerate(CLASSES)}
    for number, feature in enumerate(_features(files[0])):
        where = f"{files[0]}: feature {number}"
        name, category, box = _read_feature(where, feature)
        if category not in labels:
            if not 1 <= category <= 94:
                raise UserError(f"{where}: type_id {category} is not one of 1 to 94")
            notes[f"boxes of type {category} dropped, which has no class"] += 1
        elif name not in images:
            notes[f"boxes of {name} dropped, an image that is missing"] += 1
        else:
            images[name].objects.append(Object(box, labels[category]))
    return Converted(NAMES, {"train": list(images.values())}, tuple(CLASSES), notes)


def _features(file: Path) -> list[Any]:
    with reading(file, "a GeoJSON file"):
        try:
            content = json.loads(read_text(file))
        except json.JSONDecodeError as error:
            raise UserError(f"{file} is not readable as JSON: {error}") from error
    features = content.get("features") if isinstance(content, dict) else None
    if not isinstance(features, list):
        raise UserError(f"{file}: no list 'features'; a GeoJSON file has one")
    return features


def _read_feature(where: str, feature: Any) -> tuple[str, int, tuple[float, float, float, float]]:
    """Return image, type and box of a feature."""
    about = feature.get("properties") if isinstance(feature, dict) else None
    if not isinstance(about, dict):
        raise UserError(f"{where} has no 'properties'")
    for key, kind in (("image_id", str), ("type_id", int), ("bounds_imcoords", str)):
        if not isinstance(about.get(key), kind):
            raise UserError(f"{where} has no usable '{key}'")
    corners = numbers(where, about["bounds_imcoords"].split(","))
    if len(corners) != 4:
        raise UserError(f"{where}: bounds_imcoords '{about['bounds_imcoords']}' is not x1,y1,x2,y2")
    x1, y1, x2, y2 = corners
    return about["image_id"], about["type_id"], (x1, y1, x2, y2)
