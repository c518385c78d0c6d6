"""Memory: of idle WebSockets, with peers that do not read, and after very many requests."""

from __future__ import annotations

from collections.abc import Callable

from bench.http import CONNECTIONS
from bench.lab import Lab, Server
from bench.load import Flood, held, websocket, wrk
from bench.proxies import PROXYD, started
from bench.rows import Result, Row
from bench.websocket import OPENING, SMALL

IDLE = 9_000
"""A proxy needs two descriptors for each, and may have 20,000."""

FLOODS = 4
FLOOD_S = 3.0

FEW, MANY_REQUESTS, MANY_WEBSOCKETS = 10_000, 1_000_000, 100_000

_MB = 1e6
_WRK_S = 20.0
_PATIENCE_S = 300.0


def _warm_up(server: Server) -> None:
    websocket(server.port, "open", SMALL, OPENING, _PATIENCE_S, 200)


def _idle(lab: Lab) -> Result:
    figures, errors = {}, {}
    for name in (PROXYD, "nginx"):
        with started(lab, name, lab.ws_origin) as server:
            _warm_up(server)
            before = server.rss()
            with held(server.port, IDLE) as failed:
                figures[name] = (server.rss() - before) / IDLE / 1e3
            if failed:
                errors[name] = failed
    return Result(figures, errors)


def _growth(mode: str) -> Callable[[Lab], Result]:
    """How much more memory than before there is at most while messages of 64 KB are not read."""

    def measure(lab: Lab) -> Result:
        with started(lab, PROXYD, lab.ws_origin) as server:
            _warm_up(server)
            before = most = server.rss()
            flood = Flood(server.port, mode, FLOODS, FLOOD_S)
            while not flood.ended():
                most = max(most, server.rss())
            errors = flood.errors()
            return Result({PROXYD: (most - before) / _MB}, {PROXYD: errors} if errors else {})

    return measure


def _requests(server: Server, count: int) -> tuple[int, int]:
    """
    Send at least this many requests.

    @return: how many it were, and how many errors.
    """
    sent = errors = 0
    rate = count / _WRK_S
    while sent < count:
        seconds = max(1.0, min(_WRK_S, (count - sent) / rate))
        done = wrk(f"http://127.0.0.1:{server.port}/1k", seconds, CONNECTIONS)
        rate = done.units / seconds
        sent += int(done.units)
        errors += done.errors
    return sent, errors


def _long(lab: Lab) -> Result:
    """Two processes at once, each idle while the other one works: HTTP and WebSocket have different origins."""
    with started(lab, PROXYD, lab.http_origin) as server, started(lab, PROXYD, lab.ws_origin) as relaying:
        _requests(server, FEW)
        websocket(relaying.port, "open", SMALL, OPENING, _PATIENCE_S, FEW)
        before = server.rss(), relaying.rss()
        sent, errors = _requests(server, MANY_REQUESTS)
        done = websocket(relaying.port, "open", SMALL, OPENING, _PATIENCE_S, MANY_WEBSOCKETS)
        after = server.rss(), relaying.rss()
    errors += done.errors
    growths = [(late - early) / _MB for early, late in zip(before, after, strict=True)]
    notes = (
        f"{sent:,} requests: {before[0] / _MB:.1f} MB before, {after[0] / _MB:.1f} MB after",
        f"{done.units:,.0f} WebSockets: {before[1] / _MB:.1f} MB before, {after[1] / _MB:.1f} MB after",
    )
    return Result({PROXYD: sum(growths)}, {PROXYD: errors} if errors else {}, notes)


ROWS = [
    Row("ws-idle", f"memory of an idle WebSocket, with {IDLE:,} of them", "KB", _idle, {"nginx": 1.0}),
    Row(
        "slow-reader",
        f"growth of memory with {FLOODS} clients that do not read a flood",
        "MB",
        _growth("slow"),
        limit=5.0,
    ),
    Row(
        "stopped-reader",
        f"growth of memory with an origin server that does not read {FLOODS} floods",
        "MB",
        _growth("stall"),
        limit=5.0,
    ),
    Row(
        "memory",
        f"growth of memory from {FEW:,} requests and WebSockets to {MANY_REQUESTS:,} and {MANY_WEBSOCKETS:,}",
        "MB",
        _long,
        limit=5.0,
    ),
]
