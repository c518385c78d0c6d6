"""
Calls of the admin API: what is asked, what is answered, and what goes wrong.

An L{Operation} is one line of the API's table: from it come the checks, the
call of the function, and the description in OpenAPI.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError

from proxyd.control.settings import Role
from proxyd.errors import Problem, ProxydError
from proxyd.http.fields import Fields, values
from proxyd.http.request import RequestHead
from proxyd.rules.problems import problems_in

MAX_BODY: Final = 128 * 1024
"""Octets of a call's body; a rule has a few hundred."""

MAX_LONG_BODY: Final = 2 * 1024 * 1024
"""Octets of the order of all rules: ten thousand ids have half a million."""

MAX_PROBLEMS: Final = 20
"""Problems that an answer names."""

JSON: Final = "application/json"

_TAG = re.compile(r'(?:W/)?"[^"]*"|\*')
"""An entity tag, which may hold commas (RFC 9110 section 8.8.3), or C{*}."""

Model = TypeVar("Model", bound=BaseModel)


class CallError(ProxydError):
    """
    A call cannot be done; the text is for the caller.

    @ivar field: what of the call is wrong: a field, a parameter; empty for none.
    @ivar problems: what is wrong with its body, at most L{MAX_PROBLEMS}.
    """

    def __init__(
        self,
        status: int,
        message: str,
        field: str = "",
        problems: tuple[Problem, ...] = (),
        fields: Fields | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.field = field
        self.problems = problems
        self.fields = fields or []

    @classmethod
    def from_problems(cls, problems: tuple[Problem, ...]) -> CallError:
        """Everything that is wrong with a body; its first problem is the text."""
        first = problems[0]
        return cls(400, first.message, _name(first.path), problems[:MAX_PROBLEMS])

    def answer(self) -> Answer:
        """What the caller is told."""
        content: dict[str, Any] = {"error": str(self), "field": self.field or None}
        if self.problems:
            content["problems"] = [{"field": _name(one.path), "error": one.message} for one in self.problems]
        return Answer(content, self.status, self.fields)


def is_number(text: str) -> bool:
    """Whether a part of a path is the number of something."""
    return text.isascii() and text.isdigit() and len(text) < 16


def _name(path: tuple[str | int, ...]) -> str:
    return ".".join(str(part) for part in path)


class Caller(NamedTuple):
    """
    Who calls.

    @ivar name: as the history has it.
    """

    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class Call:
    """
    One call of someone who may make it; what it holds is looked at by whoever does it.

    @ivar parameters: the parts of the path that its template leaves open.
    @ivar octets: its body.
    """

    head: RequestHead
    caller: Caller
    parameters: Mapping[str, str]
    octets: bytes = b""

    def body(self, model: type[Model]) -> Model:
        """
        @raise CallError: everything that is wrong with the body.
        """
        return _validated(model, parse_json(self.octets))

    def query(self, model: type[Model]) -> Model:
        """
        @raise CallError: the query is none that fits.
        """
        return _validated(model, _parse_query(self.head.target.query[1:]))

    @property
    def may_write(self) -> bool:
        """Whether the caller sees secrets and changes things."""
        return self.caller.role == "write"

    @property
    def if_match(self) -> tuple[str, ...] | None:
        """The entity tags of C{If-Match}; C{None} where the caller does not ask (RFC 9110 section 13.1.1)."""
        lines = values(self.head.fields, b"if-match")
        if not lines:
            return None
        return tuple(_TAG.findall(b",".join(lines).decode("latin-1")))


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What a call is answered.

    @ivar content: JSON, or octets of the media type.
    """

    content: Any
    status: int = 200
    fields: Fields = field(default_factory=list)
    media_type: str = JSON

    @property
    def octets(self) -> bytes:
        """The body."""
        if isinstance(self.content, bytes):
            return self.content
        return json.dumps(self.content, separators=(",", ":")).encode("ascii") + b"\n"


@dataclass(frozen=True, slots=True)
class Operation:
    """
    One call that the API knows.

    @ivar path: a template such as C{/api/rules/{id}}.
    @ivar role: who may call.
    @ivar run: does it, now or later; it may raise L{CallError}.
    @ivar answer: the type of what it answers, for the description.
    @ivar status: of a good answer.
    @ivar body: what the body must be: a model, C{dict} for any JSON object, C{None} for no body.
    @ivar limit: octets that its body may have.
    @ivar query: a model of the query.
    @ivar errors: the statuses of what can go wrong, beyond what every call has.
    @ivar tagged: the answer has an C{ETag}.
    @ivar conditional: the call heeds C{If-Match}.
    """

    method: str
    path: str
    role: Role
    run: Callable[[Call], Answer | Awaitable[Answer]]
    summary: str
    answer: Any
    status: int = 200
    body: Any = None
    limit: int = MAX_BODY
    query: type[BaseModel] | None = None
    errors: tuple[int, ...] = ()
    tagged: bool = False
    conditional: bool = False


def _parse_query(text: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(text.decode("ascii"), keep_blank_values=True, strict_parsing=bool(text), errors="strict")
    except ValueError as error:
        raise CallError(400, "The query is malformed.") from error
    found = dict(pairs)
    if len(found) < len(pairs):
        raise CallError(400, "A parameter of the query is there twice.")
    return found


def parse_json(octets: bytes) -> Any:
    """
    @raise CallError: it is no JSON, or JSON that two readers could take for two different things.
    """
    try:
        value = json.loads(octets, object_pairs_hook=_distinct, parse_constant=_refuse)
        # An escape can stand for half a character, which nothing can be done with.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
        return value
    except (ValueError, RecursionError) as error:
        raise CallError(400, f"The body is no JSON: {error}.") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has two members of one name")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _validated(model: type[Model], value: Any) -> Model:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise CallError.from_problems(tuple(problems_in(error, model))) from error
