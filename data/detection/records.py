"""The images of a split with their annotations, read and checked, from YOLO's layout or from COCO files."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from data.dataset_yaml import DatasetConfig
from data.detection.coco_json import CocoImage, read_category_ids, read_coco
from data.detection.label_checks import check_labels
from data.detection.record_cache import fingerprint, load_cache, save_cache
from data.detection.yolo_labels import Labels, label_path, read_labels
from data.image_record import ImageRecord, TileBox, ground_truth_arrays
from data.media.image_files import IMAGE_SUFFIXES, ImageReadError, is_image, read_size
from data.paths import list_folder, places, read_lines, resolve
from utils.errors import UserError

_CHECKS = 1  # changes with what is checked, so that what was cached before is checked again

__all__ = ["ImageRecord", "Survey", "TileBox", "coco_category_ids", "read_records", "survey_records"]


@dataclass
class Survey:
    """A split as read, with everything that is wrong with it.

    Attributes:
        records: the images that can be used.
        files: every file that the records depend on.
        broken: images that cannot be used, one line each.
        bad_rows: labels that cannot be used, "file:line: what is wrong".
        suspects: labels that can be read, but probably not as they were meant, one line for each kind.
        notes: what was repaired or left out, one line each.
    """

    records: list[ImageRecord] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    bad_rows: list[str] = field(default_factory=list)
    suspects: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_records(
    description: DatasetConfig, split: str, cache: bool = True
) -> tuple[list[ImageRecord], list[str]]:
    """Return the full images of a split, and one line for everything that is suspect, left out or repaired.

    The result is kept in `<root>/<yaml>-<split>.cache.npz` and used again as long as nothing changes.

    Args:
        description: the data set.
        split: "train", "val" or "test".
        cache: read and write the cache.

    Raises:
        UserError: the split is missing, has no readable image, or a label row is bad.
    """
    sources = split_sources(description, split)
    cache_file = description.path / f"{description.file.stem}-{split}.cache.npz"
    images, skipped = _list_all(description, sources)
    about = json.dumps(
        [
            _CHECKS,
            description.names,
            description.category_ids,
            dict(description.images),
            list(map(str, sources)),
            skipped,
        ]
    )
    files = None if images is None else _yolo_files(images)
    saved = load_cache(cache_file, about, files) if cache else None
    if saved is not None:
        return saved
    listed = files or sources
    before = fingerprint(about, listed)
    survey = _survey(description, split, sources, images, skipped)
    if survey.bad_rows:
        others = len(survey.bad_rows) - 1
        more = f" ({others} more bad rows in the data set; python -m tools.doctor lists them)"
        suspects = "".join(f"; {line}" for line in survey.suspects)
        raise UserError(survey.bad_rows[0] + (more if others else "") + suspects)
    left_out = [f"left out: {problem}" for problem in survey.broken]
    problems = survey.suspects + survey.notes + left_out
    if not survey.records:
        broken = survey.broken
        first = f" ({len(broken)} broken: {broken[0]})" if broken else ""
        raise UserError(f"no readable image in {', '.join(map(str, sources))}{first}")
    if cache and fingerprint(about, listed) == before:  # else something changed while it was read
        digest = fingerprint(about, survey.files)
        problems += save_cache(cache_file, digest, survey.records, problems, survey.files)
    return survey.records, problems


def survey_records(description: DatasetConfig, split: str) -> Survey:
    """Read a split without the cache, collecting bad labels and broken images instead of raising.

    Raises:
        UserError: the split is missing, or its COCO file is not one.
    """
    sources = split_sources(description, split)
    images, skipped = _list_all(description, sources)
    return _survey(description, split, sources, images, skipped)


def _survey(
    description: DatasetConfig,
    split: str,
    sources: list[Path],
    images: list[Path] | None,
    skipped: list[str],
) -> Survey:
    if images is None:  # the images of a COCO file are known only once it has been read
        return _survey_coco(description, split, sources)
    survey = _survey_yolo(images, description.names)
    survey.notes += skipped
    return survey


def _is_coco(sources: list[Path]) -> bool:
    return sources[0].suffix.lower() == ".json"


def _list_all(description: DatasetConfig, sources: list[Path]) -> tuple[list[Path] | None, list[str]]:
    """The images of all sources (None: of COCO files), as often as sources repeat, and what was skipped."""
    if _is_coco(sources):
        return None, []
    images: list[Path] = []
    notes: list[str] = []
    for source in sources:
        listed, skipped = _list_images(source, _folders(description))
        images += listed
        notes += skipped
    return images, notes


def _folders(description: DatasetConfig) -> list[Path]:
    """The folders that the paths of a data set may be relative to."""
    return [description.path, description.file.resolve().parent, Path.cwd()]


def _yolo_files(images: list[Path]) -> list[Path]:
    return [*images, *map(label_path, images)]


def split_sources(description: DatasetConfig, split: str) -> list[Path]:
    """Return the sources of a split, or its COCO file in `annotations` where that exists.

    Raises:
        UserError: the split is not described, or a source is missing.
    """
    if split not in description.splits:
        known = ", ".join(description.splits)
        raise UserError(f"{description.file}: no key '{split}'; it describes {known}")
    tried: list[Path] = []
    if split in description.annotations:
        coco_file = resolve(description.annotations[split], _folders(description), Path.is_file)
        if coco_file is not None:
            return [coco_file]
        tried = places(description.annotations[split], [description.path])
    sources = []
    for written in description.splits[split]:
        source = resolve(written, _folders(description))
        if source is None:
            looked = [*places(written, _folders(description)), *tried]
            where = " and ".join(map(str, looked))
            raise UserError(f"{description.file}: '{split}' is not there; looked for {where}")
        sources.append(source)
    if len({source.suffix.lower() == ".json" for source in sources}) > 1:
        raise UserError(f"{description.file}: '{split}' mixes COCO files and images; use one form")
    return sources


def coco_category_ids(description: DatasetConfig, split: str) -> tuple[int, ...] | None:
    """Return COCO's category id of each class: the YAML's, else the COCO file's, else None."""
    if description.category_ids is not None:
        return description.category_ids
    source = split_sources(description, split)[0]
    return read_category_ids(source, description.names) if source.suffix.lower() == ".json" else None


def _list_images(source: Path, folders: list[Path]) -> tuple[list[Path], list[str]]:
    """The images of a folder (and its subfolders), or those named by a list file; and what was skipped."""
    if source.is_dir():
        listing = list_folder(source, is_image)
        notes = listing.notes(source)
        if not listing.files:
            suffixes = " ".join(sorted(IMAGE_SUFFIXES))
            aside = f" ({notes[-1]})" if notes else ""
            raise UserError(f"no images in the folder {source}; looked for {suffixes}{aside}")
        return listing.files, notes
    if is_image(source):
        return [source], []
    lines = read_lines(source)
    if not lines:
        raise UserError(f"the list {source} is empty; it takes the path of an image on each line")
    near = [source.parent, *folders]
    listed = [resolve(line, near) or places(line, near)[0] for line in lines]
    other = next((path for path in listed if not is_image(path)), None)
    if other is not None:
        raise UserError(f"the list {source} names {other}, which is not an image by its name")
    images = list({os.path.abspath(path): path for path in reversed(listed)}.values())[::-1]
    repeated = len(listed) - len(images)
    notes = [f"the list {source} names {repeated} image(s) again; each counts once"] if repeated else []
    return images, notes


def _survey_yolo(images: list[Path], names: tuple[str, ...]) -> Survey:
    def read(image: Path, file: Path) -> tuple[ImageRecord | str, Labels]:
        labels = read_labels(file, names)
        try:
            width, height = read_size(image)
        except ImageReadError as error:
            return str(error), labels
        boxes = labels.boxes_xyxy_norm * [width, height, width, height]
        stem = image.stem
        image_id = int(stem) if stem.isdecimal() else stem
        annotations = ground_truth_arrays(boxes, labels.classes)
        return ImageRecord(image, image_id, width, height, *annotations), labels

    survey = Survey(files=_yolo_files(images))
    label_files, all_labels = survey.files[len(images) :], []
    with ThreadPoolExecutor() as pool:
        for record, labels in pool.map(read, images, label_files):
            if isinstance(record, str):
                survey.broken.append(record)
            else:
                survey.records.append(record)
            survey.bad_rows += labels.bad_rows
            survey.notes += labels.notes
            all_labels.append(labels)
    suspects, notes = check_labels(images, label_files, all_labels)
    survey.suspects += suspects
    survey.notes += notes
    survey.records = _with_unique_ids(survey.records)
    return survey


def _with_unique_ids(records: list[ImageRecord]) -> list[ImageRecord]:
    """Where two images have the same stem, the ids of all become their paths."""
    if len({record.image_id for record in records}) == len(records):
        return records
    return [replace(record, image_id=record.path.as_posix()) for record in records]


def _survey_coco(description: DatasetConfig, split: str, sources: list[Path]) -> Survey:
    survey = Survey(files=list(sources))
    for source in sources:
        images, notes, bad_rows, suspects = read_coco(source, description.names, description.category_ids)
        if not images:
            raise UserError(f"{source}: 'images' is empty")
        folder = _image_folder(description, split, source, images)
        with ThreadPoolExecutor() as pool:
            opened = pool.map(lambda image, root=folder: _open_coco_image(root, image), images)
            for record in opened:
                if isinstance(record, str):
                    survey.broken.append(record)
                else:
                    survey.records.append(record)
        survey.notes += notes
        survey.bad_rows += bad_rows
        survey.suspects += suspects
        survey.files += [folder / image.file_name for image in images]
    survey.records = _with_unique_ids(survey.records)
    return survey


def _open_coco_image(folder: Path, image: CocoImage) -> ImageRecord | str:
    """The image's record, or why it is left out."""
    path = folder / image.file_name
    try:
        size = read_size(path)
    except ImageReadError as error:
        return str(error)
    if size != (image.width, image.height):
        return f"{path}: is {size[0]}x{size[1]}, but its COCO entry says {image.width}x{image.height}"
    return ImageRecord(path, image.image_id, *size, *image.annotations, ignore=image.ignore)


def _image_folder(description: DatasetConfig, split: str, source: Path, images: list[CocoImage]) -> Path:
    """The folder of a COCO file's images: the one under `images` in the YAML, else a usual place near it."""
    if split in description.images:
        tried = places(description.images[split], _folders(description))
    else:
        stem = source.stem.removeprefix("instances_").removeprefix("image_info_")
        roots = dict.fromkeys([description.path, source.parent.parent, source.parent])
        tried = [root / place for root in roots for place in (f"images/{stem}", stem, "images", "")]
    probes = [image.file_name for image in images[:20]]
    for folder in tried:
        if any((folder / name).is_file() for name in probes):
            return folder
    looked = ", ".join(str(folder) for folder in tried)
    hint = f"'images: {{{split}: folder}}' in {description.file} says where they are"
    raise UserError(f"{source}: its images (such as {probes[0]}) are not in {looked}; {hint}")
