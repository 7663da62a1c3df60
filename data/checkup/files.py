"""What is wrong with a data set's files: broken images, bad labels, copies, leaks between splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from data.checkup.copies import read_fingerprints, same_bytes, similar
from data.dataset_yaml import DatasetConfig
from data.detection.records import Survey


@dataclass
class FileReport:
    """Faults and remarks by kind.

    Attributes:
        errors: title and lines of each kind of fault that must be fixed.
        remarks: title and lines of each kind of thing that is worth knowing.
    """

    errors: dict[str, list[str]] = field(default_factory=dict)
    remarks: dict[str, list[str]] = field(default_factory=dict)

    def add(self, is_error: bool, title: str, lines: list[str]) -> None:
        """Add lines under a title; no lines are no fault."""
        if lines:
            (self.errors if is_error else self.remarks).setdefault(title, []).extend(lines)


def examine_files(
    description: DatasetConfig, surveys: Mapping[str, Survey], look_similar: bool
) -> FileReport:
    """Return what is wrong with the files of the splits.

    Args:
        description: the data set.
        surveys: of each split.
        look_similar: decode all images, to find copies that were encoded or resized again.
    """
    report = FileReport()
    report.add(False, "notes", list(description.notes))
    for split, survey in surveys.items():
        report.add(True, f"broken images in {split}", survey.broken)
        report.add(True, f"bad labels in {split}", survey.bad_rows)
        report.add(True, f"implausible labels in {split}", survey.suspects)
        report.add(False, f"notes on {split}", survey.notes)
    _add_no_objects(report, surveys)
    paths = {split: {record.path.resolve() for record in survey.records} for split, survey in surveys.items()}
    pairs = [pair for pair in combinations(surveys, 2) if _compared(description, *pair)]
    exact = _add_same_files(report, paths, pairs)
    if look_similar:
        _add_similar(report, surveys, pairs, exact)
    return report


def _add_no_objects(report: FileReport, surveys: Mapping[str, Survey]) -> None:
    """Report splits without an object, where there is none in any of them or none to train on."""
    empty = [
        split
        for split, survey in surveys.items()
        if survey.records and not any(len(record.classes) for record in survey.records)
    ]
    if "train" in empty or len(empty) == len(surveys):
        lines = [f"{split}: none of {len(surveys[split].records)} images has one" for split in empty]
        report.add(True, "splits without a labeled object", lines)


def _compared(description: DatasetConfig, first: str, second: str) -> bool:
    """Whether two splits should differ; val and test may be declared to be the same."""
    return "train" in (first, second) or description.splits[first] != description.splits[second]


def _add_same_files(
    report: FileReport, paths: Mapping[str, set[Path]], pairs: list[tuple[str, str]]
) -> set[frozenset[Path]]:
    """Report files with the same bytes; return them in pairs."""
    exact: set[frozenset[Path]] = set()
    for first, second in pairs:
        shared = sorted(paths[first] & paths[second])
        report.add(True, f"the same file in {first} and {second}", list(map(str, shared)))
    for group in same_bytes(path for split in paths.values() for path in split):
        exact |= {frozenset(pair) for pair in combinations(group, 2)}
        for first, second in pairs:
            here = [path for path in group if path in paths[first]]
            there = [path for path in group if path in paths[second]]
            lines = [f"{a} = {b}" for a in here for b in there if a != b]
            report.add(True, f"copies of a file in {first} and {second}", lines)
        for split, own in paths.items():
            copies = [str(path) for path in group if path in own]
            if len(copies) > 1:
                report.add(False, f"copies of a file within {split}", [" = ".join(copies)])
    return exact


def _add_similar(
    report: FileReport,
    surveys: Mapping[str, Survey],
    pairs: list[tuple[str, str]],
    exact: set[frozenset[Path]],
) -> None:
    """Report images that look the same, and those that cannot be decoded."""
    prints = {split: read_fingerprints(survey.records) for split, survey in surveys.items()}
    for split, own in prints.items():
        undecoded = [f"{path}: cannot be decoded" for path in own.undecoded]
        report.add(True, f"broken images in {split}", undecoded)
    compared = [*((first, second, True) for first, second in pairs), *((s, s, False) for s in prints)]
    for first, second, is_leak in compared:
        lines: dict[frozenset[Path], str] = {}
        for one, other in similar(prints[second], prints[first]):
            key = frozenset((one.resolve(), other.resolve()))
            if len(key) == 2 and key not in exact:
                lines.setdefault(key, f"{other} ~ {one}")
        where = f"in {first} and {second}" if is_leak else f"within {first}"
        report.add(is_leak, f"the same image, encoded again or a moment later, {where}", list(lines.values()))
