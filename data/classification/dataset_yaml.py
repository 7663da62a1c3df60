"""The YAML of a classification data set.

task: classify
path: ../datasets/cifar-10-batches-bin    # root; relative to this file's folder, else to the current one
format: cifar                             # folders (default), cifar, mnist, npz or tiny-imagenet
train: [data_batch_1.bin, data_batch_2.bin]
val: test_batch.bin                       # or test
names: [airplane, automobile]             # optional where folders or files name the classes
resize: 14                                # optional: px an image is shrunk to, before zeros fill --imgsz
recipe: {hyp: data/hyps/diffstride-cifar.yaml, imgsz: 32, epochs: 100, batch_size: 128}  # for train.py

A folder with `train` and `val` (or `test`), which hold a folder a class, needs no YAML.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.classification.resize import InputTransform
from data.dataset_yaml import (
    SPLITS,
    class_names,
    find_dataset_yaml,
    kind_of,
    load_yaml,
    recipe_of,
    root_folder,
    sources_of,
)
from utils.errors import UserError, suggest

FORMATS = ("folders", "cifar", "mnist", "npz", "tiny-imagenet")
KEYS = ("task", "path", "format", *SPLITS, "names", "resize", "recipe")


@dataclass(frozen=True)
class ClassificationDatasetConfig:
    """One classification data set.

    Attributes:
        file: the YAML, or the folder.
        path: the root folder, which exists.
        format: one of FORMATS.
        splits: the sources of "train", "val", "test"; relative ones are meant under `path`.
        names: the classes, () where folders or files name them.
        resize: px that images are shrunk to before zeros fill the input; None fills it with the image.
        recipe: what `train.py` takes for its options of the same names where they are left out.
    """

    file: Path
    path: Path
    format: str
    splits: Mapping[str, tuple[str, ...]]
    names: tuple[str, ...] = ()
    resize: int | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)

    def view(self, imgsz: int) -> InputTransform:
        """Return how its images become inputs of `imgsz` px.

        Raises:
            UserError: they are larger.
        """
        if self.resize and self.resize > imgsz:
            raise UserError(
                f"--imgsz {imgsz} does not hold the images of {self.file}, resize: {self.resize}; "
                f"choose {self.resize} or more"
            )
        return InputTransform(self.resize or imgsz, imgsz)

    def sources(self, split: str) -> list[Path]:
        """Return the files or folders of a split.

        Raises:
            UserError: there is no such split, or they are not there.
        """
        if split not in self.splits:
            raise UserError(f"{self.file} has no '{split}'. Choose from: {', '.join(self.splits)}")
        found = [self.path / source for source in self.splits[split]]
        for source in found:
            if not source.exists():
                raise UserError(f"{self.file}: {source}, of '{split}', is not there")
        return found


def is_classification(path: Path) -> bool:
    """Whether a data set, a YAML or a folder, is for classification."""
    return path.is_dir() or load_yaml(find_dataset_yaml(path)).get("task") == "classify"


def read_classification_yaml(path: str | Path) -> ClassificationDatasetConfig:
    """Read the YAML of a classification data set, or look at its folder.

    Raises:
        UserError: it is not there, no classification data set, or a key is missing, unknown or of the wrong
            type.
    """
    if Path(path).is_dir():
        return _of_folder(Path(path))
    file = find_dataset_yaml(path)
    content = load_yaml(file)
    if content.get("task") != "classify":
        raise UserError(f"{file} is no data set for classification, which says so: task: classify")
    for key in content:
        if key not in KEYS:
            raise UserError(
                f"{file}: unknown key '{key}' of a classification data set. {suggest(str(key), KEYS)}"
            )
    splits = {split: sources_of(file, split, content[split]) for split in SPLITS if content.get(split)}
    if not splits:
        raise UserError(f"{file}: no key 'train' or 'val'; each names a folder, a file or a list of these")
    format, resize = content.get("format", "folders"), content.get("resize")
    if format not in FORMATS:
        raise UserError(f"{file}: unknown format '{format}'. {suggest(str(format), FORMATS)}")
    if resize is not None and (type(resize) is not int or resize < 1):
        raise UserError(f"{file}: 'resize' must be a whole number of pixels, found {kind_of(resize)}")
    return ClassificationDatasetConfig(
        file,
        root_folder(file, content.get("path")),
        format,
        _with_validation(splits),
        class_names(file, content) if "names" in content else (),
        resize,
        recipe_of(file, content.get("recipe")),
    )


def _of_folder(folder: Path) -> ClassificationDatasetConfig:
    splits: dict[str, tuple[str, ...]] = {split: (split,) for split in SPLITS if (folder / split).is_dir()}
    if "train" not in splits or len(splits) < 2:
        raise UserError(
            f"{folder}: a folder of images to classify holds train/ and val/ (or test/), in each a folder "
            "a class"
        )
    return ClassificationDatasetConfig(folder, folder.resolve(), "folders", _with_validation(splits))


def _with_validation(splits: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Validate on the test images where there are no others."""
    return splits if "val" in splits or "test" not in splits else {**splits, "val": splits["test"]}
