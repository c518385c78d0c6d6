"""The description of the admin API (OpenAPI 3.1), made of the operations and of the types that check what is sent."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

from proxyd.control.api.calls import JSON, Operation
from proxyd.control.api.documents import ProblemView
from proxyd.rules.codec import RuleDocument

_MEANINGS: Final = {
    400: "The call is malformed, or what it holds is not good",
    401: "No good token",
    403: "The token, the rule or the configuration does not allow it",
    404: "There is no such thing",
    405: "This cannot be done with it",
    409: "It cannot be done as things are",
    412: "It was changed since it was read",
    413: "The body is too long",
    415: "The body is not said to be JSON",
    429: "Too many wrong tokens",
    503: "The store of rules is away, nothing was changed",
}


def description(operations: Iterable[Operation], version: str, base: str) -> dict[str, Any]:
    """
    The whole description.

    @param base: the path that the API is under.
    """
    operations = list(operations)
    described = [ProblemView, *(one for call in operations for one in (_member(call.answer), call.body))]
    types = {one.__name__: one for one in described if one not in (None, dict, RuleDocument)}
    inputs = [(key, "validation", TypeAdapter(value)) for key, value in types.items()]
    _, schemas = TypeAdapter.json_schemas(inputs, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    components: dict[str, Any] = dict(schemas.get("$defs", {}))
    components |= _rule_schemas()
    components["Error"] = {
        "type": "object",
        "required": ["error", "field"],
        "properties": {
            "error": {"type": "string"},
            "field": {"type": ["string", "null"]},
            "problems": {"type": "array", "items": {"$ref": "#/components/schemas/ProblemView"}},
        },
    }
    paths: dict[str, Any] = {}
    for call in operations:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call)
    return {
        "openapi": "3.1.0",
        "info": {"title": "proxyd admin API", "version": version},
        "servers": [{"url": base.removesuffix("/") or "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _member(answer: Any) -> Any:
    """The type in C{list[...]}, or the type itself."""
    return answer.__args__[0] if getattr(answer, "__origin__", None) is list else answer


def _rule_schemas() -> dict[str, Any]:
    """A rule as it is sent, as a part of it is sent, and as it is shown: all of one type."""
    _, schemas = models_json_schema([(RuleDocument, "validation")], ref_template="#/components/schemas/{model}")
    found: dict[str, Any] = dict(schemas["$defs"])
    whole = found["RuleDocument"]
    fields = whole["properties"]
    shown_only = {
        "readonly": {"type": "boolean"},
        "problem": {"type": ["string", "null"]},
        "resolvedTarget": {"type": ["string", "null"]},
    }
    found["RuleChange"] = {
        **{key: part for key, part in whole.items() if key != "required"},
        "title": "RuleChange",
        "properties": {name: {"anyOf": [part, {"type": "null"}]} for name, part in fields.items()} | shown_only,
    }
    found["RuleDocument"] = {**whole, "properties": fields | shown_only}
    found["Rule"] = {
        **whole,
        "title": "Rule",
        "additionalProperties": True,
        "properties": fields | shown_only,
        "required": ["id", "name", "pattern", "target", "readonly"],
    }
    return found


def _operation(call: Operation) -> dict[str, Any]:
    statuses = {400, 401, 405, 429, *call.errors}
    if call.role == "write":
        statuses.add(403)
    if call.body is not None or call.method == "POST":
        statuses |= {413, 415}
    statuses.discard(405)
    good: dict[str, Any] = {"description": call.summary, "content": {JSON: {"schema": _answer_schema(call.answer)}}}
    if call.tagged:
        good["headers"] = {"ETag": {"required": True, "schema": {"type": "string"}}}
    described: dict[str, Any] = {
        "summary": call.summary,
        "operationId": re.sub(r"\W+", "_", f"{call.method.lower()}{call.path}"),
        "responses": {
            str(call.status): good,
            **{str(status): _error(status) for status in sorted(statuses)},
        },
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in re.findall(r"\{(\w+)\}", call.path)
    ]
    if call.query is not None:
        parameters += _query_parameters(call.query)
    if call.conditional:
        parameters.append({"name": "If-Match", "in": "header", "required": False, "schema": {"type": "string"}})
    if parameters:
        described["parameters"] = parameters
    if call.body is not None:
        name = "RuleChange" if call.body is dict else call.body.__name__
        described["requestBody"] = {
            "required": True,
            "content": {JSON: {"schema": {"$ref": f"#/components/schemas/{name}"}}},
        }
    elif call.method == "POST":
        # It holds nothing, but its type tells it from what a page of another site can send.
        described["requestBody"] = {"content": {JSON: {"schema": {"type": "object", "maxProperties": 0}}}}
    return described


def _answer_schema(answer: Any) -> dict[str, Any]:
    member = _member(answer)
    name = "Rule" if member is RuleDocument else member.__name__
    reference = {"$ref": f"#/components/schemas/{name}"}
    return reference if member is answer else {"type": "array", "items": reference}


def _query_parameters(model: type[BaseModel]) -> list[dict[str, Any]]:
    schema = model.model_json_schema()
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _without_null(part)}
        for name, part in schema["properties"].items()
    ]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter of a query is there or not; it is never null."""
    if "anyOf" not in schema:
        return schema
    return next(part for part in schema["anyOf"] if part.get("type") != "null")


def _error(status: int) -> dict[str, Any]:
    return {
        "description": _MEANINGS[status],
        "content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
