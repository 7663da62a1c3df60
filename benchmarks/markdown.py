"""Tables as Markdown, printed row by row."""

from __future__ import annotations


def print_head(*titles: str) -> None:
    """Print the titles and the line below them; all columns but the first are numbers."""
    print_row(*titles)
    print_row("---", *["---:"] * (len(titles) - 1))


def print_row(*cells: object) -> None:
    """Print one row."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)
