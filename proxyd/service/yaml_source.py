"""
YAML text as plain values, with the line of each place in it.

Beyond what YAML itself refuses, two equal keys of a mapping are a problem:
PyYAML would silently keep the last.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from proxyd.errors import ConfigError, Problem

Path = tuple[str | int, ...]

MAX_NODES = 1_000_000
"""The most values and keys of a document, aliases written out: a few lines of aliases can stand for any number."""

_QUOTED = re.compile(r"(?<=alias )'.*'|(?<=anchor )'.*'|(?<=tag )'.*'", re.DOTALL)


class Source:
    """
    One YAML document.

    @ivar value: the document as plain values.
    @ivar problems: its duplicate keys.
    """

    def __init__(self, text: str) -> None:
        """
        @raise ConfigError: it is no YAML.
        """
        self.problems: list[Problem] = []
        try:
            loader = yaml.SafeLoader(text)
            self._root = loader.get_single_node()
            if self._root is not None:
                _count(self._root, {})
                self.problems += _duplicates(self._root, (), set())
            # The constructor merges "<<" into the nodes themselves, so it comes after the look at the keys.
            self.value: Any = None if self._root is None else loader.construct_document(self._root)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            # What is quoted may be a secret that begins with * or !.
            what = _QUOTED.sub("…", " ".join(part for part in (error.context, error.problem) if part))
            raise ConfigError((Problem((), f"no YAML: {what}", None if mark is None else mark.line + 1),)) from error
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise ConfigError((Problem((), f"no YAML: {error}"),)) from error
        except (AttributeError, LookupError) as error:
            # Of PyYAML's own code: for "!!timestamp x", "!!bool x", "!!int ''".
            raise ConfigError((Problem((), "no YAML: a value is not what its tag says"),)) from error

    def line(self, path: Path) -> int | None:
        """Return the line of this place, from 1; of the nearest place around it where there is no such."""
        node = self._root
        if node is None:
            return None
        line: int = node.start_mark.line + 1
        for part in path:
            found = _child(node, part)
            if found is None:
                break
            line, node = found
        return line


def _count(node: yaml.Node, counts: dict[int, int]) -> int:
    """
    Return how many nodes this one is when every alias is written out.

    @param counts: those of the nodes that have been counted, 0 for those that are being.

    @raise ConfigError: they are endless, or more than L{MAX_NODES}.
    """
    key = id(node)
    if key not in counts:
        counts[key] = 0
        children: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        counts[key] = 1 + sum(_count(child, counts) for child in children)
        if counts[key] > MAX_NODES:
            raise ConfigError((Problem((), "its aliases stand for too much", node.start_mark.line + 1),))
    elif not counts[key]:
        raise ConfigError((Problem((), "an alias stands for what it is a part of", node.start_mark.line + 1),))
    return counts[key]


def _child(node: yaml.Node, part: str | int) -> tuple[int, yaml.Node] | None:
    """Return the line where a member of a mapping or sequence begins, and its value."""
    if isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):
            if isinstance(key, yaml.ScalarNode) and key.value == str(part):
                return key.start_mark.line + 1, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark.line + 1, node.value[part]
    return None


def _duplicates(node: yaml.Node, path: Path, seen: set[int]) -> Iterator[Problem]:
    """Return the keys that a mapping has twice; C{seen} keeps aliases from being looked at again, or for ever."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield from _duplicates(child, (*path, index), seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            name = str(key.value)
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and name in lines:
                yield Problem((*path, name), f"is there twice, first in line {lines[name]}; keep one", line)
            lines.setdefault(name, line)
            yield from _duplicates(value, (*path, name), seen)
