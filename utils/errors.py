"""The one error that means: what the user gave is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 1000  # characters of a message; what lists many choices is longer than one that quotes a file


class UserError(ValueError):
    """Bad input; the message says in one line what, where and what would be right.

    Commands print it on stderr and exit with code 2; every other exception is ours and keeps its traceback.
    """


def suggest(name: str, choices: Iterable[str]) -> str:
    """Return "Did you mean 'Conv'? Choose from: C3, Conv, ..." for a name that is not among `choices`."""
    known = sorted(map(str, choices))
    lowered = {choice.lower(): choice for choice in known}
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    hint = f"Did you mean '{lowered[close[0]]}'? " if close else ""
    return f"{hint}Choose from: {', '.join(known)}"


def one_line(message: str, longest: int = LONGEST) -> str:
    """Return a message as one line that is safe to print: control characters escaped, cut where too long."""
    text = " ".join(message[: 4 * longest].split())
    text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
