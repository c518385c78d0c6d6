"""TLS to clients: small answers, and a large one."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

from bench.http import BODY_CONNECTIONS, CONNECTIONS
from bench.lab import Lab
from bench.load import Done, wrk, wrk_megabytes
from bench.proxies import PROXYD, started
from bench.rows import Load, Result, Row, cpu_per_unit, interleave

_SERVERS = {PROXYD: "proxyd-tls", "nginx": "nginx-tls"}


def _small(port: int, seconds: float) -> Done:
    return wrk(f"https://127.0.0.1:{port}/1k", seconds, CONNECTIONS)


def _body(port: int, seconds: float) -> Done:
    return wrk_megabytes(f"https://127.0.0.1:{port}/10m", seconds, BODY_CONNECTIONS)


def _negotiated(lab: Lab, port: int) -> str:
    """The protocol's version and the cipher that a client with OpenSSL, as wrk is one, gets."""
    context = ssl.create_default_context(cafile=lab.certificate)
    with socket.create_connection(("127.0.0.1", port)) as plain:
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            cipher = connection.cipher()
            return f"{connection.version()} with {cipher[0] if cipher else 'nothing'}"


def _compare(load: Load) -> Callable[[Lab], Result]:
    def measure(lab: Lab) -> Result:
        with ExitStack() as stack:
            servers = {
                name: stack.enter_context(started(lab, server, lab.http_origin)) for name, server in _SERVERS.items()
            }
            notes = tuple(f"{name}: {_negotiated(lab, server.port)}" for name, server in servers.items())
            result = interleave(lab, {name: cpu_per_unit(server, load) for name, server in servers.items()})
            return replace(result, notes=(*result.notes, *notes))

    return measure


ROWS = [
    Row(
        "tls-1k",
        f"answers of 1 KB over TLS on {CONNECTIONS} kept-alive connections",
        "µs/request",
        _compare(_small),
        {"nginx": 2.5},
    ),
    Row(
        "tls-10m",
        f"answers of 10 MB over TLS on {BODY_CONNECTIONS} connections",
        "µs/MB",
        _compare(_body),
        {"nginx": 1.5},
    ),
]
