"""A data-set description: the YAML that says where images and labels are and what the classes are called.

path: ../datasets/mine        # root; relative to this file's folder, else to the current directory
train: images/train           # a folder, a list file (*.txt), a COCO file (*.json), or a list of these
val: images/val
test: images/test             # optional
names: [car, person]          # or {0: car, 1: person}
tile: {size: 640, overlap: .2, min_area: .4}    # optional: read images as overlapping tiles
annotations: {val: annotations/val.json}        # optional: COCO files that are the truth where they exist
images: {val: images/val}                       # optional: where the images of a COCO file are
category_ids: [1, 3]                            # optional: COCO's category id of each class
recipe: {hyp: data/hyps/low.yaml, imgsz: 640, epochs: 100, batch_size: 16}  # optional: for train.py
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from data.detection.tiling import Tiling
from utils.errors import UserError, suggest

SPLITS = ("train", "val", "test")
KEYS = ("path", *SPLITS, "names", "tile", "annotations", "images", "category_ids", "recipe")
SHIPPED = Path(__file__).resolve().parent  # the data sets that ship are described here
RECIPE: dict[str, type] = {"hyp": str, "imgsz": int, "epochs": int, "batch_size": int}


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
        annotations: the COCO file of a split, the truth where it exists.
        images: the folder that holds the images of a split's COCO file.
        recipe: what `train.py` takes for its options of the same names where they are left out.
        notes: what was found and ignored, one line each.
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
    """Read a data-set YAML; foreign keys such as `nc` and `download` are noted and ignored, never run.

    Args:
        path: the YAML; a bare name such as `coco.yaml` or `coco` is also looked for among those that ship.

    Raises:
        UserError: the file or its root folder is not there, or a key is missing or of the wrong type.
    """
    file = find_dataset_yaml(path)
    content = load_yaml(file)
    if content.get("task") == "classify":
        raise UserError(f"{file} is a data set for classification; this needs one with boxes")
    notes = tuple(
        f"{file}: key '{key}' ignored" + (" (nothing is downloaded or run)" if key == "download" else "")
        for key in content
        if key not in KEYS
    )
    splits = {split: sources_of(file, split, content[split]) for split in SPLITS if content.get(split)}
    if not splits:
        raise UserError(f"{file}: no key 'train' or 'val'; each names a folder, a list file or a COCO file")
    names = class_names(file, content)
    return DatasetConfig(
        file=file,
        path=root_folder(file, content.get("path")),
        splits=splits,
        names=names,
        tile=_tile(file, content.get("tile")),
        category_ids=_category_ids(file, content.get("category_ids"), len(names)),
        annotations=_per_split(file, "annotations", content.get("annotations"), splits),
        images=_per_split(file, "images", content.get("images"), splits),
        recipe=recipe_of(file, content.get("recipe")),
        notes=notes,
    )


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


def load_yaml(file: Path) -> dict[Any, Any]:
    """Return the keys of a data-set YAML."""
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not readable as YAML: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{file}: a data set has keys such as 'train' and 'names', found {kind_of(content)}")
    return content


def kind_of(value: Any) -> str:
    """Return what a value of a YAML is, for messages."""
    kinds = {dict: "keys", list: "a list", str: "text", type(None): "nothing", bool: "true/false"}
    return kinds.get(type(value), f"the {type(value).__name__} {value!r}")


def root_folder(file: Path, written: Any) -> Path:
    """The root folder: as written if absolute, else under the YAML's folder, else under the current one."""
    if written is None:
        return file.resolve().parent
    if not isinstance(written, str) or not written:
        raise UserError(f"{file}: 'path' must be a folder, found {kind_of(written)}")
    root = Path(written).expanduser()
    tried = [root] if root.is_absolute() else [file.resolve().parent / root, Path.cwd() / root]
    for place in tried:
        if place.is_dir():
            return place.resolve()
    places = " and ".join(dict.fromkeys(str(place.resolve()) for place in tried))
    hint = "; the file's first lines say where to get the data" if file.parent.resolve() == SHIPPED else ""
    raise UserError(f"{file}: the folder of 'path: {written}' is not there; looked at {places}{hint}")


def sources_of(file: Path, split: str, written: Any) -> tuple[str, ...]:
    """Return the sources of a split: one, or a list of them."""
    sources = written if isinstance(written, list) else [written]
    for source in sources:
        if not isinstance(source, str) or not source:
            message = "must be a folder, a list file, a COCO file or a list of these"
            raise UserError(f"{file}: '{split}' {message}, found {kind_of(source)}")
    return tuple(sources)


def class_names(file: Path, content: dict[Any, Any]) -> tuple[str, ...]:
    """Return `names`, a list or numbered."""
    names = content.get("names")
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            wanted = f"0 to {len(names) - 1}"
            raise UserError(
                f"{file}: the keys of 'names' must count {wanted}, found {', '.join(map(str, names))}"
            )
        by_number = {int(key): name for key, name in names.items()}
        names = [by_number[number] for number in range(len(names))]
    if names is None or names == []:
        raise UserError(f"{file}: no key 'names'; it lists the class names, such as names: [car, person]")
    if not isinstance(names, list):
        raise UserError(f"{file}: 'names' must list the class names, found {kind_of(names)}")
    for number, name in enumerate(names):
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise UserError(f"{file}: name {number} must be text, found {kind_of(name)}; put it in quotes")
    return tuple(map(str, names))


def _tile(file: Path, written: Any) -> Tiling | None:
    if written is None or written is False:
        return None
    if not isinstance(written, dict) or "size" not in written:
        raise UserError(f"{file}: 'tile' must be like {{size: 640, overlap: .2, min_area: .4}}")
    known = [item.name for item in fields(Tiling)]
    for key in written:
        if key not in known:
            raise UserError(f"{file}: unknown key '{key}' in 'tile'. {suggest(str(key), known)}")
    try:
        return Tiling(**written)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


def _category_ids(file: Path, written: Any, class_count: int) -> tuple[int, ...] | None:
    if written is None:
        return None
    if not isinstance(written, list) or not all(type(number) is int for number in written):
        raise UserError(f"{file}: 'category_ids' must be a list of whole numbers, found {kind_of(written)}")
    if len(written) != class_count or len(set(written)) != class_count:
        message = f"must give {class_count} different ids, one a name, found {len(set(written))}"
        raise UserError(f"{file}: 'category_ids' {message}")
    return tuple(written)


def _per_split(file: Path, key: str, written: Any, splits: Mapping[str, Any]) -> dict[str, str]:
    """A folder or file for each split; one text stands for all splits."""
    if written is None:
        return {}
    if isinstance(written, str):
        return dict.fromkeys(splits, written)
    if not isinstance(written, dict) or not all(isinstance(value, str) for value in written.values()):
        raise UserError(f"{file}: '{key}' must be like {{train: ..., val: ...}}, found {kind_of(written)}")
    for split in written:
        if split not in SPLITS:
            raise UserError(f"{file}: unknown key '{split}' in '{key}'. {suggest(str(split), SPLITS)}")
    return dict(written)


def recipe_of(file: Path, written: Any) -> dict[str, Any]:
    """Training options; the hyperparameter file is looked for beside the YAML and beside `data/`."""
    if written is None:
        return {}
    if not isinstance(written, dict):
        raise UserError(
            f"{file}: 'recipe' must be like {{hyp: hyps/low.yaml, imgsz: 640}}, found {kind_of(written)}"
        )
    for key, value in written.items():
        if key not in RECIPE:
            raise UserError(f"{file}: unknown key '{key}' in 'recipe'. {suggest(str(key), RECIPE)}")
        wrong = type(value) is not RECIPE[key] or (isinstance(value, int) and value < 1)
        if wrong:
            wanted = "a YAML file" if key == "hyp" else "a whole number from 1"
            raise UserError(f"{file}: '{key}' in 'recipe' must be {wanted}, found {kind_of(value)}")
    if "hyp" not in written:
        return dict(written)
    places = [Path(written["hyp"]), file.parent / written["hyp"], SHIPPED.parent / written["hyp"]]
    return {**written, "hyp": str(next((place for place in places if place.is_file()), places[0]))}
