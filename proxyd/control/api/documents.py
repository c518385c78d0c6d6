"""What calls of the admin API hold and are answered, besides rules: the types that check, and that are described."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

# pydantic reads only these before Python 3.12.
from typing_extensions import TypedDict

from proxyd.rules.problems import Document


class _Query(Document):
    """Parameters of a query: they come as text."""

    model_config = ConfigDict(strict=False)


class ReorderDocument(Document):
    """The order that the rules are to have."""

    ids: list[str]


class ExplainDocument(Document):
    """A request that is not made."""

    method: Annotated[str, Field(min_length=1, max_length=20)] = "GET"
    url: Annotated[str, Field(min_length=1, max_length=65536)]
    headers: Annotated[dict[str, str], Field(max_length=256)] = {}


class HistoryQuery(_Query):
    """Which changes."""

    before: Annotated[int, Field(ge=1, le=2**63 - 1)] | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class CloseQuery(_Query):
    """How one connection is closed."""

    code: Literal["1001", "1012"] = "1012"


class CloseRuleQuery(CloseQuery):
    """Which connections are closed, and in which time."""

    rule: Annotated[str, Field(min_length=1)]
    spread: Annotated[float, Field(ge=0, le=3600)] = 0


class Deleted(TypedDict):
    """A rule is gone."""

    deleted: bool
    id: str


class ChangeView(TypedDict):
    """One change of the history: C{before} and C{after} are a rule, or ids in their order, or null."""

    id: int
    at: str
    who: str
    action: str
    rule: str | None
    before: Any
    after: Any


class ProblemView(TypedDict):
    """One thing that is wrong."""

    field: str
    error: str
