from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from utils.errors import UserError, one_line, quoted, suggest
from utils.limits import LIMITS, YAML_BYTES
from utils.reading import check_regular, guarded, is_regular, read_regular, reading


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad"),
        KeyError("k"),
        TypeError(),
        RecursionError(),
        OverflowError(),
        MemoryError(),
        OSError("x"),
    ],
)
def test_whatever_a_parser_throws_is_one_line_that_names_the_file(tmp_path: Path, error: Exception) -> None:
    file = tmp_path / "a.bin"
    file.touch()
    with (
        pytest.raises(UserError, match=r"a\.bin: not a thing that can be read") as caught,
        reading(file, "a thing"),
    ):
        raise error
    assert caught.value.__cause__ is error
    assert "\n" not in str(caught.value)


def test_our_own_mistakes_and_ctrl_c_keep_their_traceback() -> None:
    with pytest.raises(AssertionError), guarded("a", "b"):
        assert not "ours"
    with pytest.raises(KeyboardInterrupt), guarded("a", "b"):
        raise KeyboardInterrupt
    with pytest.raises(UserError, match="as it is"), guarded("a", "b"):
        raise UserError("as it is")


def test_an_attribute_error_of_a_package_is_the_files_fault() -> None:
    import yaml

    with pytest.raises(UserError, match="a: not b that can be read"), guarded("a", "b"):
        yaml.safe_load("!!timestamp x")


@pytest.mark.skipif(sys.platform == "win32", reason="needs FIFOs")
def test_only_regular_files_are_read_and_nothing_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    for name, kind in (("fifo", "a FIFO"), ("zero", "a device"), (".", "a folder")):
        with pytest.raises(UserError, match=f"is {kind}, not a label"):
            check_regular(tmp_path / name, "a label")
    for name in ("none", "a\0b"):
        with pytest.raises(UserError, match="no "):
            check_regular(tmp_path / name)
    assert [is_regular(tmp_path / name) for name in ("file", "link", "fifo", "none", "a\0")] == [
        True, True, False, False, False,
    ]  # fmt: skip


def test_messages_are_short_and_safe_and_keep_the_choices() -> None:
    assert len(one_line("x" * 10**6)) == 300
    assert one_line("a\x1b[31m\nb") == "a\\x1b[31m b"
    listed = one_line("unknown key " + "k" * 1000 + ". " + suggest("y" * 10**6, ["a", "b"]))
    assert listed.endswith("Choose from: a, b")
    assert len(listed) < 330


def test_quoted_values_do_not_unfold() -> None:
    value: list[object] = ["lol"]
    for _ in range(40):
        value = [value] * 10
    assert len(quoted(value)) < 10_000
    assert quoted(10**5000) == "a int"


def test_limits_are_lifted_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"a: 300,000 bytes.*at most 262,144 .*YOLOV5_SPD_LIMITS=yaml_bytes"):
        YAML_BYTES.check(300_000, "a")
    with pytest.raises(UserError):
        YAML_BYTES.check(float("nan"), "a")
    monkeypatch.setenv("YOLOV5_SPD_LIMITS", "yaml_bytes=1e6")
    YAML_BYTES.check(300_000, "a")
    for text, message in (("yaml_bites=1", "Did you mean 'yaml_bytes'"), ("yaml_bytes=0", "must be like")):
        monkeypatch.setenv("YOLOV5_SPD_LIMITS", text)
        with pytest.raises(UserError, match=message):
            YAML_BYTES.check(1, "a")


def test_every_limit_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "limits.md").read_text(encoding="utf-8")
    for name, limit in LIMITS.items():
        assert f"| `{name}` | {limit.default:,} | {limit.what} |" in page


def test_a_regular_file_is_read_at_once_and_nothing_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLOV5_SPD_LIMITS", "label_bytes=8")
    limit = LIMITS["label_bytes"]
    file, fifo = tmp_path / "a.txt", tmp_path / "fifo"
    file.write_bytes(b"12345678")
    assert read_regular(file, "a label file", limit) == b"12345678"
    (tmp_path / "link").symlink_to(file)
    assert read_regular(tmp_path / "link", "a label file", limit) == b"12345678"
    os.mkfifo(fifo)
    file.write_bytes(b"123456789")
    for path, message in (
        (file, "lifts this"),
        (fifo, "is a FIFO, not a label file"),
        (tmp_path, "is a folder, not a label file"),
        (tmp_path / "none", "no label file"),
        (tmp_path / "a\0", "no name of a file"),
    ):
        with pytest.raises(UserError, match=message):
            read_regular(path, "a label file", limit)
