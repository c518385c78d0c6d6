"""Request smuggling: the whole corpus against one real proxyd, whatever its octets are cut into."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.conformance.recorder import (
    PATIENCE_S,
    Field,
    Malformed,
    Message,
    Recorder,
    answer_text,
    read_head,
    read_message,
)
from tests.conformance.smuggling import BAD, CASES, OURS, RULES, SMUGGLED, Case, Outcome, Seen, gets, seen
from tests.support.proxy import Proxy


class Dialogue:
    """
    One client's connection, as a strict client sees it.

    @ivar interim: the status codes of 1xx answers.
    """

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.data = b""
        self.interim: list[int] = []

    def send(self, octets: bytes) -> bool:
        """
        @return: whether proxyd still takes octets; who was refused need not be.
        """
        try:
            self.socket.sendall(octets)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def receive(self, *, cut: bool = False) -> bool:
        """
        Wait for more octets.

        @param cut: what we sent after the answer may have been thrown away, with a reset.

        @return: whether there are.
        """
        try:
            more = self.socket.recv(65536)
        except ConnectionResetError:
            if not cut:
                raise
            more = b""
        self.data += more
        return bool(more)

    def answer(self, method: str, *, cut: bool = False) -> Message:
        """The next final answer."""
        while True:
            head = read_head(self.data)
            if head is not None and head[0].status < 200:
                self.interim.append(head[0].status)
                self.data = self.data[head[1] :]
                if head[0].status == 101:
                    return head[0]
                continue
            bodiless = method == "HEAD" or (head is not None and head[0].status == 204)
            found = read_message(self.data, bodiless=bodiless)
            if found is not None:
                self.data = self.data[found[1] :]
                return found[0]
            assert self.receive(cut=cut), f"the connection ended after {self.data!r}"


class Arena:
    """
    A proxy, an origin server that records, and an innocent client that shares its connections with the guilty.

    @ivar count: how many cases there were.
    """

    def __init__(self, folder: Path) -> None:
        self.recorder = Recorder()
        target = f"http://127.0.0.1:{self.recorder.port}"
        rules = [{**rule, "target": target + str(rule.get("target", ""))} for rule in RULES]
        self.proxy = Proxy(folder, {"rules": rules, "log": {"access": None}, "limits": {"connections": 100}})
        self.innocent = Dialogue(self.proxy.port)
        self.numbers = itertools.count()

    def close(self) -> None:
        self.innocent.socket.close()
        self.recorder.close()
        text = self.proxy.stop()
        assert "Traceback" not in text, text
        assert self.recorder.problems == []

    def catch_up(self) -> None:
        """Wait until proxyd has read all that was sent so far: who came later is served."""
        other = Dialogue(self.proxy.port)
        other.send(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
        other.answer("OPTIONS")
        other.socket.close()

    def run(self, case: Case, pieces: Sequence[bytes]) -> None:
        """
        One case.

        @param pieces: its octets; proxyd has read each before the next one is sent.
        """
        recorder, outcome = self.recorder, case.outcome
        before = len(recorder.requests)
        expected = list(outcome.requests)
        try:
            self._guilty(outcome, pieces, before, expected)
            path = f"/innocent/{next(self.numbers)}"
            self.innocent.send(f"GET {path} HTTP/1.1\r\nHost: innocent\r\n\r\n".encode())
            answer = self.innocent.answer("GET")
            assert answer.status == 200
            assert self.innocent.data == b"", "the innocent client got more than its answer"
        except (AssertionError, Malformed, OSError):
            self.innocent.socket.close()
            self.innocent = Dialogue(self.proxy.port)
            raise
        expected.append(seen(f"GET {path}", host="innocent"))
        came = recorder.requests[before:]
        assert [one.line for one in came] == [one.line for one in expected]
        for one, wanted in zip(came, expected, strict=True):
            self.compare(one, wanted)
        assert answer.body == answer_text(len(recorder.requests) - 1, f"GET {path} HTTP/1.1")
        if len(came) > 1 and not came[-2].all("Upgrade") and not outcome.partial:
            assert came[-1].connection == came[-2].connection, "the innocent request did not follow on that connection"
        problems, recorder.problems = recorder.problems, []
        assert problems == []

    def _guilty(self, outcome: Outcome, pieces: Sequence[bytes], before: int, expected: list[Seen]) -> None:
        dialogue = Dialogue(self.proxy.port)
        cut = len(pieces) > 1
        with dialogue.socket:
            for number, piece in enumerate(pieces):
                if number:
                    self.catch_up()
                if not dialogue.send(piece):
                    break
            methods = [request.line.split(" ")[0] for request in outcome.requests]
            served = 0
            for statuses in outcome.answers:
                answer = dialogue.answer(methods[served] if served < len(methods) else "GET", cut=cut)
                assert answer.status in statuses
                if answer.status == 200:
                    line = self.recorder.requests[before + served].line
                    if methods[served] != "HEAD":
                        assert answer.body == answer_text(before + served, line), "an answer to something else"
                    served += 1
                elif answer.status == 403:
                    assert answer.body == b"early"
                elif answer.status not in (101, 204, 426):
                    assert answer.all("Proxy-Status")[0].startswith("proxyd; error=")
            if outcome.waits:
                dialogue.socket.shutdown(socket.SHUT_WR)
            if outcome.closed or outcome.waits:
                while dialogue.receive(cut=cut):
                    pass
                assert outcome.answers == ((101,),) or dialogue.data == b"", f"{dialogue.data!r} behind the answers"
            else:
                # Client and proxyd agree about where the next request begins.
                dialogue.send(b"PUT /barrier HTTP/1.1\r\nHost: barrier\r\nContent-Length: 1\r\n\r\n-")
                expected.append(seen("PUT /barrier", body="-", host="barrier"))
                answer = dialogue.answer("PUT")
                number = before + len(expected) - 1
                assert answer.body == answer_text(number, "PUT /barrier HTTP/1.1"), "the next request is another's"
                assert dialogue.data == b""

    def compare(self, request: Message, wanted: Seen) -> None:
        """The origin server got this very request."""
        assert (request.line, request.body, request.trailers) == (wanted.line, wanted.body, wanted.trailers)
        authority = f"127.0.0.1:{self.recorder.port}"
        ours: list[Field] = [
            ("Host", authority if wanted.host == "TARGET" else wanted.host),
            ("X-Forwarded-For", "127.0.0.1"),
            ("X-Real-IP", "127.0.0.1"),
            ("X-Forwarded-Host", "a" if wanted.host == "TARGET" else wanted.host),
            ("X-Forwarded-Proto", "http"),
            ("X-Forwarded-Port", str(self.proxy.port)),
            ("Via", f"{wanted.via} proxyd"),
            *wanted.extra,
        ]
        if wanted.framing is not None:
            ours.append(wanted.framing)
        if wanted.upgrade:
            ours += [("Upgrade", "websocket"), ("Connection", "Upgrade")]
            ours.append(("Sec-WebSocket-Key", request.all("Sec-WebSocket-Key")[0]))
        left = list(request.fields)
        for field in ours:
            assert field in left, f"{field} is missing"
            left.remove(field)
        assert left == [(name, f"http://{authority}" if value == "TARGET" else value) for name, value in wanted.fields]


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """The one proxy of this module."""
    one = Arena(tmp_path_factory.mktemp("smuggling"))
    yield one
    one.close()


def test_corpus() -> None:
    """It is large, every case has a name of its own and says where it comes from."""
    assert len(CASES) >= 300
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(case.source for case in CASES)
    assert {name for case in CASES for request in case.outcome.requests for name, _ in request.fields}.isdisjoint(OURS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(arena: Arena, case: Case) -> None:
    """The origin server sees exactly what the corpus says, and every client gets its own answer."""
    arena.run(case, [case.octets])


def _may_be_two(case: Case) -> bool:
    """
    Whether the octets behind the head are a request of their own if they come when it has been answered: those
    behind an upgrade that is refused.
    """
    return case.outcome.closed and b"\r\nupgrade: websocket" in case.octets.lower()


def _cuts(case: Case) -> list[list[bytes]]:
    """A few ways to cut octets in pieces: within the first line, around the head's end, before the last octet."""
    octets = case.octets
    head = octets.find(b"\r\n\r\n")
    places = {1, octets.find(b"\n"), head + 1, head + 2, head + 4, head + 5, len(octets) // 2, len(octets) - 1}
    if _may_be_two(case):
        places.remove(head + 4)
    inner = sorted(place for place in places if 0 < place < len(octets))
    ways = [[octets[:place], octets[place:]] for place in inner]
    return [*ways, [octets[begin:end] for begin, end in itertools.pairwise([0, *inner, len(octets)])]]


def _cuttable(cases: list[Case]) -> list[object]:
    """The cases as parameters."""
    return [pytest.param(case, id=case.name) for case in cases]


@pytest.mark.soak
@pytest.mark.parametrize("case", _cuttable(CASES))
def test_case_in_segments(arena: Arena, case: Case) -> None:
    """However it is cut: each piece has been read before the next one comes."""
    for pieces in _cuts(case):
        arena.run(case, pieces)


@pytest.mark.soak
@pytest.mark.parametrize("case", _cuttable([one for one in CASES if len(one.octets) < 2048 and not _may_be_two(one)]))
def test_case_octet_by_octet(arena: Arena, case: Case) -> None:
    """Even when every octet comes alone."""
    arena.run(case, [bytes((octet,)) for octet in case.octets])


SEGMENTED = CASES[:: len(CASES) // 60]


@pytest.mark.parametrize("case", _cuttable(SEGMENTED))
def test_sample_in_segments(arena: Arena, case: Case) -> None:
    """A sample of the corpus, cut in the same way."""
    for pieces in _cuts(case)[-3:]:
        arena.run(case, pieces)


# The oracle itself


def _direct(arena: Arena, octets: bytes) -> None:
    """Octets reach the origin server past proxyd, as if that had smuggled them."""
    with socket.create_connection(("127.0.0.1", arena.recorder.port), PATIENCE_S) as connection:
        connection.sendall(octets)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


@pytest.mark.parametrize(
    "octets",
    [
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled",
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" + SMUGGLED.encode(),
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED.encode(),
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n05\r\nhello\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: a\r\nX: 1\rY: 2\r\n\r\n",
        b"GET  /x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /x HTTP/1.0\r\nHost: a\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: a\r\n",
        b"garbage\r\n\r\n",
    ],
)
def test_origin_finds_violations(octets: bytes) -> None:
    """The recording origin server finds a violation when it is given one."""
    recorder = Recorder()
    arena = Arena.__new__(Arena)
    arena.recorder = recorder
    try:
        _direct(arena, octets)
        assert recorder.problems
    finally:
        recorder.close()


@pytest.mark.parametrize(
    ("name", "octets", "outcome"),
    [
        ("a request more", SMUGGLED * 2, gets(seen("GET /smuggled"))),
        ("a request less", SMUGGLED, gets(seen("GET /smuggled"), seen("GET /smuggled"))),
        ("another request", SMUGGLED, gets(seen("GET /x"))),
        ("another method", SMUGGLED, gets(seen("POST /smuggled"))),
        ("another host", SMUGGLED, gets(seen("GET /smuggled", host="b"))),
        ("a field less", "GET /x HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\r\n", gets(seen("GET /x"))),
        ("a field more", SMUGGLED, gets(seen("GET /smuggled", ("X-A", "1")))),
        ("another body", "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na", gets(seen("PUT /x", body="b"))),
        ("a refusal", SMUGGLED, BAD),
        ("a connection that goes on", "BREW /x HTTP/1.1\r\nHost: a\r\n\r\n", Outcome(answers=((501,),))),
        ("a connection that ends", "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", gets(seen("GET /x"))),
    ],
)
def test_oracle_finds_violations(arena: Arena, name: str, octets: str, outcome: Outcome) -> None:
    """A corpus that says something else than what happens fails."""
    with pytest.raises((AssertionError, Malformed, OSError)):
        arena.run(Case(name, octets.encode(), outcome, "the oracle"), [octets.encode()])
    arena.recorder.problems.clear()


def test_oracle_finds_a_stolen_answer(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that reaches the origin server past the corpus is found, although all answers are right."""
    case = Case("smuggled", SMUGGLED.encode(), gets(seen("GET /smuggled")), "the oracle")
    catch = Arena._guilty

    def smuggle(self: Arena, *arguments: object) -> None:
        catch(self, *arguments)  # type: ignore[arg-type]
        _direct(self, SMUGGLED.encode())

    monkeypatch.setattr(Arena, "_guilty", smuggle)
    with pytest.raises(AssertionError, match="GET /smuggled"):
        arena.run(case, [case.octets])
