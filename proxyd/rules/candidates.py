"""
What a text must contain, for an ECMAScript pattern to match in it.

RE2 searches for thousands of expressions at once, so it picks the candidates,
which the ECMAScript engine then confirms.  Nothing may be missed; too much
only costs time.  A pattern such as C{^/users/\\d+/(?!x)posts$} can only match
where its I{segments} are: C{\\A/users/} and C{/posts\\z}.  Any one of them will
do for RE2, and the rarest is the best.

A segment is a run of single characters with the assertions among them.  It
ends where something may repeat, may be missing, or may be nearly anything.
Look-around says nothing about where the characters are, so it is left out.
Whole patterns would be possible, but RE2 cannot be interrupted: with ten
thousand loops in one automaton, a hostile path of 8 KiB took it three seconds.
Without loops it is a trie, and takes milliseconds.

All this holds for ASCII texts only, which paths are: characters are octets.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from proxyd.rules.reading import Choice, LookAround, Node, Repeated

MAX_CLASS: Final = 4
"""A character that may be more than so many different ones ends a segment."""

MAX_SIZE: Final = 1000
"""The longest RE2 expression of one segment."""

_NOTHING: Final = r"[^\x00-\xff]"


class Segment(NamedTuple):
    """
    A part of each text in which a pattern matches.

    @ivar expression: how RE2 finds it.
    @ivar length: how many characters it has at least.
    """

    expression: str
    length: int


def segments(pattern: Choice) -> list[Segment]:
    """Return the segments of a pattern; none where it may match in nearly anything."""
    walk = _Walk()
    walk.visit(pattern)
    return walk.finished()


class _Walk:
    """A walk along a pattern, which collects its segments."""

    def __init__(self) -> None:
        self._found: list[Segment] = []
        self._run: list[str] = []
        self._length = 0

    def finished(self) -> list[Segment]:
        self._cut()
        return self._found

    def _cut(self) -> None:
        """End the segment here."""
        expression = "".join(self._run)
        if self._length and len(expression) <= MAX_SIZE:
            self._found.append(Segment(expression, self._length))
        self._run, self._length = [], 0

    def visit(self, node: Node) -> None:
        if isinstance(node, str):
            self._run.append(node)
        elif isinstance(node, LookAround):
            return
        elif isinstance(node, frozenset) and len(node) <= MAX_CLASS:
            self._run.append(_characters(node))
            self._length += 1
        elif isinstance(node, Choice) and len(node.alternatives) == 1:
            for part in node.alternatives[0]:
                self.visit(part)
        elif isinstance(node, Choice):
            self._cut()
            self._choose(node.alternatives)
        else:
            if isinstance(node, Repeated) and not node.may_be_missing:
                # Its first time follows what is before it; then anything may.
                self.visit(node.node)
            self._cut()

    def _choose(self, alternatives: list[list[Node]]) -> None:
        """Each alternative's longest segment is an alternative; if one has none, nothing is certain."""
        longest: list[Segment] = []
        for alternative in alternatives:
            walk = _Walk()
            walk.visit(Choice([alternative]))
            found = walk.finished()
            if not found:
                return
            longest.append(max(found, key=lambda segment: segment.length))
        expression = "(?:" + "|".join(segment.expression for segment in longest) + ")"
        if len(expression) <= MAX_SIZE:
            self._found.append(Segment(expression, min(segment.length for segment in longest)))


def _characters(codes: Iterable[int]) -> str:
    """Return an expression for one of these characters."""
    written = [chr(code) if chr(code).isalnum() else f"\\x{code:02x}" for code in sorted(codes)]
    return written[0] if len(written) == 1 else f"[{''.join(written)}]" if written else _NOTHING
