"""
Patterns and rewrite templates with the meaning that ECMAScript gives them.

A pattern is what C{new RegExp(source)} makes of it: no flags, searched
anywhere in the path.  A template is the replacement of
C{String.prototype.replace}; here it makes the whole new path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from corvus_regex_ecma262 import Match as Groups
from corvus_regex_ecma262 import Regex
from corvus_regex_ecma262 import error as PatternError

from proxyd.rules.candidates import Segment, segments
from proxyd.rules.reading import Unread, is_anchored, is_deaf, is_nested, read


class Pattern:
    """
    A compiled ECMAScript regular expression.  Two are equal when their sources are.

    @ivar source: the expression as it was written.
    @ivar groups: how many capturing groups it has.
    @ivar names: the names among them.
    @ivar segments: what any text must contain for it to match.
    @ivar search: from a path to its first match in there, with the keyword C{timeout}, seconds, more than 0; it raises
        L{corvus_regex_ecma262.MatchLimitError} when it took longer than that.
    """

    __slots__ = ("groups", "names", "search", "segments", "source")

    def __init__(self, source: str) -> None:
        """
        @raise ValueError: the expression is not valid, or cannot be kept within its time; the text says why.
        """
        try:
            regex = Regex(source)
        except PatternError as error:
            reason = str(error).removeprefix("ecmaregex: ")
            raise ValueError(f"is no ECMAScript regular expression: {reason}") from error
        self.source = source
        self.groups = regex.groups
        self.names = frozenset(regex.group_names)
        self.segments: list[Segment] = []
        searched = f"(?:{source})(?=)"
        try:
            tree = read(source, self.groups, bool(self.names))
        except Unread:
            pass
        else:
            self.segments = segments(tree)
            if is_deaf(tree):
                raise ValueError("has a lazy repetition within a repetition that may take too long; write it without ?")
            searched = source if is_anchored(tree) else f"(?:{source}|[])" if is_nested(tree) else searched
        # The engine has short cuts for patterns such as "a.*b" or "a+[ab]{20}c", quadratic in the text and deaf
        # to the time limit (60 ms for 8 KiB).  An empty look-ahead changes nothing but keeps them from being
        # taken; for a repetition within a repetition an alternative that never matches does better.
        self.search: Callable[..., Groups[str] | None] = (
            regex if searched == source else Regex(searched)
        ).search

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and other.source == self.source

    def __hash__(self) -> int:
        return hash(self.source)

    def __repr__(self) -> str:
        return f"Pattern({self.source!r})"


_DOLLAR = re.compile(r"\$(?:(\$)|(&)|(`)|(')|([0-9]{1,2})|<([^>]*)>)")
"""Every sequence that can mean something in a replacement (ECMA-262, GetSubstitution)."""

_UNWRITABLE = re.compile(r"[^\x21-\x7e]|[?#\\]")
"""What no path may hold: a query or fragment would begin, a request line would break."""

_Piece = str | int
"""A literal; or the number of a group, 0 for the whole match, -1 for what is before it, -2 for what is after it."""

_BEFORE, _AFTER = -1, -2


class Template:
    """
    The new path of a rule, as C{String.prototype.replace} would expand it.

    @ivar source: the template as it was written.
    """

    __slots__ = ("_literal", "_pieces", "source")

    def __init__(self, source: str, pattern: Pattern) -> None:
        """
        @raise ValueError: it names groups that the pattern lacks, or would put into the path what cannot be there.
        """
        self.source = source
        self._pieces: tuple[_Piece | tuple[str], ...] = tuple(_merge(_pieces(source, pattern)))
        for piece in self._pieces:
            found = _UNWRITABLE.search(piece) if isinstance(piece, str) else None
            if found is not None:
                raise ValueError(f"holds {found[0]!r}, which a path cannot; percent-encode it (%{ord(found[0]):02X})"
                                 if found[0].isascii() else f"holds {found[0]!r}; percent-encode what is not ASCII")
        only = self._pieces[0] if len(self._pieces) == 1 else None
        self._literal = _rooted(only) if isinstance(only, str) else None

    def expand(self, match: Groups[str]) -> str:
        """Return the whole new path for this match of the pattern; it always begins with a slash."""
        if self._literal is not None:
            return self._literal
        parts: list[str] = []
        for piece in self._pieces:
            if isinstance(piece, str):
                parts.append(piece)
            elif isinstance(piece, tuple):
                parts.append(match.group(piece[0]) or "")
            elif piece >= 0:
                parts.append(match.group(piece) or "")
            elif piece == _BEFORE:
                parts.append(match.string[: match.start()])
            else:
                parts.append(match.string[match.end() :])
        return _rooted("".join(parts))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Template) and other.source == self.source

    def __hash__(self) -> int:
        return hash(self.source)

    def __repr__(self) -> str:
        return f"Template({self.source!r})"


def _rooted(path: str) -> str:
    return path if path.startswith("/") else "/" + path


def _pieces(source: str, pattern: Pattern) -> Iterator[_Piece | tuple[str]]:
    """Cut a template at its sequences; a group's name comes as a tuple of one."""
    position = 0
    for found in _DOLLAR.finditer(source):
        yield source[position : found.start()]
        position = found.end()
        dollar, whole, before, after, digits, name = found.groups()
        if dollar:
            yield "$"
        elif whole:
            yield 0
        elif before:
            yield _BEFORE
        elif after:
            yield _AFTER
        elif digits:
            yield from _numbered(digits, pattern.groups)
        elif name in pattern.names:
            yield (name,)
        else:
            known = ", ".join(sorted(pattern.names)) or "none"
            raise ValueError(f"$<{name}> names a group that the pattern lacks; its named groups: {known}")
    yield source[position:]


def _numbered(digits: str, groups: int) -> Iterator[_Piece]:
    """C{$1} to C{$99}: two digits count as one and a literal digit when the pattern has fewer groups than they say."""
    number = int(digits)
    if number == 0:
        yield "$" + digits
    elif number <= groups:
        yield number
    elif len(digits) == 2 and 1 <= int(digits[0]) <= groups:
        yield int(digits[0])
        yield digits[1]
    else:
        raise ValueError(f"${digits} names a group that the pattern lacks; it has {groups}")


def _merge(pieces: Iterator[_Piece | tuple[str]]) -> Iterator[_Piece | tuple[str]]:
    """Join neighbouring literals, so that a template without groups is one piece."""
    literal = ""
    empty = True
    for piece in pieces:
        if isinstance(piece, str):
            literal += piece
            continue
        if literal:
            yield literal
        literal, empty = "", False
        yield piece
    if literal or empty:
        yield literal
