"""What a store keeps: rules as documents, and the history of their changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Document = Mapping[str, Any]
"""A rule as its author wrote it (plain JSON), with its C{id} and its C{order}."""


@dataclass(frozen=True, slots=True)
class StoredRule:
    """
    One rule.

    @ivar revision: that of the store with which it was last changed.
    """

    document: Document
    revision: int


def in_order(rules: Iterable[StoredRule]) -> tuple[StoredRule, ...]:
    """
    @return: rules in matching order: by C{order}, then by C{id}.
    """
    return tuple(sorted(rules, key=lambda rule: (rule.document["order"], rule.document["id"])))


@dataclass(frozen=True, slots=True)
class RuleSet:
    """
    All rules of a store at one moment.

    @ivar revision: how many changes there have been; each makes it one more.
    @ivar rules: in matching order: by C{order}, then by C{id}.
    @ivar identity: a few random characters, made with the store and the same for as long as there is this one.  One
        that is made anew counts its revisions from 0 again: what is the same in both, such as an entity tag, says
        the same only together with this.
    """

    revision: int = 0
    rules: tuple[StoredRule, ...] = ()
    identity: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """
    One change, as the history has it.

    @ivar action: C{create}, C{update}, C{toggle}, C{delete}, C{reorder} or C{rollback}.
    @ivar who: the name of a token, or how else the author is known.
    @ivar rule_id: the rule that was changed; C{None} for all, of a C{reorder}.
    @ivar before: what it was: a document, or the ids in their order; C{None} where there was no such rule.
    @ivar after: what it has become, likewise.
    @ivar revision: that of the store with this change, its number in the history; 0 before it is kept.
    @ivar at: when it was kept, in seconds since the epoch.
    """

    action: str
    who: str
    rule_id: str | None
    before: Any
    after: Any
    revision: int = 0
    at: float = 0.0
