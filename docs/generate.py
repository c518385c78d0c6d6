"""
C{configuration.md} from the types that check a configuration: C{python docs/generate.py}.

Keys, types, defaults and limits are those of the types; what a key means is the
docstring below it.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from proxyd.rules import auth, codec
from proxyd.service import schema

PAGE = Path(__file__).with_name("configuration.md")

_HEAD = """\
# Configuration

Every key that a configuration may hold, one line each. The [reference](reference.md) says how they work, and
[etc/proxyd.yaml](../etc/proxyd.yaml) shows them in use. `[]` stands for a member of a list; `null` as a default is
nothing, or what the meaning says.

This page is made from the types that check a configuration, by `docs/generate.py`.
"""

_WORDS = {"string": "string", "boolean": "bool", "integer": "whole number", "number": "number", "null": "`null`"}
_PLURALS = {"string": "strings", "mapping": "mappings"}
_LIMITS = {
    "minimum": "at least {:,}", "ge": "at least {:,}", "maximum": "at most {:,}", "minLength": "not empty",
    "minItems": "not empty", "maxLength": "at most {:,} characters", "maxItems": "at most {:,} members",
}  # fmt: skip


class Key(NamedTuple):
    """One key of a configuration, as a line of the page says it."""

    name: str
    type: str
    default: str
    limits: str
    meaning: str


class Keys:
    """All keys of a model and of the models in it."""

    def __init__(self, model: type[BaseModel], *modules: Any, known: Keys | None = None) -> None:
        """
        @param modules: where the models and those that they are made of are, these first.
        @param known: keys whose models need not be told again.
        """
        self._schema = model.model_json_schema(by_alias=True)
        self._meanings: dict[str, dict[str, str]] = {}
        for module in modules:
            for name, bases, own in _meanings(module):
                inherited = {field: text for base in bases for field, text in self._meanings.get(base, {}).items()}
                self._meanings[name] = inherited | own
        # Names with an underscore are a module's own: another one can have the same.
        told = {} if known is None else known._first
        self._first = {name: f"{key} of the file" for name, key in told.items() if name[0] != "_"}
        self.all = list(self._of(model.__name__, self._schema, ""))

    def _of(self, model: str, found: dict[str, Any], prefix: str) -> Iterator[Key]:
        for name, field in found["properties"].items():
            default = "required" if name in found.get("required", ()) else _default(field)
            models = list(_models(field))
            known = [one for one in models if one in self._first]
            words = _type(field) + "".join(dict.fromkeys(f", as {self._first[one]}" for one in known))
            for one in models:
                self._first.setdefault(one, f"`{prefix}{name}`")
            meaning = re.sub(r"C\{([^}]*)\}", r"`\1`", self._meanings[model][name])
            yield Key(prefix + name, words, default, ", ".join(dict.fromkeys(_limits(field))), meaning)
            for one in models:
                if one not in known:
                    inner = f"{prefix}{name}[]." if "array" in json.dumps(_alternatives(field)) else f"{prefix}{name}."
                    yield from self._of(one, self._schema["$defs"][one], inner)


def _meanings(module: Any) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """
    What a module says of its models: their names, those of their bases, and the docstrings of their fields by the
    fields' names in a configuration.
    """
    for node in ast.parse(inspect.getsource(module)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        fields = getattr(getattr(module, node.name), "model_fields", {})
        own = {
            fields[field.target.id].alias: doc.value.value
            for field, doc in zip(node.body, node.body[1:], strict=False)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            and isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant)
        }  # fmt: skip
        yield node.name, [base.id for base in node.bases if isinstance(base, ast.Name)], own


def _alternatives(field: dict[str, Any]) -> list[dict[str, Any]]:
    """What a value may be, C{null} left out where it means that there is none."""
    found = field.get("anyOf", field.get("oneOf", [field]))
    flat = [inner for one in found for inner in (_alternatives(one) if one is not field else [one])]
    return flat if "default" not in field else [one for one in flat if one.get("type") != "null"] or flat


def _models(field: dict[str, Any]) -> Iterator[str]:
    """The models that a value may be, or its members."""
    for one in _alternatives(field):
        if "$ref" in one:
            yield one["$ref"].rpartition("/")[2]
        elif "items" in one:
            yield from _models(one["items"])


def _type(field: dict[str, Any]) -> str:
    """What a value is, in words."""
    return " or ".join(dict.fromkeys(_one_type(one) for one in _alternatives(field)))


def _one_type(one: dict[str, Any]) -> str:
    if "enum" in one:
        return " or ".join(f"`{value}`" for value in one["enum"])
    if "const" in one:
        return f"`{one['const']}`"
    if "$ref" in one:
        return "mapping"
    if one.get("type") == "array":
        members = _type(one["items"]) if one["items"] else "mapping"
        return "list of " + " or ".join(_PLURALS.get(word, word) for word in members.split(" or "))
    if one.get("type") == "object":
        return f"mapping to {_type(one['additionalProperties'])}"
    return _WORDS[one["type"]] if "type" in one else "`none`"


def _default(field: dict[str, Any]) -> str:
    if isinstance(field["default"], dict) and field["default"]:
        return ""
    return f"`{json.dumps(field['default'])}`"


def _limits(field: dict[str, Any]) -> Iterator[str]:
    for one in _alternatives(field):
        for word, text in _LIMITS.items():
            if word in one:
                text = text.replace("characters", "members") if one.get("type") == "object" else text
                yield text.format(one[word])


FILE = Keys(schema.ConfigDocument, auth, codec, schema)
RULE = Keys(codec.RuleDocument, auth, codec, known=FILE)


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for title, keys in (("The file", FILE), ("A rule", RULE)):
        parts.append(f"\n## {title}\n\n| key | type | default | limits | meaning |\n|---|---|---|---|---|\n")
        parts += [f"| `{key.name}` | {key.type} | {key.default} | {key.limits} | {key.meaning} |\n" for key in keys.all]
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
