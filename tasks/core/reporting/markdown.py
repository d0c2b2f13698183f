"""Markdown of texts that are not ours: names of classes and files, messages."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

MARKS = {"pass": "✓", "fail": "✗", "inconclusive": "?"}  # of a gate's verdict
# No _ within a word; an @ would call someone.
MARKUP = re.compile(r"[&\\`*|<>\[\]#~@]|(?<![^\W_])_|_(?![^\W_])")


def section(title: str, text: str, level: int = 3) -> str:
    return f"{'#' * level} {title}\n\n{text}"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table, in which no text of a cell is markup."""
    lines = [[plain(cell) for cell in row] for row in (head, *rows)]
    lines.insert(1, ["---"] * len(head))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {plain(line)}" for line in lines)


def plain(text: Any) -> str:
    """A text on one line, in which nothing is markup; numbers with six digits."""
    text = f"{text:.6g}" if isinstance(text, float) else str(text)
    return " ".join(MARKUP.sub(lambda found: f"&#{ord(found[0])};", text).split())
