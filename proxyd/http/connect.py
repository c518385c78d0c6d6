"""
The client's half of an HTTP C{CONNECT} exchange, octets in, octets out.

@see: RFC 9110 section 9.3.6 (CONNECT), RFC 9112 section 3.2.3 (authority-form)
"""

from __future__ import annotations

import re
from enum import Enum, auto

from proxyd.http.authority import Authority
from proxyd.http.fields import Fields, serialize, valid_name, valid_value, values

MAX_REPLY_HEAD = 16 * 1024
"""The most octets of a reply's head, interim ones included: h11 has the same limit."""

MAX_REFUSAL_BODY = 4 * 1024
"""The most octets that are kept of what a proxy says when it refuses."""

_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] ([1-9][0-9]{2})(?: ([^\x00-\x08\x0a-\x1f\x7f]*))?")
_FIELD = re.compile(rb"([!-9;-~]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")
"""A line that is none, or that would not be one line wherever it is shown, is left out: nothing depends on it."""


class Malformed(ValueError):
    """What the proxy sent is no reply, or its head is over L{MAX_REPLY_HEAD}."""


class State(Enum):
    """
    Where one handshake is.  It only ever moves down this list::

        AWAITING_HEAD --2xx--> ESTABLISHED
              |---- another final status --> REFUSED
              `---- no reply --> FAILED
    """

    AWAITING_HEAD = auto()
    ESTABLISHED = auto()
    REFUSED = auto()
    FAILED = auto()


class ConnectHandshake:
    """
    One C{CONNECT} request and its reply.

    Write L{request} to the proxy, then give what the proxy sends to L{receive}
    until L{state} says how it ended.

    @ivar status: of the refusal; so are L{reason}, L{fields} and L{body}, the
        last as far as it has come.
    """

    def __init__(self, authority: Authority, fields: Fields) -> None:
        """
        @param authority: whom the tunnel is for, with its port.
        @param fields: further fields of the request, such as C{Proxy-Authorization}.

        @raise ValueError: a field is none: nothing may end the line that it is on.
        """
        for name, value in fields:
            if not valid_name(name) or not valid_value(value):
                raise ValueError(f"the field {name!r} for the proxy is malformed")
        self.state = State.AWAITING_HEAD
        self.status = 0
        self.reason = b""
        self.fields: Fields = []
        self.body = b""
        self._authority = authority
        self._request_fields = fields
        self._kept = b""
        self._heads_size = 0

    def request(self) -> bytes:
        """
        @return: the octets that ask the proxy for a tunnel.
        """
        # With its port in both places: authority-form has no default port, and Host repeats it.
        target = self._authority.to_bytes()
        return b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (target, target, serialize(self._request_fields))

    def receive(self, data: bytes) -> bytes:
        """
        Read more of the reply.

        @return: the octets after it, which are the target's; nothing before the tunnel is established.

        @raise Malformed: this is no reply.
        @raise RuntimeError: the handshake has ended before.
        """
        if self.state is State.REFUSED:
            self._keep_body(data)
            return b""
        if self.state is not State.AWAITING_HEAD:
            raise RuntimeError(f"receive() in {self.state.name}")
        data = self._kept + data
        while True:
            end = data.find(b"\r\n\r\n")
            size = self._heads_size + (end + 4 if end >= 0 else len(data))
            if size > MAX_REPLY_HEAD:
                raise self._fail(f"the head of the proxy's reply is over {MAX_REPLY_HEAD} octets")
            if end < 0:
                self._kept = data
                return b""
            status = self._read_head(data[:end])
            data = data[end + 4 :]
            if status >= 200:
                break
            # An interim reply (RFC 9110 section 15.2): its size counts, or a proxy could send them for ever.
            self._heads_size = size
        self._kept = b""
        if status < 300:
            # A 2xx to CONNECT has no content whatever its fields claim (RFC 9110 section 9.3.6): the rest is the
            # target's, which may speak first.
            self.state = State.ESTABLISHED
            return data
        self.state = State.REFUSED
        self._keep_body(data)
        return b""

    def challenges(self) -> list[str]:
        """
        @return: how the proxy wants to be told who we are (RFC 9110 section 11.7.1).
        """
        return [value.decode("latin-1") for value in values(self.fields, b"proxy-authenticate")]

    def _read_head(self, head: bytes) -> int:
        line, *lines = head.split(b"\r\n")
        found = _STATUS_LINE.fullmatch(line)
        if found is None:
            raise self._fail(f"the proxy's reply is no HTTP/1: {line[:80]!r}")
        fields = [_FIELD.fullmatch(one) for one in lines]
        self.fields = [(one[1], one[2]) for one in fields if one is not None]
        self.reason = found[2] or b""
        self.status = int(found[1])
        return self.status

    def _keep_body(self, data: bytes) -> None:
        self.body = (self.body + data)[:MAX_REFUSAL_BODY]

    def _fail(self, text: str) -> Malformed:
        self.state = State.FAILED
        self._kept = b""
        return Malformed(text)
