"""HTTP: small answers, a browser's fields, bodies, new connections, many connections, latency."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from bench.lab import Lab, Server
from bench.load import Done, wrk, wrk_megabytes
from bench.proxies import BARE, PROXYD, started
from bench.rows import Load, Result, Row, Sample, Trial, compare, cpu_per_unit, interleave

CONNECTIONS = 32
MANY = 256
BODY_CONNECTIONS = 8

BROWSER = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Language: en-US,en;q=0.9",
    "Accept-Encoding: gzip, deflate, br",
    "Cache-Control: no-cache",
    "Pragma: no-cache",
    "Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; tracking=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "Referer: http://127.0.0.1/index.html",
    "Sec-Fetch-Dest: document",
    "Sec-Fetch-Mode: navigate",
    "Upgrade-Insecure-Requests: 1",
)
"""With wrk's own Host there are twelve."""

_ITSELF = f"itself, {CONNECTIONS} connections"
_FEW = f"nginx, {CONNECTIONS} connections"


def _origin(lab: Lab) -> int:
    return lab.http_origin


def _small(connections: int = CONNECTIONS, fields: Sequence[str] = (), varied: bool = False) -> Load:
    return lambda port, seconds: wrk(f"http://127.0.0.1:{port}/1k", seconds, connections, fields, varied)


def _body(name: str) -> Load:
    return lambda port, seconds: wrk_megabytes(f"http://127.0.0.1:{port}/{name}", seconds, BODY_CONNECTIONS)


def _many(lab: Lab) -> Result:
    with ExitStack() as stack:
        proxyd, nginx = (stack.enter_context(started(lab, name, lab.http_origin)) for name in (PROXYD, "nginx"))
        trials = {
            PROXYD: cpu_per_unit(proxyd, _small(MANY)),
            _ITSELF: cpu_per_unit(proxyd, _small(CONNECTIONS)),
            "nginx": cpu_per_unit(nginx, _small(MANY)),
            _FEW: cpu_per_unit(nginx, _small(CONNECTIONS)),
        }
        result = interleave(lab, trials)
    # How much of it is the machine's caches, which all have to share.
    few = result.figures.pop(_FEW)
    note = f"nginx: {result.figures['nginx'] / few:.2f} of its own with {CONNECTIONS}"
    return replace(result, notes=(*result.notes, note))


def _median_latency(server: Server) -> Trial:
    def trial(seconds: float) -> Sample:
        done: Done = _small(connections=1)(server.port, seconds)
        return Sample(done.median_us, done.errors)

    return trial


def _latency(lab: Lab) -> Result:
    with ExitStack() as stack:
        names = (PROXYD, "nginx")
        servers = {name: stack.enter_context(started(lab, name, lab.http_origin)) for name in names}
        return interleave(lab, {name: _median_latency(server) for name, server in servers.items()})


ROWS = [
    Row(
        "plain",
        f"answers of 1 KB on {CONNECTIONS} kept-alive connections",
        "µs/request",
        compare(
            (
                "nginx", "nginx without a log", "haproxy", "bun", "node http-proxy", "aiohttp", "twisted.web.proxy",
                BARE,
            ),  # fmt: skip
            _origin,
            _small(),
        ),
        {"nginx": 2.0, "bun": 0.9, "node http-proxy": 0.3, "aiohttp": 0.25},
    ),
    Row(
        "varied",
        "the same, each request with a query of its own",
        "µs/request",
        compare(("nginx", "bun"), _origin, _small(varied=True)),
    ),
    Row(
        "browser",
        "as plain, with the twelve header fields of a browser",
        "µs/request",
        compare(("nginx", "nginx without a log", "bun"), _origin, _small(fields=BROWSER)),
        {"nginx": 2.0, "bun": 0.85},
    ),
    *(
        Row(
            f"body-{size}",
            f"answers of {size.upper()}B on {BODY_CONNECTIONS} connections",
            "µs/MB",
            compare(("nginx-128k", "haproxy"), _origin, _body(size)),
            {"nginx-128k": 1.0, "haproxy": 1.0},
        )
        for size in ("1m", "10m")
    ),
    Row(
        "close",
        f"a new connection for each request, {CONNECTIONS} at a time",
        "µs/request",
        compare(("nginx", "node http-proxy", BARE), _origin, _small(fields=("Connection: close",))),
        {"nginx": 2.3, "node http-proxy": 0.25},
    ),
    Row(
        "many",
        f"as plain, {MANY} connections instead of {CONNECTIONS}",
        "µs/request",
        _many,
        {_ITSELF: 1.15},
    ),
    Row(
        "latency",
        "median latency on one connection",
        "µs",
        _latency,
        {"nginx": 1.25},
    ),
]
