"""L{proxyd.tls}: TLS with the standard library's as the other end, and no socket between the two."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.testing import StringTransport

from proxyd.tls import RECORD, PromptTLSFactory
from tests.support.certificates import Authority, client_context

NAME = "a.test"


class Echo(Protocol):
    """Keeps what comes, and sends it back."""

    received = b""

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.transport.write(data)


class Client:
    """The other end: what it writes goes to our transport when somebody says so."""

    def __init__(self, server: Any, transport: StringTransport, context: ssl.SSLContext) -> None:
        self.server = server
        self.transport = transport
        self._coming, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._coming, self._going, server_hostname=NAME)
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.exchange()
        self.exchange()

    def exchange(self) -> None:
        """Give each side what the other one has sent."""
        if self._going.pending:
            self.server.dataReceived(self._going.read())
        self._coming.write(self.transport.value())
        self.transport.clear()

    def encrypted(self, data: bytes) -> bytes:
        """What would be sent for this."""
        at = 0
        while at < len(data):
            at += self.tls.write(data[at:])
        return self._going.read()

    def ended(self) -> bytes:
        """What would be sent at the end."""
        with pytest.raises(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self._going.read()

    def read(self) -> bytes:
        """What has come back."""
        self._coming.write(self.transport.value())
        self.transport.clear()
        data = b""
        while True:
            try:
                data += self.tls.read()
            except ssl.SSLWantReadError:
                return data


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    """A connection with an L{Echo}, in each version."""
    authority = Authority(tmp_path)
    certificate = PrivateCertificate.loadPEM(authority.sign(NAME).read_bytes())
    factory = PromptTLSFactory(certificate.options(), False, Factory.forProtocol(Echo))
    server = factory.buildProtocol(None)
    transport = StringTransport()
    server.makeConnection(transport)
    context = client_context(authority.file)
    context.minimum_version = context.maximum_version = request.param
    yield Client(server, transport, context)


MESSAGES = [b"a", b"b" * 1000, b"c" * RECORD, b"d" * (3 * RECORD + 1), b"e", b"f" * 5]


def _told(client: Client) -> bytes:
    return bytes(client.server.wrappedProtocol.received)


def test_record_by_record(client: Client) -> None:
    """What comes in one piece is there at once, and the answer goes out."""
    for message in MESSAGES:
        before = _told(client)
        client.server.dataReceived(client.encrypted(message))
        assert _told(client) == before + message
        assert client.read() == message


@pytest.mark.parametrize("size", [1, 2, 4, 5, 6, 7, 29, 1000, RECORD, RECORD + 22, 100_000])
def test_pieces_of_a_size(client: Client, size: int) -> None:
    """However it is cut: nothing waits when all of it has come."""
    octets = b"".join(client.encrypted(message) for message in MESSAGES)
    for at in range(0, len(octets), size):
        client.server.dataReceived(octets[at : at + size])
    assert _told(client) == b"".join(MESSAGES)
    assert client.read() == b"".join(MESSAGES)


def test_every_cut(client: Client) -> None:
    """Two records in two pieces, cut everywhere: each is told as soon as it is whole, and so is the next one."""
    messages = (b"first", b"second", b"third")
    cut, size = 0, 2
    while cut < size - 1:
        cut += 1
        first, second, third = (client.encrypted(message) for message in messages)
        size = len(first) + len(second)
        before = _told(client)
        client.server.dataReceived((first + second)[:cut])
        assert _told(client) == before + (b"first" if cut >= len(first) else b"")
        client.server.dataReceived((first + second)[cut:])
        assert _told(client) == before + b"firstsecond"
        client.server.dataReceived(third)
        assert _told(client) == before + b"firstsecondthird"
    assert client.read() == b"firstsecondthird" * cut


def test_end_with_the_last_record(client: Client) -> None:
    """What ends the connection is heard behind what it came with, and by itself."""
    client.server.dataReceived(client.encrypted(b"last") + client.ended())
    assert _told(client) == b"last"
    assert client.transport.disconnecting


def test_end_by_itself(client: Client) -> None:
    """An end that comes later is no less of one."""
    client.server.dataReceived(client.encrypted(b"last"))
    client.server.dataReceived(client.ended())
    assert _told(client) == b"last"
    assert client.transport.disconnecting


def test_changed(client: Client) -> None:
    """A record that was changed on its way ends the connection."""
    changed = bytearray(client.encrypted(b"changed"))
    changed[-1] ^= 1
    client.server.dataReceived(bytes(changed))
    assert _told(client) == b""
    assert client.transport.disconnecting
