"""
Python imports this first in a process under test: names below C{names.test} are asked for at the test's own server.

It stands where the system's resolver does, in the thread that calls it, and waits for as long as the server is silent.
"""

from __future__ import annotations

import os
import socket
from typing import Any

_ask_system = socket.getaddrinfo


def getaddrinfo(host: Any, port: Any, *more: Any, **options: Any) -> Any:
    """As C{socket.getaddrinfo}."""
    if isinstance(host, str) and host.endswith(".names.test"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as question:
            question.connect(("127.0.0.1", int(os.environ["TEST_NAMES_PORT"])))
            question.send(host.encode())
            host = question.recv(512).decode()
        if not host:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return _ask_system(host, port, *more, **options)


socket.getaddrinfo = getaddrinfo
