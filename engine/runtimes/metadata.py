"""What an exported file says of itself: classes, stride, size and how it was trained."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from utils.errors import UserError, quoted
from utils.limits import CLASSES, INPUT_SIDE, INPUT_VALUES, METADATA_BYTES
from utils.reading import reason

FORMAT = 1  # raised when a reader of today would misread what is written


@dataclass(frozen=True)
class Metadata:
    """Travels inside an exported file, each value as a JSON string.

    Attributes:
        names: the classes.
        stride: input height and width are multiples of this, pixels.
        task: what the output means; "detect" is (B, N, 5 + classes), "classify" logits (B, classes).
        imgsz: height and width the file was exported for, pixels; None where unknown.
        dynamic: whether batch, height and width are free; of a classifier, the batch.
        batch: images in a batch, where that is fixed.
        nms: whether the file ends in NMS; its output is then (B, K, 6) x1, y1, x2, y2 in pixels, confidence,
            class, best first, filled with zeros.
        precision: what the file computes in: "fp32", "fp16" or "int8".
        config: the training's configuration, or {}.
    """

    names: list[str]
    stride: int
    task: str = "detect"
    imgsz: tuple[int, int] | None = None
    dynamic: bool = False
    batch: int = 1
    nms: bool = False
    precision: str = "fp32"
    config: dict[str, Any] = field(default_factory=dict)

    def to_strings(self) -> dict[str, str]:
        """Return what is written into the file."""
        values: dict[str, Any] = {
            "format": FORMAT,
            "names": self.names,
            "stride": self.stride,
            "task": self.task,
            "imgsz": self.imgsz,
            "dynamic": self.dynamic,
            "batch": self.batch,
            "nms": self.nms,
            "precision": self.precision,
            "config": self.config,
        }
        return {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}

    @classmethod
    def from_strings(cls, strings: Mapping[str, str], where: str) -> Metadata:
        """Read what `to_strings` or YOLOv5's own export has written.

        Args:
            strings: key -> value.
            where: the file's name, for the message.

        Raises:
            UserError: names or stride are missing, or a value cannot be read.
        """
        missing = [key for key in ("names", "stride") if key not in strings]
        if missing:
            raise UserError(
                f"{where}: no metadata '{missing[0]}' in the file; export it with export.py, "
                "or give the data-set YAML with --data"
            )
        METADATA_BYTES.check(sum(map(len, strings.values())), where)
        values = {key: read_value(text) for key, text in strings.items()}
        names, imgsz = values["names"], values.get("imgsz")
        try:
            if int(values.get("format") or FORMAT) > FORMAT:
                raise UserError(f"{where}: written by a newer version of this project; update it")
            if not isinstance(names, list | dict):
                raise TypeError(f"names are {quoted(names)}")
            named = [names[key] for key in sorted(names, key=int)] if isinstance(names, dict) else names
            CLASSES.check(len(named), where)
            for side in (int(values["stride"]), *(imgsz or ())):
                if not 1 <= int(side) <= INPUT_SIDE.most:
                    raise UserError(INPUT_SIDE.refusal(int(side), where))
            INPUT_VALUES.check(int(values.get("batch") or 1), f"{where}: batch")
            config = values.get("config")
            return cls(
                names=[str(name) for name in named],
                stride=int(values["stride"]),
                task=str(values.get("task") or "detect"),
                imgsz=(int(imgsz[0]), int(imgsz[1])) if imgsz else None,
                dynamic=bool(values.get("dynamic")),
                batch=int(values.get("batch") or 1),
                nms=bool(values.get("nms")),
                precision=str(values.get("precision") or "fp32"),
                config=config if isinstance(config, dict) else {},
            )
        except (TypeError, KeyError, IndexError, ValueError, OverflowError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"{where}: unreadable metadata ({reason(error)}); export it again with export.py"
            ) from error


def read_value(text: str) -> Any:
    """Read JSON, or the Python literals that YOLOv5's export writes, or plain text; nothing is run."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return text
