"""What the RFCs leave open: proxyd beside nginx and HAProxy, in the same octets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.differences import CASES, Case, get, respond, table
from tests.conformance.peers import Script, Stand

ALL = [one for cases in CASES.values() for one in cases]
PAGE = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text()


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """The three proxies and the origin server of this module."""
    one = Stand(tmp_path_factory.mktemp("differences"))
    yield one
    one.close()


def test_cases() -> None:
    """There are many, and each has a name of its own."""
    assert len(ALL) >= 150
    assert len({one.name for one in ALL}) == len(ALL)


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_reasons(one: Case) -> None:
    """Where proxyd agrees with neither there is a reason that says whose, and nowhere else."""
    assert bool(one.why) is (one.agrees_with == "neither")
    assert not one.why or re.search(r"SPEC \d|RFC \d{4} \d", one.why)


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_case(stand: Stand, one: Case) -> None:
    """The origin server sees, and the client gets, what the table says, through each of the three."""
    assert {who: str(stand.run(who, one.script)) for who in stand.ports} == one.outcomes


def test_page() -> None:
    """docs/conformance.md has this very table."""
    section = PAGE.partition("\n## Where the RFCs leave room\n")[2].partition("\n## ")[0]
    assert section[section.index("### ") :].strip() == table().strip()


# The stand itself


@pytest.mark.parametrize(
    ("request_", "answer", "seen"),
    [
        (get("X-A: 1"), respond("Content-Length: 2", body="ok"), "GET /x; x-a: 1 → 200"),
        (get("X-A: 1", "x-a: 2"), respond("Content-Length: 0"), 'GET /x; x-a: 1; x-a: 2 → 200; ""'),
        (get("x-a: 2", "X-A: 1"), respond("Content-Length: 0"), 'GET /x; x-a: 2; x-a: 1 → 200; ""'),
        (get("Connection: close"), respond("Content-Length: 2", body="no"), 'GET /x → 200; "no"; the end'),
        (get(), respond("X-B:", "Content-Length: 2", status="201 Made", body="ok"), "GET /x → 201 Made; x-b:"),
        (get(*["X-A: 1"] * 9), respond("Content-Length: 2", body="ok"), "GET /x; x-a: 1 (9 times) → 200"),
        (get(target="/%zz"), respond("Content-Length: 2", body="ok"), "400"),
    ],
)
def test_stand_tells_them_apart(stand: Stand, request_: bytes, answer: bytes, seen: str) -> None:
    """What differs is not described in the same words."""
    assert str(stand.run("proxyd", Script(request_, answer, False, ()))) == seen
