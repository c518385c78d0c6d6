"""
The client's half of SOCKS, octets in, octets out.

@see: RFC 1928 (SOCKS5), RFC 1929 (user and password), the SOCKS 4 and 4A memos of Ying-Da Lee
"""

from __future__ import annotations

from enum import Enum, auto
from ipaddress import IPv4Address, IPv6Address, ip_address

from proxyd.errors import ProxyAuthenticationRequired, ProxyConnectFailed, ProxyError, ProxyTunnelFailed, Refusal

_STAGE = "proxy_handshake"

_REPLIES_5 = {
    1: "general failure",
    2: "not allowed by its rules",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "time to live expired",
    7: "command not supported",
    8: "address type not supported",
}
"""RFC 1928 section 6."""

_REPLIES_4 = {
    91: "request rejected or failed",
    92: "no identd on the client",
    93: "identd says another user",
}

_ADDRESS_SIZES = {1: 4, 4: 16}


class State(Enum):
    """
    Where one handshake is::

        METHOD --user and password--> AUTHENTICATION --> REPLY --> ESTABLISHED      SOCKS5
          `---------- none needed ------------------------^
        REPLY --> ESTABLISHED                                                       SOCKS4

    An error ends it wherever it is.
    """

    METHOD = auto()
    AUTHENTICATION = auto()
    REPLY = auto()
    ESTABLISHED = auto()


def _port(port: int) -> bytes:
    return port.to_bytes(2, "big")


class Socks5Handshake:
    """
    Asks a SOCKS5 server for a connection.

    @ivar established: whether it has one for us.
    """

    def __init__(self, host: str, port: int, user: bytes | None, password: bytes) -> None:
        """
        @param host: an address, or a name that the server resolves.

        @raise ValueError: the name is over 255 octets.
        """
        self._state = State.METHOD
        self._kept = b""
        self._user = user
        self._password = password
        self._request = b"\x05\x01\x00" + _address(host) + _port(port)

    @property
    def established(self) -> bool:
        """Whether the connection to the target is there."""
        return self._state is State.ESTABLISHED

    def begin(self) -> bytes:
        """
        @return: the octets that open the conversation.
        """
        # "No authentication" is offered beside credentials: servers that want none refuse to be offered only those.
        return b"\x05\x01\x00" if self._user is None else b"\x05\x02\x00\x02"

    def receive(self, data: bytes) -> tuple[bytes, bytes]:
        """
        Read more of what the server says.

        @return: octets to send now; and those of the target, which follow the server's last reply.

        @raise ProxyError: the server refuses, or talks no SOCKS5.
        """
        self._kept += data
        to_send = b""
        while self._state is not State.ESTABLISHED:
            answer = self._step()
            if answer is None:
                return to_send, b""
            to_send += answer
        rest, self._kept = self._kept, b""
        return to_send, rest

    def _take(self, size: int) -> bytes | None:
        if len(self._kept) < size:
            return None
        taken, self._kept = self._kept[:size], self._kept[size:]
        return taken

    def _step(self) -> bytes | None:
        """Read one message of the server: what to answer, or L{None} if it is not whole."""
        if self._state is State.METHOD:
            return self._read_method()
        if self._state is State.AUTHENTICATION:
            return self._read_authentication()
        return self._read_reply()

    def _read_method(self) -> bytes | None:
        message = self._take(2)
        if message is None:
            return None
        if message[0] != 5:
            raise _nonsense("no SOCKS5")
        if message[1] == 0:
            self._state = State.REPLY
            return self._request
        if message[1] == 2 and self._user is not None:
            self._state = State.AUTHENTICATION
            return b"\x01%b%b%b%b" % (
                bytes((len(self._user),)),
                self._user,
                bytes((len(self._password),)),
                self._password,
            )
        raise ProxyAuthenticationRequired(
            "the SOCKS proxy accepts none of our ways to authenticate", stage=_STAGE, refusal=Refusal(message[1])
        )

    def _read_authentication(self) -> bytes | None:
        message = self._take(2)
        if message is None:
            return None
        if message[0] != 1:
            raise _nonsense("no answer to user and password")
        if message[1]:
            raise ProxyAuthenticationRequired(
                "the SOCKS proxy refused user and password", stage=_STAGE, refusal=Refusal(message[1])
            )
        self._state = State.REPLY
        return self._request

    def _read_reply(self) -> bytes | None:
        kept = self._kept
        if kept and kept[0] != 5:
            raise _nonsense("no SOCKS5")
        if len(kept) > 1 and kept[1]:
            # Some servers end their refusal here.
            raise _refused(kept[1], _REPLIES_5)
        if len(kept) < 5:
            return None
        size = kept[4] + 1 if kept[3] == 3 else _ADDRESS_SIZES.get(kept[3])
        if size is None:
            raise _nonsense("an address of an unknown type")
        if self._take(4 + size + 2) is None:
            return None
        self._state = State.ESTABLISHED
        return b""


class Socks4Handshake:
    """Asks a SOCKS4 server, or a SOCKS4A one by name, for a connection."""

    def __init__(self, host: str, port: int, user: bytes | None) -> None:
        """
        @param host: an IPv4 address, or a name that the server resolves (SOCKS4A).

        @raise ValueError: it is an IPv6 address, which SOCKS4 does not know.
        """
        self._kept = b""
        self._established = False
        try:
            address = ip_address(host)
        except ValueError:
            # 0.0.0.x with a name behind: that is what 4A is.
            numbers, name = b"\0\0\0\1", host.encode("ascii") + b"\0"
        else:
            if isinstance(address, IPv6Address):
                raise ValueError(f"{host} cannot be asked for by SOCKS4; use socks5")
            numbers, name = address.packed, b""
        self._request = b"\x04\x01" + _port(port) + numbers + (user or b"") + b"\0" + name

    @property
    def established(self) -> bool:
        """Whether the connection to the target is there."""
        return self._established

    def begin(self) -> bytes:
        """
        @return: the request.
        """
        return self._request

    def receive(self, data: bytes) -> tuple[bytes, bytes]:
        """
        Read more of the reply.

        @return: nothing to send; and the octets of the target, which follow the reply.

        @raise ProxyError: the server refuses, or talks no SOCKS4.
        """
        self._kept += data
        if self._kept and self._kept[0]:
            raise _nonsense("no SOCKS4")
        if len(self._kept) > 1 and self._kept[1] != 90:
            raise _refused(self._kept[1], _REPLIES_4)
        if len(self._kept) < 8:
            return b"", b""
        self._established = True
        rest, self._kept = self._kept[8:], b""
        return b"", rest


def _address(host: str) -> bytes:
    """An address or name as SOCKS5 has it (RFC 1928 section 5)."""
    try:
        address = ip_address(host)
    except ValueError:
        name = host.encode("ascii")
        if not 0 < len(name) < 256:
            raise ValueError(f"{host!r} is too long a name for SOCKS5") from None
        return b"\x03" + bytes((len(name),)) + name
    return (b"\x01" if isinstance(address, IPv4Address) else b"\x04") + address.packed


def _nonsense(what: str) -> ProxyError:
    return ProxyTunnelFailed(f"the SOCKS proxy sent {what}", stage="reading", error_type="proxy_internal_response")


def _refused(code: int, texts: dict[int, str]) -> ProxyError:
    text = texts.get(code, "an unknown reason")
    return ProxyConnectFailed(f"the SOCKS proxy refused: {text} ({code})", stage=_STAGE, refusal=Refusal(code, text))
