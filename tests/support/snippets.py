"""The code on the pages of the documentation, and which of it a test has taken to run."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


class Snippet(NamedTuple):
    """
    One block of code.

    @ivar page: the name of its file.
    @ivar line: where it begins there, from 1.
    @ivar language: what follows its fence; empty if it has none, or is indented only.
    """

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def _found(page: Path) -> list[Snippet]:
    tokens = MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8"))
    return [
        Snippet(page.name, token.map[0] + 1, token.info.strip(), token.content)
        for token in tokens
        if token.type in ("fence", "code_block") and token.map
    ]


ALL = [snippet for page in PAGES for snippet in _found(page)]

TAKEN: set[Snippet] = set()
"""Those that some test runs."""


def take(language: str, page: str | None = None, beginning: str = "") -> list[Snippet]:
    """
    Take snippets, to run them.

    @param page: only those of this one.
    @param beginning: only those whose text begins so.
    """
    taken = [
        one
        for one in ALL
        if one.language == language and page in (None, one.page) and one.text.startswith(beginning)
    ]
    TAKEN.update(taken)
    return taken


def take_one(language: str, page: str, beginning: str = "") -> Snippet:
    """Take the only one that is like this."""
    (one,) = take(language, page, beginning)
    return one
