"""The servers behind the proxies: nginx for HTTP, a program in C for WebSocket; both on the load's core."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.lab import HERE, LOAD_CORE, PROGRAMS, Server, free_port, running
from bench.proxies import fill

SIZES = {"1k": 1024, "1m": 1 << 20, "10m": 10 << 20}
"""Octets of the files that the HTTP origin server has."""


@contextlib.contextmanager
def http_origin(folder: Path) -> Iterator[Server]:
    """nginx with files of some sizes."""
    for name, size in SIZES.items():
        (folder / name).write_bytes(b"x" * size)
    port = free_port()
    conf = fill(HERE / "peers" / "origin.conf", folder, port=port)
    with running(["nginx", "-c", str(conf)], port, LOAD_CORE, folder) as server:
        yield server


@contextlib.contextmanager
def ws_origin(folder: Path) -> Iterator[Server]:
    """The WebSocket origin server; what its paths do is said in c/origin.c."""
    port = free_port()
    with running([str(PROGRAMS / "origin"), str(port)], port, LOAD_CORE, folder) as server:
        yield server


def make_certificate(folder: Path) -> Path:
    """
    Make a certificate for 127.0.0.1 that is its own authority, with a key on the curve P-256.

    @return: a PEM file with both.
    """
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, *names, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    both = folder / "server.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    return both
