"""How many requests one client may make."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyd.rules import rate
from proxyd.rules.rate import NO_RATE, Buckets, Rate, parse_rate


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10/s", (10, 1)), ("100/m", (100, 60)), ("1/h", (1, 3600)), ("none", (0, 0))],
)
def test_written(text: str, expected: tuple[int, int]) -> None:
    """A number and a unit."""
    found = parse_rate(text)
    assert (found.source, (found.requests, found.seconds)) == (text, expected)
    assert (found is NO_RATE) is (text == "none")


@pytest.mark.parametrize(
    "text", ["", "10", "0/s", "-1/s", "1.5/s", "10/d", "10 /s", "s", "1e3/s", "1/s/s", "1234567890/s"]
)
def test_nonsense(text: str) -> None:
    """Anything else is none."""
    with pytest.raises(ValueError, match="10/s"):
        parse_rate(text)


def test_at_once_and_over_time() -> None:
    """A bucket's whole content may be taken at once; then one comes back after another."""
    buckets = Buckets(parse_rate("4/m"))
    assert [buckets.take("a", 0) for _ in range(4)] == [0] * 4
    assert buckets.take("a", 0) == 15
    assert buckets.take("a", 14) == pytest.approx(1)
    assert buckets.take("a", 15.001) == 0
    assert buckets.take("a", 15.001) > 14.9
    assert [buckets.take("a", 1000) for _ in range(5)] == [0, 0, 0, 0, 15]


def test_each_client_has_its_own() -> None:
    """Nobody pays for another."""
    buckets = Buckets(parse_rate("1/h"))
    assert buckets.take("a", 0) == 0 and buckets.take("a", 0) > 0 and buckets.take("b", 0) == 0


def test_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many clients there are, memory stays bounded: who has been silent longest is forgotten first."""
    monkeypatch.setattr(rate, "MAX_CLIENTS", 2)
    buckets = Buckets(parse_rate("1/h"))
    for client in "aba":
        buckets.take(client, 0)
    buckets.take("c", 0)
    assert buckets.take("a", 0) > 0
    assert buckets.take("b", 0) == 0


@given(st.integers(1, 50), st.integers(1, 100), st.lists(st.floats(0, 10), max_size=200))
def test_never_more(requests: int, seconds: int, gaps: list[float]) -> None:
    """In no time are there more than the bucket holds and what has come back since."""
    buckets = Buckets(Rate("", requests, seconds))
    now, allowed = 0.0, 0
    for gap in gaps:
        now += gap
        allowed += buckets.take("a", now) == 0
    assert allowed <= requests + now * requests / seconds + 1e-6
