"""What pydantic finds wrong, in the words of this project: each problem with its path and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from proxyd.errors import Problem


class Document(BaseModel):
    """
    A mapping of a configuration: keys in camel case, nothing unknown, nothing converted.

    A default that is one is made by C{model_construct}: nobody has to wait for a validator of its own.
    """

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, alias_generator=to_camel, validate_default=False, allow_inf_nan=False,
        defer_build=True,
    )


_EXPECTED = {
    "string_type": "a string",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "union_tag_not_found": "a list or a mapping",
}
"""What would be right, by pydantic's error types."""

_TEMPLATES = {
    "missing": "is required",
    "invalid_key": "must have a string as its name",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must not be empty",
    "too_long": "must have at most {max_length} members",
    "greater_than_equal": "must be at least {ge:.12g}",
    "less_than_equal": "must be at most {le:.12g}",
    "finite_number": "must be a finite number",
    "literal_error": "must be {expected}",
    "value_error": "{error}",
}


def problems_in(error: ValidationError, model: type[BaseModel], prefix: tuple[str | int, ...] = ()) -> list[Problem]:
    """
    Return everything that C{error} says about a document.

    @param prefix: where the document is in the configuration.
    """
    return [Problem((*prefix, *_path(found["loc"])), _message(found, model)) for found in error.errors()]


def _path(location: Sequence[str | int]) -> tuple[str | int, ...]:
    """Leave out what is no key: the name of an alternative in angle brackets, and C{[key]} for the key itself."""
    return tuple(part for part in location if part != "[key]" and not (isinstance(part, str) and part[:1] == "<"))


def _message(found: ErrorDetails, model: type[BaseModel]) -> str:
    kind = found["type"]
    if kind == "extra_forbidden":
        return _unknown(str(found["loc"][-1]), _known(model, _path(found["loc"])[:-1]))
    if kind in _EXPECTED:
        return f"must be {_EXPECTED[kind]}, not {kind_of(found['input'])}"
    # The value itself stays out of every message: it may be a credential.
    return _TEMPLATES.get(kind, found["msg"]).format(**found.get("ctx", {}))


def kind_of(value: object) -> str:
    """Return what sort of value this is, as those who write YAML or JSON call it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "a decimal"
    if isinstance(value, int):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "a list" if isinstance(value, list) else "a mapping" if isinstance(value, dict) else "a date"


def _unknown(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"unknown field; {f'did you mean {close[0]}?' if close else 'known are ' + ', '.join(known)}"


def _known(model: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """Return the names of the fields at this place of the document."""
    for part in path:
        for name, field in model.model_fields.items():
            if (field.alias or name) == part:
                model = _model_in(field.annotation) or model
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model that a field's type holds somewhere."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for argument in get_args(annotation) if (model := _model_in(argument))), None)
