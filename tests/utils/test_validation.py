from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from utils.errors import UserError
from utils.validation import Checked, must_be


class Inner(Checked):
    count: int = Field(1, ge=1)


class Outer(Checked):
    share: float = Field(0.5, ge=0, lt=1)
    kind: Literal["cat", "dog"] = "cat"
    folder: Annotated[str | None, must_be("a folder")] = None
    inner: Inner = Inner()
    flag: bool = False


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"share": -1}, "'share' must be at least 0, got -1"),
        ({"share": 1.0}, "'share' must be below 1, got 1.0"),
        ({"share": True}, "'share' must be a number, found true"),
        ({"share": "0.5"}, "'share' must be a number, found the text '0.5'"),
        ({"share": float("nan")}, "'share' must be a finite number, found the float nan"),
        ({"kind": "dgo"}, "'kind' has no choice 'dgo'. Did you mean 'dog'? Choose from: cat, dog"),
        ({"folder": [1]}, "'folder' must be a folder, found the list [1]"),
        ({"flag": 1}, "'flag' must be true or false, found the int 1"),
        ({"inner": {"count": 0}}, "'count' in 'inner' must be at least 1, got 0"),
        ({"inner": {"count": 2.5}}, "'count' in 'inner' must be a whole number, found the float 2.5"),
        ({"inner": 3}, "'inner' must be keys with values, found the int 3"),
        (
            {"inner": {"cuont": 2}},
            "unknown key 'cuont' in 'inner'. Did you mean 'count'? Choose from: count",
        ),
        (
            {"shar": 0.2},
            "unknown key 'shar'. Did you mean 'share'? Choose from: flag, folder, inner, kind, share",
        ),
    ],
)
def test_what_is_wrong_is_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Outer(**values)
    assert str(caught.value) == message
    with pytest.raises(UserError) as caught:
        Outer.of(values, Path("mine.yaml"))
    assert str(caught.value) == f"mine.yaml: {message}"


def test_keys_that_are_no_text_are_unknown_ones() -> None:
    with pytest.raises(UserError, match=r"mine\.yaml: unknown key '1'"):
        Outer.of({1: 2}, Path("mine.yaml"))


def test_good_values_are_taken_and_cannot_be_changed() -> None:
    outer = Outer.of({"share": 0, "inner": {"count": 3}}, Path("mine.yaml"))
    assert (outer.share, outer.inner.count) == (0.0, 3)
    with pytest.raises(ValueError, match="frozen"):
        outer.share = 0.1  # type: ignore[misc]
