"""WebSocket: echoes, floods, large messages, opening handshakes."""

from __future__ import annotations

from bench.lab import Lab
from bench.load import websocket
from bench.proxies import BARE
from bench.rows import Load, Row, compare

ECHOING = 100
OPENING = 16
SMALL = 64


def _origin(lab: Lab) -> int:
    return lab.ws_origin


def _load(mode: str, size: int, connections: int = 1) -> Load:
    return lambda port, seconds: websocket(port, mode, size, connections, seconds)


ROWS = [
    Row(
        "ws-echo",
        f"echoes of {SMALL} octets, one at a time on {ECHOING} connections",
        "µs/round trip",
        compare(("nginx", "node http-proxy", "aiohttp", "bun"), _origin, _load("echo", SMALL, ECHOING)),
        {"nginx": 1.6, "node http-proxy": 0.9, "aiohttp": 0.7},
    ),
    Row(
        "ws-flood",
        f"messages of {SMALL} octets from one client as fast as they are taken",
        "µs/message",
        compare(("bun", "aiohttp", "nginx"), _origin, _load("up", SMALL)),
        limit=0.3,
    ),
    *(
        Row(
            f"ws-{name}",
            f"messages of {name.upper()}B from one client",
            "µs/message",
            compare(("nginx-128k", "haproxy"), _origin, _load("up", size)),
            {"nginx-128k": 1.2, "haproxy": 0.85},
        )
        for name, size in (("64k", 1 << 16), ("1m", 1 << 20))
    ),
    Row(
        "ws-down",
        "messages of 64 KB from the origin server",
        "µs/message",
        compare(("nginx-128k", "haproxy"), _origin, _load("down", 1 << 16)),
    ),
    Row(
        "ws-open",
        f"connections opened for one echo of {SMALL} octets and closed, {OPENING} at a time",
        "µs/connection",
        compare(("node http-proxy", "nginx", BARE), _origin, _load("open", SMALL, OPENING)),
        {"node http-proxy": 1.0},
    ),
]
