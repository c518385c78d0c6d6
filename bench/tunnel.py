"""
Bodies through an HTTPS proxy: TLS to the proxy, and TLS to the origin server inside.

proxyd is measured as a client of that proxy: a rule whose target is C{https}
has C{proxy: https://…}.  With it compared is one whose proxy is of plain HTTP,
so with one layer of TLS in the same kind of tunnel; and, for information, one
that goes straight to the target.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.lab import HERE, LOAD_CORE, PROXY_CORE, Lab, Server, free_port, running
from bench.load import Done, curl
from bench.proxies import PROXYD, proxyd_command
from bench.rows import Load, Result, Row, cpu_per_unit, interleave

SIZE = 100_000_000

_ONE_LAYER, _STRAIGHT = "itself, one layer in the tunnel", "itself, one layer, no tunnel"

_PATHS = {PROXYD: "two", _ONE_LAYER: "one", _STRAIGHT: "straight"}

_RULES = """
  - &rule
    name: Two layers
    pattern: ^/two(/.*)$
    target: "https://127.0.0.1:{origin}"
    rewrite: $1
    tls: {{ca: "{ca}"}}
    proxy: {{url: "https://127.0.0.1:{secure}", tls: {{ca: "{ca}"}}}}
  - {{<<: *rule, name: One layer, pattern: ^/one(/.*)$, proxy: "http://127.0.0.1:{plain}"}}
  - {{<<: *rule, name: No tunnel, pattern: ^/straight(/.*)$, proxy: direct}}
"""


@contextlib.contextmanager
def _proxyd(lab: Lab) -> Iterator[Server]:
    """proxyd, with an origin server and two proxies behind it on the load's core."""
    origin, secure, plain, port = (free_port() for _ in range(4))
    ports = [str(one) for one in (origin, secure, plain)]
    command = ["node", str(HERE / "peers" / "tunnel.js"), str(lab.certificate), *ports]
    rules = _RULES.format(origin=origin, secure=secure, plain=plain, ca=lab.certificate)
    with running(command, plain, LOAD_CORE, lab.folder):
        with running(proxyd_command(lab, port, rules), port, PROXY_CORE, lab.folder) as server:
            yield server


def _transfers(path: str, upload: Path | None) -> Load:
    """Transfers of L{SIZE} octets, one after the other, at least one."""

    def load(port: int, seconds: float) -> Done:
        deadline = time.monotonic() + seconds
        megabytes = 0.0
        while not megabytes or time.monotonic() < deadline:
            megabytes += curl(f"http://127.0.0.1:{port}/{path}/{SIZE}", upload).units
        return Done(megabytes)

    return load


def _measure(up: bool) -> Callable[[Lab], Result]:
    def measure(lab: Lab) -> Result:
        upload = lab.folder / "upload" if up else None
        if upload:
            upload.write_bytes(b"x" * SIZE)
        with _proxyd(lab) as server:
            trials = {name: cpu_per_unit(server, _transfers(path, upload)) for name, path in _PATHS.items()}
            return interleave(lab, trials)

    return measure


ROWS = [
    Row(
        "tunnel-down",
        "answers of 100 MB over TLS through an HTTPS proxy",
        "µs/MB",
        _measure(up=False),
        {_ONE_LAYER: 1.5},
    ),
    Row(
        "tunnel-up",
        "requests of 100 MB over TLS through an HTTPS proxy",
        "µs/MB",
        _measure(up=True),
        {_ONE_LAYER: 2.0},
    ),
]
