"""The YAML of a classification data set.

task: classify
path: ../datasets/cifar-10-batches-bin    # root; relative to this file's folder, else to the current one
format: cifar                             # folders (default), cifar, mnist, npz or tiny-imagenet
train: [data_batch_1.bin, data_batch_2.bin]
val: test_batch.bin                       # or test
names: [airplane, automobile]             # optional where folders or files name the classes
resize: 14                                # optional: side an image is resized to, px; zeros fill --imgsz
recipe: {hyp: data/hyps/diffstride-cifar.yaml, imgsz: 32, epochs: 100, batch_size: 128}  # for train.py

A folder with `train` and `val` (or `test`), each with a folder for every class, needs no YAML.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from data.classification.transform import InputTransform
from data.dataset_yaml import (
    SPLITS,
    Count,
    DatasetYaml,
    find_dataset_yaml,
    read_keys,
    resolved_recipe,
    root_folder,
)
from utils.errors import UserError
from utils.reading import guarded
from utils.validation import must_be


class ClassificationYaml(DatasetYaml):
    """The keys of a classification data set, as they are written."""

    task: Literal["classify"]
    format: Literal["folders", "cifar", "mnist", "npz", "tiny-imagenet"] = "folders"
    resize: Annotated[Count | None, must_be("a whole number of pixels")] = None


@dataclass(frozen=True)
class ClassificationDatasetConfig:
    """One classification data set.

    Attributes:
        file: the YAML, or the folder.
        path: the root folder, which exists.
        format: how the files are laid out, as in ClassificationYaml.
        splits: the sources of "train", "val", "test"; relative ones are meant under `path`.
        names: the classes; () where folders or files name them.
        resize: side that images are resized to, px, before zeros fill the input; None: the input's.
        recipe: what `train.py` takes for its options of the same names where they are left out.
    """

    file: Path
    path: Path
    format: str
    splits: Mapping[str, tuple[str, ...]]
    names: tuple[str, ...] = ()
    resize: int | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)

    def transform(self, imgsz: int) -> InputTransform:
        """Return how images become inputs of `imgsz` px.

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
            UserError: the split is not described, or a source is missing.
        """
        if split not in self.splits:
            raise UserError(f"{self.file} has no '{split}'. Choose from: {', '.join(self.splits)}")
        paths = [self.path / source for source in self.splits[split]]
        for path in paths:
            if not path.exists():
                raise UserError(f"{self.file}: {path}, of '{split}', is not there")
        return paths


def is_classification(path: Path) -> bool:
    """Whether a data set, a YAML or a folder, is for classification."""
    return path.is_dir() or read_keys(find_dataset_yaml(path)).get("task") == "classify"


def read_classification_yaml(path: str | Path) -> ClassificationDatasetConfig:
    """Read the YAML of a classification data set, or describe a folder.

    Raises:
        UserError: it is missing or no classification data set, or a key is missing, unknown or wrong.
    """
    if Path(path).is_dir():
        return _describe_folder(Path(path))
    file = find_dataset_yaml(path)
    content = read_keys(file)
    if content.get("task") != "classify":
        raise UserError(f"{file} is not a data set for classification: it has no 'task: classify'")
    with guarded(file, "a data-set YAML"):
        written = ClassificationYaml.of(content, file)
        return ClassificationDatasetConfig(
            file,
            root_folder(file, written.path),
            written.format,
            _with_validation(written.splits),
            written.names,
            written.resize,
            resolved_recipe(file, written.recipe),
        )


def _describe_folder(folder: Path) -> ClassificationDatasetConfig:
    splits: dict[str, tuple[str, ...]] = {split: (split,) for split in SPLITS if (folder / split).is_dir()}
    if "train" not in splits or len(splits) < 2:
        raise UserError(
            f"{folder}: a folder of images to classify holds train/ and val/ (or test/), each with a folder "
            "for every class"
        )
    return ClassificationDatasetConfig(folder, folder.resolve(), "folders", _with_validation(splits))


def _with_validation(splits: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Validate on the test images where there are no others."""
    return splits if "val" in splits or "test" not in splits else {**splits, "val": splits["test"]}
