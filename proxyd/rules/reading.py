"""
ECMAScript patterns as trees, for those who want to know more of one than whether it matches.

Characters are ASCII only, as paths are: what else a pattern names can never be
there, what it excludes neither.  The grammar is that of patterns without flags
(ECMA-262 22.2.1 with annex B.1.2), and the pattern is known to be valid.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final, NamedTuple

BEGINNING: Final = r"\A"
"""The assertion that a pattern has as C{^}."""

MAX_DEPTH: Final = 50
"""A pattern with groups within groups deeper than this is not read."""

_ASCII: Final = frozenset(range(128))
_DIGITS: Final = frozenset(b"0123456789")
_WORD: Final = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz")
_SPACE: Final = frozenset(b"\t\n\v\f\r ")
_SETS: Final = {
    "d": _DIGITS,
    "D": _ASCII - _DIGITS,
    "w": _WORD,
    "W": _ASCII - _WORD,
    "s": _SPACE,
    "S": _ASCII - _SPACE,
}
_ANY: Final = _ASCII - frozenset(b"\n\r")
_CONTROLS: Final = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13}
_QUANTIFIER = re.compile(r"(?:([*+?])|\{([0-9]+)(?:(,)([0-9]*))?\})(\?)?")
_GROUP = re.compile(r"\((?:\?(?:(:)|(<?[=!])|<[^>]*>))?")
_HEX = re.compile(r"x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})")
_OCTAL = re.compile(r"[0-3][0-7]{0,2}|[4-7][0-7]?")
_CONTROL = re.compile(r"c([A-Za-z])")
_CONTROL_IN_CLASS = re.compile(r"c([A-Za-z0-9_])")
_REFERENCE = re.compile(r"k<[^>]*>")
_NUMBER = re.compile(r"[1-9][0-9]*")


class Choice(NamedTuple):
    """A group, or a whole pattern: one of these sequences."""

    alternatives: list[list[Node]]


class LookAround(NamedTuple):
    """A condition on what is before or behind; whether it asks for it or forbids it is not told."""

    condition: Choice


class BackReference(NamedTuple):
    """What a group has matched, once more."""


class Repeated(NamedTuple):
    """
    A node with a quantifier.

    @ivar may_be_missing: none at all will do.
    @ivar is_endless: any number will do.
    @ivar is_lazy: as few as possible are tried first.
    """

    node: Node
    may_be_missing: bool
    is_endless: bool
    is_lazy: bool


Node = frozenset[int] | str | Choice | LookAround | BackReference | Repeated
"""One of these characters; an assertion as RE2 writes it; or what is above."""


class Unread(Exception):
    """The pattern uses what is not worth reading."""


def read(source: str, groups: int, named: bool) -> Choice:
    """
    Return a pattern as a tree.

    @param source: a valid ECMAScript pattern without flags.
    @param groups: how many capturing groups it has.
    @param named: whether one of them has a name.

    @raise Unread: it has flags within it, or groups too deep.
    """
    return _Reader(source, groups, named).pattern()


def is_deaf(pattern: Choice) -> bool:
    """
    Whether the ECMAScript engine may be deaf to its time limit.

    With look-around, back-references, or a repetition of what may be nothing,
    it backtracks; and while it goes through a lazy repetition within another
    repetition, such as C{(?:a+?)+(?=b)}, it does not look at the clock: 8 KiB
    take a quarter of a second and more.
    """
    return {_Mark.NESTED_LAZY, _Mark.BACKTRACKS} <= _marks(pattern)


def is_nested(pattern: Choice) -> bool:
    """Whether there is an endless repetition within another one."""
    return not {_Mark.NESTED, _Mark.NESTED_LAZY}.isdisjoint(_marks(pattern))


def is_anchored(pattern: Choice) -> bool:
    """Whether it can match at the beginning of a text only."""
    return len(pattern.alternatives) == 1 and pattern.alternatives[0][:1] == [BEGINNING]


class _Mark(Enum):
    """What makes a pattern slow."""

    NESTED = auto()
    NESTED_LAZY = auto()
    BACKTRACKS = auto()


def _marks(pattern: Choice) -> set[_Mark]:
    marks: set[_Mark] = set()
    _mark(pattern, marks, False)
    return marks


def _mark(node: Node, marks: set[_Mark], repeated: bool) -> None:
    """Collect what there is in a node; C{repeated} is whether it is within an endless repetition."""
    if isinstance(node, Choice):
        for alternative in node.alternatives:
            for part in alternative:
                _mark(part, marks, repeated)
    elif isinstance(node, LookAround):
        marks.add(_Mark.BACKTRACKS)
        _mark(node.condition, marks, repeated)
    elif isinstance(node, BackReference):
        marks.add(_Mark.BACKTRACKS)
    elif isinstance(node, Repeated):
        if node.is_endless and repeated:
            marks.add(_Mark.NESTED_LAZY if node.is_lazy else _Mark.NESTED)
        if node.is_endless and _may_be_empty(node.node):
            marks.add(_Mark.BACKTRACKS)
        _mark(node.node, marks, repeated or node.is_endless)


def _may_be_empty(node: Node) -> bool:
    if isinstance(node, Choice):
        return any(all(map(_may_be_empty, alternative)) for alternative in node.alternatives)
    if isinstance(node, Repeated):
        return node.may_be_missing or _may_be_empty(node.node)
    return not isinstance(node, frozenset)


class _Reader:
    """Reads a pattern from left to right."""

    def __init__(self, source: str, groups: int, named: bool) -> None:
        self.source = source
        self.position = 0
        self.groups = groups
        self.named = named
        self.open: list[tuple[list[list[Node]], bool]] = [([[]], False)]
        """Of each open group, and of the pattern itself: its alternatives, and whether it is a look-around."""

    def pattern(self) -> Choice:
        while self.position < len(self.source):
            character = self.source[self.position]
            if character == "(":
                self._open()
                continue
            self.position += 1
            if character == ")":
                self._close()
            elif character == "|":
                self.open[-1][0].append([])
            elif character == "^":
                self._add(BEGINNING)
            elif character == "$":
                self._add(r"\z")
            elif character == "\\" and self.source[self.position] in "bB":
                self._add("\\" + self.source[self.position])
                self.position += 1
            else:
                self._quantified(self._atom(character))
        return Choice(self.open[0][0])

    def _add(self, node: Node) -> None:
        self.open[-1][0][-1].append(node)

    def _open(self) -> None:
        found = self._take(_GROUP)
        assert found is not None
        if found[0] == "(" and self.source.startswith("?", self.position):
            raise Unread("flags within the pattern")
        if len(self.open) > MAX_DEPTH:
            raise Unread("too deep")
        self.open.append(([[]], found[2] is not None))

    def _close(self) -> None:
        alternatives, is_look_around = self.open.pop()
        group = Choice(alternatives)
        self._quantified(LookAround(group) if is_look_around else group)

    def _take(self, expression: re.Pattern[str]) -> re.Match[str] | None:
        """Go behind what matches here, if it does."""
        found = expression.match(self.source, self.position)
        if found is not None:
            self.position = found.end()
        return found

    def _quantified(self, node: Node) -> None:
        """Add a node with the quantifier that follows it, if one does."""
        found = self._take(_QUANTIFIER)
        if found is not None:
            sign, least, comma, most, lazy = found.groups()
            may_be_missing = sign in ("*", "?") if sign else not least.strip("0")
            is_endless = sign in ("*", "+") if sign else bool(comma and not most)
            node = Repeated(node, may_be_missing, is_endless, bool(lazy))
        self._add(node)

    def _atom(self, character: str) -> Node:
        if character == ".":
            return _ANY
        if character == "[":
            return self._class()
        return self._escape() if character == "\\" else _code(character)

    def _class(self) -> frozenset[int]:
        """Read a class after its bracket; what is in it is exact for ASCII."""
        negated = self.source.startswith("^", self.position)
        self.position += negated
        codes: set[int] = set()
        while not self.source.startswith("]", self.position):
            first, low = self._member()
            if self.source.startswith("-", self.position) and not self.source.startswith("-]", self.position):
                self.position += 1
                second, high = self._member()
                # Annex B: a range whose end is a set, such as [\d-x], is a set, a hyphen and the rest.
                codes.update(first | second | {0x2D} if low is None or high is None else range(low, high + 1))
            else:
                codes |= first
        self.position += 1
        return _ASCII - codes if negated else _ASCII & codes

    def _member(self) -> tuple[frozenset[int], int | None]:
        """Read one member of a class: the characters, and the code point where it is one."""
        character = self.source[self.position]
        self.position += 1
        if character != "\\":
            return _code(character), ord(character)
        letter = self.source[self.position]
        if letter in _SETS:
            self.position += 1
            return _SETS[letter], None
        if letter == "b":
            self.position += 1
            return frozenset((8,)), 8
        return self._character(_CONTROL_IN_CLASS)

    def _escape(self) -> Node:
        """Read what follows a backslash outside of a class."""
        letter = self.source[self.position]
        if letter in _SETS:
            self.position += 1
            return _SETS[letter]
        number = _NUMBER.match(self.source, self.position)
        # No pattern has more groups than six digits say, and long numbers are slow to read.
        if number is not None and int(number[0][:7]) <= self.groups:
            self.position = number.end()
            return BackReference()
        if self.named and self._take(_REFERENCE):
            return BackReference()
        return self._character(_CONTROL)[0]

    def _character(self, control: re.Pattern[str]) -> tuple[frozenset[int], int]:
        """Read an escape that stands for one character; one that means nothing else is that character itself."""
        octal = self._take(_OCTAL)
        if octal is not None:
            code = int(octal[0], 8)
        elif (coded := self._take(_HEX)) is not None:
            code = int(coded[1] or coded[2], 16)
        elif (controlled := self._take(control)) is not None:
            code = ord(controlled[1]) % 32
        elif self.source.startswith("c", self.position):
            # The backslash is itself, and the letter comes next.
            code = ord("\\")
        else:
            letter = self.source[self.position]
            self.position += 1
            code = _CONTROLS.get(letter, ord(letter))
        return frozenset((code,)) & _ASCII, code


def _code(character: str) -> frozenset[int]:
    return frozenset((ord(character),)) & _ASCII
