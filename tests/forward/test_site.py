"""L{proxyd.forward.site}: what is told of exchanges that are over."""

from __future__ import annotations

from types import SimpleNamespace

from twisted.internet.task import Clock
from twisted.web.resource import Resource

from proxyd.forward.record import Record
from proxyd.forward.site import ProxySite
from tests.support.exchanges import LIMITS, TIMEOUTS


def ended() -> tuple[Clock, ProxySite, list[int]]:
    """A site in which two exchanges have just ended, and how many were told together."""
    clock, told = Clock(), []
    settings = SimpleNamespace(timeouts=TIMEOUTS, limits=LIMITS)
    site = ProxySite(Resource(), settings, clock, lambda records: told.append(len(records)), lambda accepting: None)
    for _ in range(2):
        site.exchange_ended(Record(None, "192.0.2.1", 0.0))
    return clock, site, told


def test_told_at_the_end_of_a_turn() -> None:
    """Those of one turn are told together, when it ends."""
    clock, site, told = ended()
    assert told == []
    clock.advance(0)
    assert told == [2]
    site.exchange_ended(Record(None, "192.0.2.1", 0.0))
    clock.advance(0)
    assert told == [2, 1]


def test_told_sooner() -> None:
    """Whoever needs to know asks, and the end of the turn has nothing to add."""
    clock, site, told = ended()
    site.report()
    clock.advance(0)
    assert told == [2]
