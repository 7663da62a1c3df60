"""The one error that means: what the user gave is wrong."""

from __future__ import annotations

import difflib
import itertools
import reprlib
from collections.abc import Iterable
from typing import Any

LONGEST = 300  # characters of a message
LONGEST_CHOICES = 1000  # of one that ends in a list of choices
CHOICES = "Choose from: "
NAME, MOST = 100, 2000  # characters of a name that is compared, and choices it is compared with
_QUOTE = reprlib.Repr()
_QUOTE.maxstring = _QUOTE.maxother = _QUOTE.maxlong = 80
_QUOTE.maxlist = _QUOTE.maxtuple = 12
_QUOTE.maxlevel = 3


class UserError(ValueError):
    """Bad input; the message says in one line what, where and what would be right.

    Commands print it on stderr and exit with code 2; every other exception is ours and keeps its traceback.
    """


def suggest(name: str, choices: Iterable[str]) -> str:
    """Return "Did you mean 'Conv'? Choose from: C3, Conv, ..." for a name that is not among `choices`."""
    known = sorted(str(choice)[:NAME] for choice in itertools.islice(choices, MOST))
    lowered = {choice.lower(): choice for choice in known}
    close = difflib.get_close_matches(name[:NAME].lower(), lowered, n=1, cutoff=0.6)
    hint = f"Did you mean '{lowered[close[0]]}'? " if close else ""
    return f"{hint}{CHOICES}{', '.join(known)}"


def quoted(value: Any) -> str:
    """Return `repr(value)`, cut short: what a file holds may be endless, or repeat itself many times."""
    try:
        return _QUOTE.repr(value)
    except Exception:  # of a crafted number or object
        return f"a {type(value).__name__}"


def one_line(message: str, longest: int = LONGEST) -> str:
    """Return a message as one line that is safe to print: control characters escaped, cut where too long.

    A list of choices at its end is cut on its own, so that what is before it stays.
    """
    said, word, choices = message.partition(CHOICES) if longest == LONGEST else (message, "", "")
    said = _cut(said, longest)
    return said + (" " if said else "") + word + _cut(choices, LONGEST_CHOICES - longest) if word else said


def _cut(message: str, longest: int) -> str:
    text = " ".join(message[: 4 * longest].split())
    text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
