"""Logging: results to stdout, messages to stderr, nothing from other ranks."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from utils.log import RESULT, LogOptions, counted, setup_logging

LOG = logging.getLogger("engine.anything")


@pytest.fixture(autouse=True)
def back_to_default() -> Iterator[None]:
    yield
    setup_logging()


def say() -> None:
    LOG.debug("detail")
    LOG.info("note")
    LOG.log(RESULT, "table")
    LOG.warning("odd")


@pytest.mark.parametrize(
    ("options", "rank", "out", "err"),
    [
        (LogOptions(), 0, "table\n", "note\nwarning: odd\n"),
        (LogOptions(quiet=True), 0, "table\n", "warning: odd\n"),
        (LogOptions(verbose=True), 0, "table\n", "detail\nnote\nwarning: odd\n"),
        (LogOptions(), 1, "", ""),
    ],
)
def test_every_message_goes_where_it_belongs(
    options: LogOptions, rank: int, out: str, err: str, capsys: pytest.CaptureFixture[str]
) -> None:
    setup_logging(options, rank)
    setup_logging(options, rank)  # again: nothing is written twice
    say()
    assert capsys.readouterr() == (out, err)


@pytest.mark.parametrize(
    ("count", "what", "text"),
    [
        (1, "image", "1 image"), (0, "image", "0 images"), (2, "class", "2 classes"), (3, "bus", "3 buses"),
        (2, "bench", "2 benches"), (2, "skis", "2 skis"), (2, "epoch", "2 epochs"),
    ],
)  # fmt: skip
def test_counts_have_the_plural_of_what_they_count(count: int, what: str, text: str) -> None:
    assert counted(count, what) == text
