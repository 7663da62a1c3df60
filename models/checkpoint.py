"""Checkpoints: written atomically, read without running anything they contain.

Ours is a dict of tensors and plain data, read with `torch.load(weights_only=True)`:

    format    FORMAT
    model     the architecture, as a model YAML holds it
    names     of the classes
    weights   state dict of the (averaged) weights
    ...       what training adds: config, epoch, best_fitness, training
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from models.pickled_checkpoint import classes_named_in, load_plain, read_pickled_model
from utils.archives import check_sums, read_unchecked
from utils.drafts import clear_drafts
from utils.errors import UserError, quoted
from utils.files import write_atomically, written_size
from utils.limits import CHECKPOINT_VALUES, MEMBERS, PICKLE_BYTES
from utils.reading import reading

FORMAT = 1
PUBLISHED = "YOLOv5's are published at https://github.com/ultralytics/yolov5/releases"
_PLAIN = (int, float, str, bool, bytes, type(None), torch.device, torch.dtype, torch.Size)


def save_checkpoint(path: str | Path, content: dict[str, Any]) -> None:
    """Write `content` to `path`, all of it or nothing; an older file there survives a failure.

    Raises:
        UserError: the file cannot be written.
        TypeError: `content` holds something other than tensors and plain data, which could not be read again.
    """
    _check_plain(content, "checkpoint")
    path = Path(path)
    clear_drafts(path.parent, path.name)
    try:
        with write_atomically(path, "wb", sync=True) as file:
            save_with_checksums({"format": FORMAT, **content}, file)
    except RuntimeError as error:  # how torch reports a failed write
        raise UserError(f"cannot write {path}: {str(error).splitlines()[0]}") from error


def save_with_checksums(content: Any, file: IO[bytes], **options: Any) -> None:
    """Call `torch.save` so that every part of the archive has a checksum, whatever torch was told."""
    usual = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)
    try:
        torch.save(content, file, **options)
    finally:
        torch.serialization.set_crc32_options(usual)


def _check_plain(value: Any, where: str) -> None:
    """Raise a TypeError that names the first thing `weights_only` loading would refuse."""
    if isinstance(value, Tensor) or type(value) in _PLAIN:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            _check_plain(key, f"a key of {where}")
            _check_plain(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple, set):
        for index, item in enumerate(value):
            _check_plain(item, f"{where}[{index}]")
    else:
        raise TypeError(
            f"{where} is a {type(value).__name__}; a checkpoint holds tensors and plain data only"
        )


def read_checkpoint(path: str | Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """Return a checkpoint's content: at least format, model, names and weights.

    Official YOLOv5 and released YOLOv5-SPD files, which are pickles, are returned in the same form.

    Raises:
        UserError: no such file, not a checkpoint, damaged, or it names code; one line that says which.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a checkpoint; give the .pt file in it")
    if not path.exists():
        raise UserError(f"no weights file {path}; {PUBLISHED}")
    with reading(path, "a checkpoint"):
        _check_container(path)
        named = classes_named_in(path)
        if named:
            return _bounded({"format": FORMAT, **read_pickled_model(path, named, map_location)}, path)
        return _checked(_bounded(load_plain(path, map_location), path), path)


def _check_container(path: Path) -> None:
    """Raise a UserError unless the file is the zip archive torch.save has written since version 1.6."""
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"PK\x03\x04":
        return _check_archive(path)
    if not start:
        raise UserError(f"{path} is empty")
    if start[:1] == b"\x80":
        raise UserError(
            f"{path} is in PyTorch's format from before version 1.6, which is not read here; "
            "load it where it was made and save it again"
        )
    raise UserError(f"{path} is not a PyTorch checkpoint")


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            MEMBERS.check(len(entries), path)
            members = {name.rpartition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path} is damaged and cannot be read, perhaps cut short: {error}") from error
    if "constants.pkl" in members:
        raise UserError(f"{path} is a TorchScript export; give the checkpoint it was made from")
    if "data.pkl" not in members:
        raise UserError(f"{path} is a zip archive, not a PyTorch checkpoint")
    _check_members(entries, path)
    with zipfile.ZipFile(path) as archive:
        check_sums(archive, path)
        pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
        if any(b"bytearray" in read_unchecked(archive, entry) for entry in pickles):
            raise UserError(f"{path} is refused: it names bytearray, which no checkpoint holds")


def _check_members(entries: Sequence[zipfile.ZipInfo], path: Path) -> None:
    """Refuse an archive with packed members: torch packs none, and a small one can be huge.

    Raises:
        UserError: as above.
    """
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise UserError(
                f"{path} is refused: its part {quoted(entry.filename)} is packed, as torch never does"
            )
        if entry.filename.endswith("data.pkl"):
            PICKLE_BYTES.check(entry.file_size, path)


def _bounded(content: Any, path: Path) -> Any:
    """Refuse tensors that are larger than their file, and plain data that repeats itself without end."""
    CHECKPOINT_VALUES.check(written_size(content), path)
    largest = path.stat().st_size
    stack, seen = [content], set()
    while stack:
        value = stack.pop()
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.numel() * value.element_size() > largest:
                raise UserError(
                    f"{path} is refused: a tensor of {tuple(value.shape)} is larger than the file"
                )
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            stack += value.values() if isinstance(value, dict) else value
    return content


def _checked(content: Any, path: Path) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a checkpoint with an architecture")
    if "format" not in content:
        tensors = all(isinstance(value, Tensor) for value in content.values())
        what = "a plain state dict" if tensors else f"a dict with {', '.join(map(str, list(content)[:5]))}"
        raise UserError(f"{path} holds {what}, without the architecture: it is not a detector checkpoint")
    if content["format"] != FORMAT:
        raise UserError(f"{path} has format {quoted(content['format'])}; this version reads format {FORMAT}")
    for key, kind in (("model", dict), ("names", list), ("weights", dict)):
        if not isinstance(content.get(key), kind):
            raise UserError(f"{path} has no '{key}': it is not a detector checkpoint")
    for key in ("config", "training", "tile"):
        if not isinstance(content.get(key) or {}, dict):
            raise UserError(f"{path}: '{key}' is {quoted(content[key])}, and should hold keys with values")
    return content
