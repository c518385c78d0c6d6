"""Clients, an origin server and the network between them do what they like; a machine of Hypothesis thinks of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.fuzzing.cutting import ErrorsLogged
from tests.fuzzing.reference import Message, read_request, read_response
from tests.support.exchanges import LIMITS, MemoryProxy
from tests.support.transports import BoundedTransport

HIGH = 2000
"""Octets over which a transport is full."""

SEGMENT = 3000
"""The most octets that arrive at once."""

IDEMPOTENT = (b"GET", b"HEAD", b"PUT")

ASKS = ["get", "head", "length", "chunked", "put", "close", "old"]
ANSWERS = ["length", "chunked", "until close", "none", "early", "close", "more"]
FAILURES = ["no head", "no chunk", "no length"]
SIZES = [0, 1, 300, 5000]


def _text(size: int, number: int) -> bytes:
    """A body that tells where a part of it comes from."""
    return (b"%d.%d " % (number, size) * (size // 4 + 1))[:size]


def _chunked(body: bytes) -> bytes:
    """In two chunks, with a trailer."""
    middle = len(body) // 2
    parts = (body[:middle], body[middle:])
    return b"".join(b"%x;a\r\n%b\r\n" % (len(part), part) for part in parts if part) + b"0\r\nX-T: t\r\n\r\n"


@dataclass
class Answer:
    """
    What an origin server says to one request.

    @ivar is_sound: there is a whole answer in it.
    """

    octets: bytes
    body: bytes
    kind: str
    is_sound: bool
    is_over: bool = False


@dataclass
class Request:
    """
    What a client asks.

    @ivar seen: how often the origin server has got its head.
    @ivar answers: what it was answered, each time.
    """

    number: int
    method: bytes
    body: bytes
    octets: bytes
    is_old: bool = False
    seen: int = 0
    answers: list[Answer] = field(default_factory=list)

    @property
    def target(self) -> bytes:
        return b"/%d" % self.number


@dataclass
class Client:
    """
    @ivar is_last: nothing may follow what has been asked.
    @ivar has_left: it has ended its connection itself.
    """

    transport: BoundedTransport
    channel: Any
    requests: list[Request] = field(default_factory=list)
    unsent: bytes = b""
    got: bytes = b""
    is_last: bool = False
    has_left: bool = False


@dataclass
class Origin:
    """
    One connection to the origin server.

    @ivar got: of the present request.
    @ivar present: that request.
    """

    transport: BoundedTransport
    got: bytes = b""
    present: Request | None = None
    is_whole: bool = False
    answer: Answer | None = None
    has_ended: bool = False


class Machine(RuleBasedStateMachine):
    """Whatever happens, nobody is told what was not said."""

    @initialize(limit=st.integers(0, 2), waits=st.booleans())
    def begin(self, limit: int, waits: bool) -> None:
        self.errors = ErrorsLogged()
        self.proxy = MemoryProxy(waits=waits, limit=limit, high=HIGH)
        self.upstreams = [self.proxy.upstream]
        self.clients = [Client(self.proxy.client, self.proxy.channel)]
        self.origins: list[Origin] = []
        self.requests: list[Request] = []
        self.is_undisturbed = True

    # Clients

    @precondition(lambda self: len(self.clients) < 3)
    @rule()
    def connect(self) -> None:
        transport = self.proxy.connect()
        self.clients.append(Client(transport, transport.protocol))

    def client(self, number: int) -> Client:
        return self.clients[number % len(self.clients)]

    @precondition(lambda self: len(self.requests) < 12)
    @rule(which=st.integers(0, 2), kind=st.sampled_from(ASKS), size=st.sampled_from(SIZES))
    def ask(self, which: int, kind: str, size: int) -> None:
        """A client has another request to send, behind all others."""
        client = self.client(which)
        if client.is_last:
            return
        number = len(self.requests)
        method = {"get": b"GET", "head": b"HEAD", "put": b"PUT", "close": b"GET", "old": b"GET"}.get(kind, b"POST")
        body = _text(size, number) if method in (b"POST", b"PUT") else b""
        head = b"%b /%d HTTP/1.%d\r\nHost: a\r\n" % (method, number, kind != "old")
        if kind == "close":
            head += b"Connection: close\r\n"
        if kind == "chunked":
            octets = head + b"Transfer-Encoding: chunked\r\n\r\n" + _chunked(body)
        elif method in (b"POST", b"PUT"):
            octets = head + b"Content-Length: %d\r\n\r\n" % size + body
        else:
            octets = head + b"\r\n"
        request = Request(number, method, body, octets, kind == "old")
        self.requests.append(request)
        client.requests.append(request)
        client.unsent += octets
        client.is_last = kind in ("close", "old")

    @rule(which=st.integers(0, 2), octets=st.sampled_from([b"\0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\nb\r\n\r\n"]))
    def talk_nonsense(self, which: int, octets: bytes) -> None:
        client = self.client(which)
        if not client.is_last:
            self.is_undisturbed = False
            client.unsent += octets
            client.is_last = True

    @rule(which=st.integers(0, 2), size=st.sampled_from([1, 30, 500, SEGMENT]))
    def client_sends(self, which: int, size: int) -> None:
        client = self.client(which)
        transport = client.transport
        # What is not read yet is in the network, which has no room for more.
        if transport.is_connected and not transport.is_waiting and not client.has_left and client.unsent:
            transport.deliver(client.unsent[:size])
            client.unsent = client.unsent[size:]

    @rule(which=st.integers(0, 2), size=st.sampled_from([1, 500, None]))
    def client_reads(self, which: int, size: int | None) -> None:
        client = self.client(which)
        client.got += client.transport.take(size)

    @rule(which=st.integers(0, 2), reset=st.booleans())
    def client_leaves(self, which: int, reset: bool) -> None:
        client = self.client(which)
        self.is_undisturbed = False
        client.has_left = client.is_last = True
        if client.transport.is_connected:
            client.transport.reset() if reset else client.transport.end()

    # The origin server

    @precondition(lambda self: self.proxy.endpoint.waiting)
    @rule()
    def accept(self) -> None:
        self.proxy.endpoint.accept()

    @precondition(lambda self: self.proxy.endpoint.waiting)
    @rule()
    def refuse(self) -> None:
        self.is_undisturbed = False
        self.proxy.endpoint.refuse()

    def origin(self, number: int) -> Origin | None:
        """One of its connections that are alive."""
        self.origins += map(Origin, self.proxy.origins[len(self.origins) :])
        alive = [one for one in self.origins if one.transport.is_connected and not one.has_ended]
        return alive[number % len(alive)] if alive else None

    @rule(which=st.integers(0, 3), size=st.sampled_from([1, 40, 500, None]))
    def origin_reads(self, which: int, size: int | None) -> None:
        origin = self.origin(which)
        if origin is None:
            return
        self.read(origin, size)

    def read(self, origin: Origin, size: int | None) -> None:
        self.finish(origin)
        origin.got += origin.transport.take(size)
        self.understand(origin)

    def finish(self, origin: Origin) -> None:
        """After an answer that has been read to its end, another request may come."""
        answer = origin.answer
        if answer is None or answer.octets or origin.transport.is_waiting or answer.kind == "until close":
            return
        answer.is_over = True
        if origin.is_whole:
            origin.got, origin.present, origin.is_whole, origin.answer = b"", None, False, None

    def understand(self, origin: Origin) -> None:
        """What the origin server has got is what some client has sent."""
        message = read_request(origin.got)
        if message is None:
            return
        number = int(message.start[1][1:])
        request = self.requests[number]
        if origin.present is None:
            origin.present = request
            request.seen += 1
            assert request.seen == 1 or (request.seen == 2 and request.method in IDEMPOTENT), "asked again"
        assert origin.present is request
        assert (message.start[0], message.start[2]) == (request.method, b"HTTP/1.1")
        assert request.body.startswith(message.body)
        if message.is_whole:
            assert message.body == request.body, "a body that was broken off looks whole"
            assert len(origin.got) == message.size, "two requests at once"
            origin.is_whole = True

    @rule(which=st.integers(0, 3), kind=st.sampled_from(ANSWERS * 2 + FAILURES), size=st.sampled_from(SIZES))
    def answer(self, which: int, kind: str, size: int) -> None:
        """The origin server has an answer to what it has been asked, be that all or not."""
        origin = self.origin(which)
        if origin is None or origin.present is None or origin.answer is not None:
            return
        request = origin.present
        body = b"" if kind == "none" or request.method == b"HEAD" else _text(size, request.number)
        name = b"X-R: %d\r\n" % request.number
        length = name + b"Content-Length: %d\r\n\r\n" % size + body
        octets = {
            "length": b"HTTP/1.1 200 OK\r\n" + length,
            "chunked": b"HTTP/1.1 200 OK\r\n" + name + b"Transfer-Encoding: chunked\r\n\r\n"
            + (b"" if request.method == b"HEAD" else _chunked(body)),
            "until close": b"HTTP/1.1 200 OK\r\n" + name + b"\r\n" + body,
            "none": b"HTTP/1.1 204 No Content\r\n" + name + b"\r\n",
            "early": b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\n" + length,
            "close": b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + length,
            "more": b"HTTP/1.1 200 OK\r\n" + length + b"more",
            "no head": b"HTTP/1.1 2 OK\r\n\r\n",
            "no chunk": b"HTTP/1.1 200 OK\r\n" + name + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloworld\r\n",
            "no length": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n" + length,
        }[kind]  # fmt: skip
        if kind == "no chunk":
            body = b"" if request.method == b"HEAD" else b"hello"
        is_sound = kind not in FAILURES or (kind == "no chunk" and request.method == b"HEAD")
        if kind not in ANSWERS or kind == "more" or not origin.is_whole:
            self.is_undisturbed = False
        origin.answer = Answer(octets, body, kind, is_sound)
        request.answers.append(origin.answer)

    @rule(which=st.integers(0, 3), size=st.sampled_from([1, 60, 500, SEGMENT]))
    def origin_sends(self, which: int, size: int) -> None:
        origin = self.origin(which)
        if origin is not None and not origin.transport.is_waiting:
            self.send(origin, size)

    def send(self, origin: Origin, size: int) -> None:
        answer = origin.answer
        if answer is None:
            return
        if answer.octets:
            octets, answer.octets = answer.octets[:size], answer.octets[size:]
            origin.transport.deliver(octets)
            self.finish(origin)
        elif answer.kind == "until close":
            self.end(origin, False)

    @rule(which=st.integers(0, 3), reset=st.booleans())
    def origin_leaves(self, which: int, reset: bool) -> None:
        origin = self.origin(which)
        if origin is not None:
            self.is_undisturbed = False
            self.end(origin, reset)

    def end(self, origin: Origin, reset: bool) -> None:
        origin.has_ended = True
        answer = origin.answer
        if answer is not None and not answer.octets and not reset:
            # Or as soon as the rest has been read.
            answer.is_over = True
        origin.transport.reset() if reset else origin.transport.end()

    @rule(which=st.integers(0, 3))
    def origin_talks_unasked(self, which: int) -> None:
        origin = self.origin(which)
        if origin is not None and origin.present is None and not origin.transport.unsent:
            self.is_undisturbed = False
            origin.transport.deliver(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
            origin.has_ended = True

    # Everybody

    @rule(seconds=st.sampled_from([0.0, 0.0, 1.0, 9.0, 31.0]))
    def wait(self, seconds: float) -> None:
        if seconds:
            self.is_undisturbed = False
        self.proxy.clock.advance(seconds)

    @rule()
    def change_rules(self) -> None:
        """Who was asked before goes on; connections that nobody needs are closed."""
        self.proxy.upstream.retire()
        self.proxy.change_rules()
        self.upstreams.append(self.proxy.upstream)

    @precondition(lambda self: not self.proxy.site.draining)
    @rule()
    def drain(self) -> None:
        self.is_undisturbed = False
        self.proxy.site.drain()

    @precondition(lambda self: self.is_undisturbed)
    @rule()
    def settle(self) -> None:
        """As long as nothing goes wrong, everybody is answered."""
        for _ in range(60 * len(self.requests)):
            while self.proxy.endpoint.waiting:
                self.accept()
            for which in range(len(self.clients)):
                self.client_sends(which, SEGMENT)
                self.client_reads(which, None)
            self.origin(0)
            for origin in self.origins:
                if origin.transport.is_connected and not origin.has_ended:
                    self.read(origin, None)
                    if origin.is_whole and origin.answer is None and origin.present is not None:
                        self.answer(self.alive(origin), "length", 300)
                    if not origin.transport.is_waiting:
                        self.send(origin, SEGMENT)
            self.proxy.clock.advance(0)
        for client in self.clients:
            answers = self.answers(client)
            assert len(answers) == len(client.requests), f"{len(answers)} answers to {len(client.requests)} requests"
            assert all(answer.is_whole for answer in answers)

    def alive(self, origin: Origin) -> int:
        """The number by which L{origin} knows a connection."""
        return [one for one in self.origins if one.transport.is_connected and not one.has_ended].index(origin)

    # What holds at any time

    def answers(self, client: Client) -> list[Message]:
        """What a client has got, the last perhaps in part."""
        transport = client.transport
        closed = transport.has_ended or transport.is_disconnecting
        ended = closed and not transport.is_aborted and not client.has_left and not transport.unsent
        octets, answers = client.got, []
        for request in [*client.requests, Request(-1, b"", b"", b"")]:
            while (message := read_response(octets, request.method, ended)) is not None:
                is_ours = bool(message.values(b"proxy-status"))
                if is_ours and request.method == b"HEAD" and message.size < len(octets):
                    # It was not known yet what was asked.
                    message = read_response(octets, b"", ended)
                    assert message is not None
                if message.start[1] >= b"200":
                    break
                octets = octets[message.size :]
            if message is None:
                assert b"HTTP/1.1 ".startswith(octets[:9])
                return answers
            answers.append(message)
            self.judge(request, message, is_ours)
            if not message.is_whole:
                return answers
            octets = octets[message.size :]
            if is_ours and message.values(b"connection") == [b"close"]:
                break
        assert octets == b"", "more answers than requests"
        return answers

    def judge(self, request: Request, message: Message, is_ours: bool) -> None:
        """An answer is one of ours, or the origin server's as far as it has come."""
        if is_ours:
            assert int(message.start[1]) in (400, 408, 502, 503, 504), message
            return
        assert message.values(b"x-r") == [b"%d" % request.number], "an answer to somebody else"
        assert any(
            answer.body.startswith(message.body)
            and (not message.is_whole or (answer.is_sound and answer.is_over and answer.body == message.body))
            for answer in request.answers
        ), f"{request} got {message}"

    @invariant()
    def clients_get_what_was_said(self) -> None:
        if hasattr(self, "clients"):
            for client in self.clients:
                self.answers(client)

    @invariant()
    def memory_is_bounded(self) -> None:
        if not hasattr(self, "clients"):
            return
        for client in self.clients:
            assert client.transport.unsent <= HIGH + SEGMENT + 500
            assert len(client.channel._buffer) <= LIMITS.header + SEGMENT
        for transport in self.proxy.origins:
            assert transport.unsent <= HIGH + LIMITS.header + SEGMENT + 500
        for upstream in self.upstreams:
            assert not upstream.limit or upstream.open <= upstream.limit

    def teardown(self) -> None:
        """In the end all connections are, and nothing is left."""
        if not hasattr(self, "clients"):
            return
        for client in self.clients:
            client.has_left = True
            if client.transport.is_connected:
                client.transport.reset()
        self.proxy.upstream.retire()
        for _ in range(5):
            for transport in self.proxy.origins:
                transport.take()
            self.proxy.clock.advance(100)
        self.errors.check()
        assert not self.proxy.endpoint.waiting, "an attempt to connect was forgotten"
        assert not any(transport.is_connected for transport in self.proxy.origins)
        assert self.proxy.clock.getDelayedCalls() == []
        assert self.proxy.site.open == 0 and not self.proxy.site.channels
        assert [upstream.open for upstream in self.upstreams] == [0] * len(self.upstreams)
