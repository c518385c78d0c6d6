"""
Clients that count what they lose, and the origin server that they ask.

C{python -m tests.support.load origin} prints its port.
C{python -m tests.support.load clients JSON} asks until its input ends, and
prints what it has seen as JSON; C{JSON} is a L{Plan}.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import re
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import count

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

PATIENCE_S = 20.0
"""Seconds after which an answer is lost."""


@dataclass
class Plan:
    """
    What the clients do.

    @ivar ports: where plain HTTP and WebSockets go, one after the other.
    @ivar tls_port: where half of the HTTP connections go, if anywhere.
    @ivar ca: the authority for these.
    @ivar rate: requests in a second.
    @ivar connections: over how many connections.
    @ivar websockets: how many chat; each says something every second.
    """

    ports: list[int]
    rate: int
    websockets: int
    connections: int = 40
    tls_port: int = 0
    ca: str = ""


@dataclass
class Seen:
    """What they have seen."""

    requests: int = 0
    connections: int = 0
    failed: list[str] = field(default_factory=list)
    messages: int = 0
    wrong: list[str] = field(default_factory=list)
    closed: Counter[str] = field(default_factory=Counter)
    certificates: list[str] = field(default_factory=list)
    closed_at: list[float] = field(default_factory=list)


# The origin server


def accept_of(key: bytes) -> bytes:
    """What answers a WebSocket's key (RFC 6455 section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """One frame of at most 125 octets: its opcode and payload."""
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    assert size < 126, size
    mask = await reader.readexactly(4) if second & 0x80 else bytes(4)
    payload = await reader.readexactly(size)
    return first & 0x0F, bytes(octet ^ mask[index % 4] for index, octet in enumerate(payload))


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request with its path, each message with the same."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 2)[1]
            if b"\r\nupgrade: websocket" in head.lower():
                (key,) = re.findall(rb"(?i)\r\nsec-websocket-key: (\S+)", head)
                writer.write(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Accept: " + accept_of(key) + b"\r\n\r\n"
                )
                await echo(reader, writer)
                return
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))
    writer.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send every frame back."""
    while True:
        opcode, payload = await read_frame(reader)
        writer.write(bytes((0x80 | opcode, len(payload))) + payload)
        if opcode == 8:
            writer.close()
            return


async def serve() -> None:
    """Be the origin server."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


# The clients


class Clients:
    """All of them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.seen = Seen()
        self.ending = asyncio.Event()
        self._numbers = count()

    async def run(self) -> None:
        """Ask until the input ends."""
        plan = self.plan
        tasks = [asyncio.create_task(self.chat(number)) for number in range(plan.websockets)]
        tasks += [asyncio.create_task(self.ask(number)) for number in range(plan.connections)]
        loop = asyncio.get_running_loop()
        loop.add_reader(sys.stdin.fileno(), lambda: None if os.read(0, 1) else self.ending.set())
        await asyncio.gather(*tasks)
        loop.remove_reader(sys.stdin.fileno())

    async def ticks(self, interval: float, start: float) -> AsyncIterator[None]:
        """Moments at equal intervals, until it ends."""
        loop = asyncio.get_running_loop()
        due = loop.time() + start * interval
        while not self.ending.is_set():
            if (left := due - loop.time()) > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.ending.wait(), left)
                    return
            yield
            due += interval

    async def ask(self, number: int) -> None:
        """Make requests on one connection, and on another one when it was said that it ends."""
        plan, seen = self.plan, self.seen
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        async for _ in self.ticks(plan.connections / plan.rate, number / plan.connections):
            path = f"/r/{next(self._numbers)}"
            # Now and then a connection is given up, so that others are made all the time.
            last = next(self._numbers) % 101 == 0
            try:
                if connection is None:
                    connection = await self.connect(number)
                reader, writer = connection
                close = "Connection: close\r\n" if last else ""
                writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{close}\r\n".encode())
                async with asyncio.timeout(PATIENCE_S):
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                    size = int(head.lower().partition("content-length: ")[2].split("\r\n")[0])
                    body = (await reader.readexactly(size)).decode("latin-1")
                if not head.startswith("HTTP/1.1 200 ") or body != path:
                    raise ValueError(f"{head[:40]!r} {body[:80]!r}")
                if "\r\nconnection: close\r\n" in head.lower():
                    writer.close()
                    connection = None
            except (OSError, EOFError, ValueError, asyncio.IncompleteReadError) as error:
                seen.failed.append(f"{path}: {error!r}")
                connection = None
            seen.requests += 1
        if connection is not None:
            connection[1].close()

    async def connect(self, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new connection."""
        plan = self.plan
        self.seen.connections += 1
        if not plan.tls_port or number % 2:
            return await asyncio.open_connection("127.0.0.1", plan.ports[number % len(plan.ports)])
        context = ssl.create_default_context(cafile=plan.ca)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", plan.tls_port, ssl=context, server_hostname="localhost"
        )
        serial = str(writer.get_extra_info("peercert")["serialNumber"])
        if serial not in self.seen.certificates:
            self.seen.certificates.append(serial)
        return reader, writer

    async def chat(self, number: int) -> None:
        """Say something every second, and look whether it comes back, once and in order."""
        seen, plan = self.seen, self.plan
        reader, writer = await asyncio.open_connection("127.0.0.1", plan.ports[number % len(plan.ports)])
        writer.write(
            b"GET /chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + base64.b64encode(os.urandom(16)) + b"\r\n\r\n"
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        sent = 0

        async def hear() -> None:
            heard = 0
            while True:
                try:
                    opcode, payload = await read_frame(reader)
                except (asyncio.IncompleteReadError, ConnectionError) as error:
                    seen.closed[type(error).__name__] += 1
                    break
                if opcode == 8:
                    seen.closed[str(int.from_bytes(payload[:2], "big"))] += 1
                    seen.closed_at.append(asyncio.get_running_loop().time())
                    if not self.ending.is_set():
                        send(8, payload)
                    break
                if payload != f"{number} {heard}".encode():
                    seen.wrong.append(f"{payload!r} in place of {number} {heard}")
                heard += 1
                seen.messages += 1
            if heard != sent and not seen.closed["1012"]:
                seen.wrong.append(f"{number}: {sent - heard} of {sent} did not come back")

        def send(opcode: int, payload: bytes) -> None:
            writer.write(bytes((0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0)) + payload)

        hearing = asyncio.create_task(hear())
        async for _ in self.ticks(1.0, number / max(plan.websockets, 1)):
            if hearing.done():
                break
            send(1, f"{number} {sent}".encode())
            sent += 1
        if not hearing.done():
            send(8, (1000).to_bytes(2, "big"))
        async with asyncio.timeout(PATIENCE_S):
            await hearing
        writer.close()


async def ask(plan: Plan) -> None:
    """Be the clients."""
    clients = Clients(plan)
    await clients.run()
    json.dump(vars(clients.seen), sys.stdout)


if __name__ == "__main__":
    if sys.argv[1] == "origin":
        asyncio.run(serve())
    else:
        asyncio.run(ask(Plan(**json.loads(sys.argv[2]))))
