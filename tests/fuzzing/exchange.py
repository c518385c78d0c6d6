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
TROUBLES = ["nonsense", "client leaves", "refuse", "origin leaves", "unasked", "time", "failures", "hasty", "drain"]


def _text(size: int, number: int) -> bytes:
    """A body that tells where a part of it comes from."""
    return (b"%d.%d " % (number, size) * (size // 4 + 1))[:size]


def _chunked(body: bytes) -> bytes:
    """In two chunks, with a trailer."""
    middle = len(body) // 2
    parts = (body[:middle], body[middle:])
    return b"".join(b"%x;a\r\n%b\r\n" % (len(part), part) for part in parts if part) + b"0\r\nX-T: t\r\n\r\n"


MORE = b"more"
"""What nobody has asked for, behind an answer."""


@dataclass
class Answer:
    """
    What an origin server says to one request.

    @ivar octets: what is still to be sent of it.
    @ivar is_sound: there is a whole answer in it.
    @ivar has_ended: the connection has, without a reset.
    """

    octets: bytes
    body: bytes
    kind: str
    is_sound: bool
    has_ended: bool = False

    @property
    def is_over(self) -> bool:
        """Whether all of it was sent, and its end was."""
        if self.kind == "until close":
            return self.has_ended and not self.octets
        return len(self.octets) <= (len(MORE) if self.kind == "more" else 0)


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

    @initialize(
        limit=st.integers(0, 2),
        waits=st.booleans(),
        # All of them at once, and nothing would ever come to its end.
        troubles=st.sets(st.sampled_from(TROUBLES), max_size=2),
    )
    def begin(self, limit: int, waits: bool, troubles: set[str]) -> None:
        self.troubles = troubles
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

    @property
    def senders(self) -> list[Client]:
        """Clients that have something to send, and can: what is not read yet is in the network, which then is full."""
        return [
            one
            for one in self.clients
            if one.unsent and one.transport.is_connected and not one.transport.is_waiting and not one.has_left
        ]

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

    @precondition(lambda self: "nonsense" in self.troubles)
    @rule(which=st.integers(0, 2), octets=st.sampled_from([b"\0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\nb\r\n\r\n"]))
    def talk_nonsense(self, which: int, octets: bytes) -> None:
        client = self.client(which)
        if not client.is_last:
            self.is_undisturbed = False
            client.unsent += octets
            client.is_last = True

    @precondition(lambda self: self.senders)
    @rule(which=st.integers(0, 2), size=st.sampled_from([1, 30, 500, SEGMENT, SEGMENT]))
    def client_sends(self, which: int, size: int) -> None:
        client = self.senders[which % len(self.senders)]
        octets, client.unsent = client.unsent[:size], client.unsent[size:]
        client.transport.deliver(octets)

    @rule(which=st.integers(0, 2), size=st.sampled_from([1, 500, None]))
    def client_reads(self, which: int, size: int | None) -> None:
        client = self.client(which)
        client.got += client.transport.take(size)

    @precondition(lambda self: "client leaves" in self.troubles)
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

    @precondition(lambda self: "refuse" in self.troubles and self.proxy.endpoint.waiting)
    @rule()
    def refuse(self) -> None:
        self.is_undisturbed = False
        self.proxy.endpoint.refuse()

    @property
    def alive(self) -> list[Origin]:
        """Its connections."""
        self.origins += map(Origin, self.proxy.origins[len(self.origins) :])
        return [one for one in self.origins if one.transport.is_connected and not one.has_ended]

    @property
    def askers(self) -> list[Origin]:
        """Those on which there is something to read."""
        return [one for one in self.alive if one.transport.unsent]

    @property
    def asked(self) -> list[Origin]:
        """Those with a request that has no answer, and all of it unless one is hasty."""
        return [
            one
            for one in self.alive
            if one.present is not None and one.answer is None and (one.is_whole or "hasty" in self.troubles)
        ]

    @property
    def speakers(self) -> list[Origin]:
        """Those on which there is more of an answer to send."""
        return [one for one in self.alive if one.answer is not None and not one.transport.is_waiting]

    @precondition(lambda self: self.askers)
    @rule(which=st.integers(0, 3), size=st.sampled_from([1, 40, 500, None, None]))
    def origin_reads(self, which: int, size: int | None) -> None:
        self.read(self.askers[which % len(self.askers)], size)

    def read(self, origin: Origin, size: int | None) -> None:
        self.finish(origin)
        origin.got += origin.transport.take(size)
        self.understand(origin)

    def finish(self, origin: Origin) -> None:
        """After an answer that has been read to its end, another request may come."""
        answer = origin.answer
        if answer is None or answer.octets or origin.transport.is_waiting or answer.kind == "until close":
            return
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

    @precondition(lambda self: self.asked)
    @rule(which=st.integers(0, 3), kind=st.sampled_from(ANSWERS), size=st.sampled_from(SIZES))
    def answer(self, which: int, kind: str, size: int) -> None:
        """The origin server has an answer to what it has been asked, be that all or not."""
        self.prepare(self.asked[which % len(self.asked)], kind, size)

    @precondition(lambda self: "failures" in self.troubles and self.asked)
    @rule(which=st.integers(0, 3), kind=st.sampled_from(FAILURES))
    def answer_badly(self, which: int, kind: str) -> None:
        self.is_undisturbed = False
        self.prepare(self.asked[which % len(self.asked)], kind, 300)

    def prepare(self, origin: Origin, kind: str, size: int) -> None:
        request = origin.present
        assert request is not None
        if kind == "until close" and request.method == b"HEAD":
            kind = "none"
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
            "more": b"HTTP/1.1 200 OK\r\n" + length + MORE,
            "no head": b"HTTP/1.1 2 OK\r\n\r\n",
            "no chunk": b"HTTP/1.1 200 OK\r\n" + name + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloworld\r\n",
            "no length": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n" + length,
        }[kind]  # fmt: skip
        if kind == "no chunk":
            body = b"" if request.method == b"HEAD" else b"hello"
        is_sound = kind not in FAILURES or (kind == "no chunk" and request.method == b"HEAD")
        if kind == "more" or not origin.is_whole:
            self.is_undisturbed = False
        origin.answer = Answer(octets, body, kind, is_sound)
        request.answers.append(origin.answer)

    @precondition(lambda self: self.speakers)
    @rule(which=st.integers(0, 3), size=st.sampled_from([1, 60, 500, SEGMENT, SEGMENT]))
    def origin_sends(self, which: int, size: int) -> None:
        self.send(self.speakers[which % len(self.speakers)], size)

    def send(self, origin: Origin, size: int) -> None:
        answer = origin.answer
        assert answer is not None
        if answer.octets:
            octets, answer.octets = answer.octets[:size], answer.octets[size:]
            origin.transport.deliver(octets)
            self.finish(origin)
        elif answer.kind == "until close":
            self.end(origin, False)

    @precondition(lambda self: "origin leaves" in self.troubles and self.alive)
    @rule(which=st.integers(0, 3), reset=st.booleans())
    def origin_leaves(self, which: int, reset: bool) -> None:
        self.is_undisturbed = False
        self.end(self.alive[which % len(self.alive)], reset)

    def end(self, origin: Origin, reset: bool) -> None:
        origin.has_ended = True
        answer = origin.answer
        if answer is not None:
            answer.has_ended = not reset
            if answer.kind == "until close" and not reset and len(answer.octets) <= len(answer.body):
                # Nobody can know that there was to be more.
                answer.body = answer.body[: len(answer.body) - len(answer.octets)]
                answer.octets = b""
        origin.transport.reset() if reset else origin.transport.end()

    @precondition(lambda self: "unasked" in self.troubles and self.alive)
    @rule(which=st.integers(0, 3))
    def origin_talks_unasked(self, which: int) -> None:
        origin = self.alive[which % len(self.alive)]
        if origin.present is None and not origin.transport.unsent:
            self.is_undisturbed = False
            origin.transport.deliver(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
            origin.has_ended = True

    # Everybody

    @rule()
    def loop(self) -> None:
        """The reactor goes on."""
        self.proxy.clock.advance(0)

    @precondition(lambda self: "time" in self.troubles)
    @rule(seconds=st.sampled_from([1.0, 9.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.is_undisturbed = False
        self.proxy.clock.advance(seconds)

    @rule()
    def change_rules(self) -> None:
        """Who was asked before goes on; connections that nobody needs are closed."""
        self.proxy.upstream.retire()
        self.proxy.change_rules()
        self.upstreams.append(self.proxy.upstream)

    @precondition(lambda self: "drain" in self.troubles and not self.proxy.site.draining)
    @rule()
    def drain(self) -> None:
        self.is_undisturbed = False
        self.proxy.site.drain()

    def flow(self) -> None:
        """Everything that is on its way gets a step further."""
        for client in self.senders:
            octets, client.unsent = client.unsent[:SEGMENT], client.unsent[SEGMENT:]
            client.transport.deliver(octets)
        for client in self.clients:
            client.got += client.transport.take()
        for origin in self.askers:
            self.read(origin, None)
        for origin in self.speakers:
            self.finish(origin)
            if origin.answer is not None:
                self.send(origin, SEGMENT)
        self.proxy.clock.advance(0)

    @rule(rounds=st.sampled_from([1, 4]))
    def go_on(self, rounds: int) -> None:
        """Nobody is slow for a while."""
        for _ in range(rounds):
            self.flow()

    @precondition(lambda self: self.is_undisturbed)
    @rule()
    def settle(self) -> None:
        """As long as nothing goes wrong, everybody is answered."""
        for _ in range(16 * len(self.requests)):
            while self.proxy.endpoint.waiting:
                self.accept()
            for origin in self.asked:
                if origin.is_whole:
                    self.prepare(origin, "length", 300)
            self.flow()
        for client in self.clients:
            answers = self.answers(client)
            assert len(answers) == len(client.requests), f"{len(answers)} answers to {len(client.requests)} requests"
            assert all(answer.is_whole for answer in answers)

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
                if is_ours and request.method == b"HEAD" and octets[message.size : message.size + 1] not in (b"", b"H"):
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
        ), f"{message.body[:20]!r} of {len(message.body)} octets was not the answer to {request.octets[:40]!r}"

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
