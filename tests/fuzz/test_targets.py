"""Every reader on its corpus and on files made from it: a value, or one line; see docs/fuzzing.md."""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.run import MEGABYTES, Runner, quiet
from tests.fuzz.seeds import CORPUS
from tests.fuzz.targets import TARGETS


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Readers log what they leave out, which nobody wants to read here."""
    monkeypatch.chdir(tmp_path)  # undone at the end, while `quiet` goes elsewhere
    before = signal.getsignal(signal.SIGALRM)
    with warnings.catch_warnings():
        quiet()
        yield
    logging.disable(logging.NOTSET)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_every_reader_has_a_corpus_and_every_corpus_a_reader() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)
    assert all(list((CORPUS / name).glob("good*")) for name in TARGETS)
    assert all(file.stat().st_size < 10_000 for file in CORPUS.glob("*/*")), "small files only"


@pytest.mark.parametrize("name", TARGETS)
def test_a_reader_takes_its_good_files(name: str) -> None:
    for file in sorted((CORPUS / name).glob("good*")):
        TARGETS[name].read(file.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_a_reader_returns_or_says_in_one_line_what_is_wrong(name: str) -> None:
    outcome = Runner(name).run(TARGETS[name].runs, seconds=2)
    assert outcome.runs > len(list((CORPUS / name).iterdir()))
    assert not outcome.faults
    assert outcome.memory < MEGABYTES
