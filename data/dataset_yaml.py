"""A data-set description: the YAML that says where images and labels are and what the classes are called.

path: ../datasets/mine        # root; relative to this file's folder, else to the current directory
train: images/train           # a folder, a list file (*.txt), a COCO file (*.json), or a list of these
val: images/val
test: images/test             # optional
names: [car, person]          # or {0: car, 1: person}
tile: {size: 640, overlap: .2, min_area: .4}    # optional: read images as overlapping tiles
annotations: {val: annotations/val.json}        # optional: COCO files to use instead, where they exist
images: {val: images/val}                       # optional: where the images of a COCO file are
category_ids: [1, 3]                            # optional: COCO's category id of each class
recipe: {cfg: yolov5n-spd, hyp: data/hyps/low.yaml, imgsz: 640, epochs: 100, batch_size: 16}  # for train.py
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator
from typing_extensions import Self

from data.paths import PROJECT, as_path, places, resolve
from data.tiling import Tiling
from utils.errors import UserError, suggest
from utils.files import read_yaml
from utils.limits import CLASSES
from utils.reading import reading
from utils.validation import Checked, as_tuple, kind_of, must_be

SPLITS = ("train", "val", "test")
SHIPPED = Path(__file__).resolve().parent  # the data sets that ship are described here


def _as_sources(written: Any) -> tuple[Any, ...]:
    """One source or a list of them, as a tuple; nothing as an empty one."""
    return tuple(written) if isinstance(written, list) else (written,) if written else ()


Count = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]
Source = Annotated[Text, must_be("a folder, a list file, a COCO file or a list of these")]
Sources = Annotated[tuple[Source, ...], BeforeValidator(_as_sources)]


class Recipe(Checked):
    """What `train.py` takes for its options of the same names where they are left out."""

    cfg: Annotated[Text | None, must_be("a network, such as yolov5n-spd")] = None
    hyp: Annotated[Text | None, must_be("a YAML file")] = None
    imgsz: Annotated[Count | None, must_be("a whole number from 1")] = None
    epochs: Annotated[Count | None, must_be("a whole number from 1")] = None
    batch_size: Annotated[Count | None, must_be("a whole number from 1")] = None


class PerSplit(Checked):
    """A file or folder for each split."""

    train: Text | None = None
    val: Text | None = None
    test: Text | None = None


def _for_all_splits(written: Any) -> Any:
    """One text stands for all splits."""
    return dict.fromkeys(SPLITS, written) if isinstance(written, str) else written


EachSplit = Annotated[
    PerSplit | None, BeforeValidator(_for_all_splits), must_be("like {train: ..., val: ...}")
]


class DatasetYaml(Checked):
    """The keys that data sets of both tasks have, as they are written."""

    path: Annotated[Text | None, must_be("a folder")] = None
    train: Sources = ()
    val: Sources = ()
    test: Sources = ()
    names: Annotated[tuple[str, ...], must_be("a list of the class names")] = ()
    recipe: Annotated[Recipe | None, must_be("like {hyp: hyps/low.yaml, imgsz: 640}")] = None

    @property
    def splits(self) -> dict[str, tuple[str, ...]]:
        """The sources of each split that has any."""
        return {split: sources for split in SPLITS if (sources := getattr(self, split))}

    @field_validator("names", mode="before")
    @classmethod
    def _numbered_names(cls, names: Any) -> Any:
        """Sort names that are numbered, name those left out after their number, take numbers for text."""
        if isinstance(names, dict):
            numbers = {str(key): name for key, name in names.items()}
            if not all(key.isdecimal() and len(key) < 10 and int(key) < CLASSES.most for key in numbers):
                keys = ", ".join(numbers)
                raise ValueError(f"the keys of 'names' must be numbers of classes from 0, found {keys}")
            count = max(map(int, numbers), default=-1) + 1
            names = [numbers.get(str(number), f"class{number}") for number in range(count)]
        if not isinstance(names, list):
            return names
        CLASSES.check(len(names), "'names'")
        for number, name in enumerate(names):
            if isinstance(name, bool) or not isinstance(name, str | int | float):
                raise ValueError(f"name {number} must be text, found {kind_of(name)}; put it in quotes")
        return tuple(map(str, names))

    @model_validator(mode="after")
    def _check_splits(self) -> Self:
        if not self.splits:
            raise ValueError("no key 'train' or 'val'; each names a folder, a file or a list of these")
        return self


class DetectionYaml(DatasetYaml):
    """The keys of a detection data set, as they are written."""

    tile: Annotated[Tiling | None, must_be("like {size: 640, overlap: .2, min_area: .4}")] = None
    category_ids: Annotated[
        tuple[int, ...] | None, BeforeValidator(as_tuple), must_be("a list of whole numbers")
    ] = None
    annotations: EachSplit = None
    images: EachSplit = None

    @field_validator("tile", mode="before")
    @classmethod
    def _read_tile(cls, tile: Any) -> Any:
        if tile is False:
            return None
        if not isinstance(tile, dict) or "size" not in tile:
            return tile
        known = [item.name for item in fields(Tiling)]
        for key in tile:
            if key not in known:
                raise ValueError(f"unknown key '{key}' in 'tile'. {suggest(str(key), known)}")
        return Tiling(**tile)

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        if not self.names:
            raise ValueError("no key 'names'; it lists the class names, such as names: [car, person]")
        ids, count = self.category_ids, len(self.names)
        if ids is not None and not len(ids) == len(set(ids)) == count:
            raise ValueError(
                f"'category_ids' must give {count} different ids, one for each name, found {len(set(ids))}"
            )
        return self


@dataclass(frozen=True)
class DatasetConfig:
    """One data set.

    Attributes:
        file: the YAML.
        path: the root folder, which exists.
        splits: the sources of "train", "val", "test", as written; relative ones are meant under `path`.
        names: class names.
        tile: how images are cut, or None for full images.
        category_ids: COCO's category id of each class, or None.
        annotations: the COCO file of each split, which holds the ground truth where it exists.
        images: the folder that holds the images of each split's COCO file.
        recipe: what `train.py` takes for its options of the same names where they are left out.
        notes: keys that are ignored, one line each.
    """

    file: Path
    path: Path
    splits: Mapping[str, tuple[str, ...]]
    names: tuple[str, ...]
    tile: Tiling | None = None
    category_ids: tuple[int, ...] | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_dataset_yaml(path: str | Path) -> DatasetConfig:
    """Read the YAML of a detection data set.

    Keys that are not known, such as `nc` and `download`, are noted and ignored; nothing of them is run.

    Args:
        path: the YAML; a bare name such as `coco.yaml` or `coco` is also looked for among those that ship.

    Raises:
        UserError: the file or its root folder is missing, or a key is missing or cannot be used.
    """
    file = find_dataset_yaml(path)
    with reading(file, "a data-set YAML"):
        return _read(file)


def _read(file: Path) -> DatasetConfig:
    content = read_keys(file)
    if content.get("task") == "classify":
        raise UserError(f"{file} is a data set for classification; this needs one with boxes")
    known = {key: value for key, value in content.items() if key in DetectionYaml.model_fields}
    written = DetectionYaml.of(known, file)
    return DatasetConfig(
        file=file,
        path=root_folder(file, written.path),
        splits=written.splits,
        names=written.names,
        tile=written.tile,
        category_ids=written.category_ids,
        annotations=_of_splits(written.annotations, written.splits),
        images=_of_splits(written.images, written.splits),
        recipe=resolved_recipe(file, written.recipe),
        notes=(*_unnamed(file, content["names"]), *_ignored(file, content, known)),
    )


def read_class_names(path: str | Path) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    """Return the class names of a data-set YAML and their category ids; the data need not be there.

    Raises:
        UserError: the file is missing, or its names cannot be used.
    """
    file = find_dataset_yaml(path)
    with reading(file, "a data-set YAML"):
        content = read_keys(file)
        known = {key: content[key] for key in ("names", "category_ids") if key in content}
        written = DetectionYaml.of({**known, "val": "."}, file)
    return written.names, written.category_ids


def _unnamed(file: Path, names: Any) -> list[str]:
    """A note on numbers that are left out among numbered names."""
    gaps = max(map(int, names)) + 1 - len(names) if isinstance(names, dict) else 0
    return [f"{file}: 'names' leaves out {gaps} number(s); called class1 and so on"] if gaps else []


def _ignored(file: Path, content: Mapping[Any, Any], known: Mapping[str, Any]) -> list[str]:
    """A note on each key that means nothing here."""
    return [
        f"{file}: key '{key}' ignored" + (" (nothing is downloaded or run)" if key == "download" else "")
        for key in content
        if key not in known
    ]


def find_dataset_yaml(path: str | Path) -> Path:
    """Return the YAML that is meant: `path` itself, else the one that ships under this name.

    Raises:
        UserError: there is none; the message lists those that ship.
    """
    file = Path(path)
    if file.is_file():
        return file
    shipped = {yaml.stem: yaml for yaml in sorted(SHIPPED.glob("*.yaml"))}
    name = file.stem if file.suffix in (".yaml", ".yml") else file.name
    if file.parent in (Path(), Path("data")) and name in shipped:
        return shipped[name]
    raise UserError(
        f"no data-set file {file}; give a YAML of your own or one that ships. {suggest(name, shipped)}"
    )


def read_keys(file: Path) -> dict[Any, Any]:
    """Return the keys of a data-set YAML with their values.

    Raises:
        UserError: it is not YAML, or has no keys.
    """
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise UserError(f"{file}: a data set has keys such as 'train' and 'names', found {kind_of(content)}")
    return content


def root_folder(file: Path, written: str | None) -> Path:
    """Return the root folder: as written if absolute, else below the YAML's folder or the current one.

    A YAML that lies in a folder with the name that `path` ends with means its own folder.

    Raises:
        UserError: there is no such folder.
    """
    if written is None:
        return file.resolve().parent
    folders = [file.resolve().parent, Path.cwd()]
    root = resolve(written, folders, Path.is_dir)
    if root is None and as_path(written).name == folders[0].name:
        root = folders[0]
    if root is not None:
        return root.resolve()
    tried = " and ".join(dict.fromkeys(str(folder.resolve()) for folder in places(written, folders)))
    hint = "; the file's first lines say where to get the data" if file.parent.resolve() == SHIPPED else ""
    raise UserError(f"{file}: the folder of 'path: {written}' is not there; looked at {tried}{hint}")


def resolved_recipe(file: Path, recipe: Recipe | None) -> dict[str, Any]:
    """Return a recipe's options; its hyperparameter file is also looked for beside the YAML and `data/`."""
    if recipe is None:
        return {}
    options = recipe.model_dump(exclude_none=True)
    if recipe.hyp is not None:
        hyp = resolve(recipe.hyp, [Path(), file.parent, PROJECT], Path.is_file)
        options["hyp"] = str(hyp or recipe.hyp)
    return options


def _of_splits(written: PerSplit | None, splits: Mapping[str, Any]) -> dict[str, str]:
    """Return what is given for the splits that the data set has."""
    given = written.model_dump(exclude_none=True) if written else {}
    return {split: value for split, value in given.items() if split in splits}
