"""Names of a run's outputs and ids of its images: no two of them are the same."""

from __future__ import annotations

import re
from pathlib import Path

_NUMBERED = re.compile(r"(.*)_\d+", re.DOTALL)  # what the outputs of a video's frame are called


class UniqueNames:
    """Give each file a stem no other has: a.jpg and b/a.jpg become 'a' and 'a-2'.

    The frames of a video are called 'clip_1', 'clip_2', ...; no file beside it has such a name, nor a
    video whose frames would be called as a file is.
    """

    def __init__(self) -> None:
        self._names: dict[Path, str] = {}
        self._taken: set[str] = set()
        self._videos: set[str] = set()
        self._before_numbers: set[str] = set()  # 'clip' where a file is called 'clip_1'
        self._numbers: dict[str, int] = {}  # the last number that a stem was given

    def __call__(self, path: Path, is_video: bool = False) -> str:
        """Return the stem for `path`, always the same."""
        if path not in self._names:
            stem = path.stem.lower()  # some file systems ignore case
            number, name = self._numbers.get(stem, 1), path.stem
            while not self._is_free(name.lower(), is_video):
                number += 1
                name = f"{path.stem}-{number}"
            self._numbers[stem] = number
            self._take(name.lower(), is_video)
            self._names[path] = name
        return self._names[path]

    def _is_free(self, name: str, is_video: bool) -> bool:
        if name in self._taken or (is_video and name in self._before_numbers):
            return False
        numbered = _NUMBERED.fullmatch(name)
        return numbered is None or numbered[1] not in self._videos

    def _take(self, name: str, is_video: bool) -> None:
        self._taken.add(name)
        if is_video:
            self._videos.add(name)
        if numbered := _NUMBERED.fullmatch(name):
            self._before_numbers.add(numbered[1])


class ImageIds:
    """COCO's image id by an image's name: a number where the name is one, unless another image has it."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}

    def __call__(self, name: str) -> int | str:
        """Return 139 for '000000000139', and 'a' for 'a'; '0139', too, stays a text where 139 is given."""
        if not name.isdecimal():
            return name
        return int(name) if self._names.setdefault(int(name), name) == name else name
