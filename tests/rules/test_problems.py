"""What pydantic finds, in our words."""

from __future__ import annotations

import datetime
from typing import Annotated, Any

import pytest
from pydantic import Field, ValidationError

from proxyd.rules.problems import Document, kind_of, problems_in


class Inner(Document):
    some_name: int = 0
    ratio: Annotated[float, Field(ge=0, le=1.5)] = 0


class Outer(Document):
    inner_part: Inner | None = None
    parts: list[Inner] = []
    text: Annotated[str, Field(min_length=1, max_length=3)] = "x"


def problems(value: Any) -> list[str]:
    try:
        Outer.model_validate(value)
    except ValidationError as error:
        return [str(problem) for problem in problems_in(error, Outer, ("top",))]
    return []


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"innerPart": {"someName": "x"}}, "top.innerPart.someName: must be a whole number, not a string"),
        ({"innerPart": {"some_name": 1}}, "top.innerPart.some_name: unknown field; did you mean someName?"),
        ({"parts": [{}, {"zzz": 1}]}, "top.parts.1.zzz: unknown field; known are someName, ratio"),
        ({"what": 1}, "top.what: unknown field; known are innerPart, parts, text"),
        ({"innerPart": []}, "top.innerPart: must be a mapping, not a list"),
        ({"parts": {}}, "top.parts: must be a list, not a mapping"),
        ({"text": ""}, "top.text: must not be empty"),
        ({"text": "1234"}, "top.text: must have at most 3 characters"),
        ({"innerPart": {"ratio": -1}}, "top.innerPart.ratio: must be at least 0"),
        ({"innerPart": {"ratio": 2}}, "top.innerPart.ratio: must be at most 1.5"),
        ({"innerPart": {"ratio": float("nan")}}, "top.innerPart.ratio: must be a finite number"),
        ({"innerPart": {"someName": True}}, "top.innerPart.someName: must be a whole number, not true"),
        ({"innerPart": {"someName": 1.5}}, "top.innerPart.someName: must be a whole number, not a decimal"),
        ({1: 2}, "top.1: must have a string as its name"),
        (None, "top: must be a mapping, not null"),
    ],
)
def test_messages(value: object, problem: str) -> None:
    """Each says where, what is wrong and what would be right."""
    assert problems(value) == [problem]


def test_all_at_once() -> None:
    """No problem hides another."""
    assert len(problems({"innerPart": {"someName": None, "x": 1}, "parts": [1, {"ratio": "a"}], "text": 3})) == 5


def test_kinds() -> None:
    """Values are called what people call them, and are never shown."""
    values: list[object] = [None, True, False, 1, 1.5, "secret", [], {}, datetime.date(2026, 1, 1)]
    names = ["null", "true", "false", "a number", "a decimal", "a string", "a list", "a mapping", "a date"]
    assert [kind_of(value) for value in values] == names
