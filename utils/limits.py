"""What is too large to be meant: bounds that are checked before the work, all of them here.

A file of a few bytes can ask for gigabytes. Each limit lies far above what data sets and networks need; where
yours is larger, the environment variable YOLOV5_SPD_LIMITS lifts it:

    YOLOV5_SPD_LIMITS="image_pixels=2e9 classes=50000" python train.py ...
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass

from utils.errors import UserError, suggest

VARIABLE = "YOLOV5_SPD_LIMITS"
LIMITS: dict[str, Limit] = {}


@dataclass(frozen=True)
class Limit:
    """The most there may be of something; `LIMITS` lists all.

    Attributes:
        name: by which it is lifted.
        default: the most.
        what: is counted, for messages and the documentation.
    """

    name: str
    default: int
    what: str

    def __post_init__(self) -> None:
        LIMITS[self.name] = self

    @property
    def most(self) -> int:
        """The default, or what the environment says instead."""
        return lifted(os.environ.get(VARIABLE, "")).get(self.name, self.default)

    def check(self, value: float, where: object) -> None:
        """Refuse a value that is larger.

        Raises:
            UserError: it names the limit and how it is lifted.
        """
        if not value <= self.most:
            raise UserError(self.refusal(value, where))

    def refusal(self, value: float, where: object) -> str:
        """Return the message for a value that is too large."""
        count = (
            f"{value:,}" if isinstance(value, int) and value < 10**15 else f"{float(min(value, 1e300)):.3g}"
        )
        hint = f"{VARIABLE}={self.name}=... lifts this"
        return f"{where}: {count} {self.what}, at most {self.most:,} are taken ({hint})"


@functools.lru_cache
def lifted(text: str) -> dict[str, int]:
    """Read the environment variable's value, such as "image_pixels=2e9 classes=50000".

    Raises:
        UserError: an unknown limit, or no whole number above 0.
    """
    limits = {}
    for word in text.replace(",", " ").split():
        name, _, value = word.partition("=")
        if name not in LIMITS:
            raise UserError(f"{VARIABLE}: unknown limit '{name}'. {suggest(name, LIMITS)}")
        try:
            limits[name] = int(float(value))
        except (ValueError, OverflowError):
            limits[name] = 0
        if limits[name] < 1:
            raise UserError(f"{VARIABLE}: '{word}' must be like {name}={LIMITS[name].default}")
    return limits


YAML_BYTES = Limit("yaml_bytes", 2**18, "bytes of a YAML file of settings")
YAML_VALUES = Limit("yaml_values", 10**6, "values and characters in a YAML file, repeated by aliases")
LOOP_SECONDS = Limit("loop_seconds", 60, "seconds of one run of an ONNX graph with loops")
IMAGE_PIXELS = Limit("image_pixels", 2**30, "pixels in an image")
IMAGE_RATIO = Limit("image_ratio", 100, "pixels for each byte of a large image file")
VIDEO_PIXELS = Limit("video_pixels", 2**26, "pixels in a frame of a video")
ANIMATION_FRAMES = Limit("animation_frames", 10_000, "frames in an animated image")
TILES = Limit("tiles", 20_000, "tiles of one image")
CLASSES = Limit("classes", 10_000, "classes")
CHANNELS = Limit("channels", 2**14, "channels of a layer")
REPEATS = Limit("repeats", 200, "repeats of a block")
KERNEL = Limit("kernel", 127, "as kernel, stride, padding or factor of a layer")
PARAMETERS = Limit("parameters", 160_000_000, "parameters of a network")
MAP_VALUES = Limit("map_values", 2**26, "values in a layer's output for the image that networks are tried on")
MODULES = Limit("modules", 20_000, "modules in a pickled network")
PICKLE_BYTES = Limit("pickle_bytes", 3 * 2**20, "bytes in the pickle of a checkpoint, tensors aside")
CHECKPOINT_VALUES = Limit("checkpoint_values", 10**7, "values in a checkpoint, tensors aside")
MEMBERS = Limit("members", 20_000, "members of an archive")
UNPACKED_BYTES = Limit("unpacked_bytes", 2**28, "bytes unpacked from a file that is small for that")
UNPACKED_RATIO = 100  # bytes unpacked for each byte packed, at which more than that is plausible
LABEL_BYTES = Limit("label_bytes", 2**23, "bytes of a label file")
JSON_BYTES = Limit("json_bytes", 2**31, "bytes of a JSON file")
INPUT_SIDE = Limit("input_side", 2**14, "pixels as the side of a network's input")
INPUT_VALUES = Limit("input_values", 2**28, "values in a network's input")
NCNN_LAYERS = Limit("ncnn_layers", 20_000, "layers of an NCNN graph")
NCNN_BYTES = Limit("ncnn_bytes", 2**22, "bytes of the text of an NCNN graph")
WORKERS = Limit("workers", 64, "worker processes that read images")
METADATA_BYTES = Limit("metadata_bytes", 2**21, "characters in the metadata of a network file")


def check_unpacked(unpacked: int, packed: int, where: object) -> None:
    """Refuse what unpacks to many times its size.

    Raises:
        UserError: it names the limit.
    """
    if unpacked > UNPACKED_RATIO * packed:
        UNPACKED_BYTES.check(unpacked, where)
