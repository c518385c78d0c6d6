"""Streams cut into segments; what is asked of all targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, TypeVar
from zlib import crc32

from twisted.logger import LogLevel, globalLogPublisher

_Result = TypeVar("_Result")


def cuttings(octets: bytes) -> Iterator[list[bytes]]:
    """The same stream as one segment, in some segments that depend on it alone, and octet by octet."""
    yield [octets] if octets else []
    random = Random(crc32(octets))
    places = sorted({0, len(octets), *(random.randint(0, len(octets)) for _ in range(random.randint(1, 8)))})
    yield [octets[begin:end] for begin, end in zip(places, places[1:], strict=False)]
    yield [octets[at : at + 1] for at in range(len(octets))]


def same_for_all(octets: bytes, outcome: Callable[[list[bytes]], _Result]) -> _Result:
    """
    @return: what comes of a stream, however it is cut.
    """
    first, *others = map(outcome, cuttings(octets))
    for other in others:
        assert other == first, f"cutting matters: {first} became {other}"
    return first


class ErrorsLogged:
    """Errors that are logged from now on: nobody expected them, yet somebody caught them."""

    def __init__(self) -> None:
        self._events: list[Any] = []
        globalLogPublisher.addObserver(self._observe)

    def _observe(self, event: Any) -> None:
        if "log_failure" in event or event["log_level"] >= LogLevel.error:
            self._events.append(event)

    def stop(self) -> None:
        """Listen no more."""
        globalLogPublisher.removeObserver(self._observe)

    def check(self) -> None:
        """
        Listen no more.

        @raise AssertionError: there were some.
        """
        self.stop()
        for event in self._events:
            failure = event.get("log_failure")
            raise AssertionError(failure.getTraceback() if failure is not None else event)


@contextmanager
def nothing_logged() -> Iterator[None]:
    """Fails when an error is logged."""
    errors = ErrorsLogged()
    try:
        yield
    except BaseException:
        errors.stop()
        raise
    errors.check()
