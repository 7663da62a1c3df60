"""The cache of labels is never older than the labels, and damage to it costs only time."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

import data.detection.records as records_module
from data.dataset_yaml import DatasetConfig, read_dataset_yaml
from data.detection.image_store import ImageStore
from data.detection.records import read_records


@pytest.fixture
def description(squares: Path, tmp_path: Path) -> DatasetConfig:
    """A copy of the squares, whose cache is written."""
    shutil.copytree(squares, tmp_path / "set", ignore=shutil.ignore_patterns("*.npz"))
    file = tmp_path / "set/squares.yaml"
    file.write_text(file.read_text().replace(str(squares), str(tmp_path / "set")))
    return read_dataset_yaml(file)


def boxes(description: DatasetConfig) -> list[np.ndarray]:
    return [record.boxes_xyxy for record in read_records(description, "train")[0]]


def label(description: DatasetConfig, number: int) -> Path:
    return description.path / f"labels/train/{number}.txt"


def keep_time(file: Path, before: os.stat_result) -> None:
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_label_edited_at_equal_size_and_time_is_read_again(description: DatasetConfig) -> None:
    old, file = boxes(description), label(description, 0)
    before, text = file.stat(), file.read_text()
    digit = text.index(" ") + 3
    file.write_text(text[:digit] + str(9 - int(text[digit])) + text[digit + 1 :])
    keep_time(file, before)
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    new = boxes(description)
    assert not np.array_equal(old[0], new[0])
    assert all(map(np.array_equal, old[1:], new[1:]))


def test_labels_that_have_changed_places_are_read_again(description: DatasetConfig, tmp_path: Path) -> None:
    first, second = label(description, 0), label(description, 1)
    for file in (first, second):
        file.write_text(file.read_text().ljust(200, "\n"))
        os.utime(file, ns=(10**18, 10**18))
    old = boxes(description)
    os.replace(first, tmp_path / "aside")
    os.replace(second, first)
    os.replace(tmp_path / "aside", second)
    new = boxes(description)
    assert np.array_equal(old[0], new[1]) and np.array_equal(old[1], new[0])
    assert not np.array_equal(old[0], new[0])


def test_a_label_that_changes_while_it_is_read_is_not_cached_as_the_new_one(
    description: DatasetConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, file = records_module._survey, label(description, 0)

    def survey_and_change(*args: object) -> object:
        result = original(*args)  # type: ignore[arg-type]
        file.write_text("0 0.5 0.5 0.1 0.1")
        return result

    monkeypatch.setattr(records_module, "_survey", survey_and_change)
    assert len(boxes(description)[0]) == 2
    monkeypatch.undo()
    assert len(boxes(description)[0]) == 1


def test_any_damage_to_the_cache_is_one_line_at_most_and_the_labels_are_right(
    description: DatasetConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = boxes(description)
    cache = description.path / "squares-train.cache.npz"
    whole, rng, noticed = cache.read_bytes(), random.Random(0), 0
    for number in range(120):
        content = bytearray(whole)
        if number % 10 == 0:
            del content[rng.randrange(len(content)) :]
        else:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        cache.write_bytes(content)
        assert all(map(np.array_equal, boxes(description), expected))
        lines = capsys.readouterr().err.splitlines()
        noticed += len(lines)
        assert len(lines) <= 1 and all("labels are read again" in line for line in lines)
    assert noticed > 60


def test_times_before_those_of_the_cache_are_as_good_as_later_ones(description: DatasetConfig) -> None:
    boxes(description)
    file = label(description, 0)
    file.write_text("0 0.5 0.5 0.1 0.1")
    os.utime(file, ns=(10**9, 10**9))  # as after a clock that went back
    assert len(boxes(description)[0]) == 1


def test_kept_pixels_are_no_change_of_the_data_set(
    description: DatasetConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    records, problems = read_records(description, "train")
    cache = description.path / "squares-train.cache.npz"
    before = cache.stat().st_mtime_ns
    ImageStore(records, "disk", 48)
    assert (records[0].path.parent / ".pixels").is_dir()
    assert read_records(description, "train")[1] == problems == []
    assert cache.stat().st_mtime_ns == before
