"""
What a client may send to make two servers disagree, and what may come of it.

A L{Case} is the octets of one client's connection.  Its L{Outcome} says exactly which requests an origin server
may see because of them, and how proxyd answers: nothing else may happen, however the octets are cut.

Sources are sections of RFC 9110, 9112 or 6455, CVEs, and what has been published:

 - Linhart, Klein, Heled, Orrin: HTTP Request Smuggling (2005)
 - Kettle: HTTP Desync Attacks (2019), HTTP/2: The Sequel is Always Worse (2021), Browser-Powered Desync Attacks
   (2022; CL.0), HTTP/1.1 Must Die (2025; 0.CL, Expect)
 - Klein: HTTP Request Smuggling in 2020
 - Grenfeldt, Olofsson, Engström, Lagerström: Attacking Websites Using HTTP Request Smuggling (2021)
 - Jabiyev, Sprecher, Onarlioglu, Kirda: T-Reqs (2021)
 - Emil Lerner: http2smugl (2021)
 - Bishop Fox: h2c Smuggling (2020)
 - Mikhail Egorov: WebSocket request smuggling (2019)
 - Jeppe Bonde Weikop: Funky Chunks (2025; TERM.EXT, EXT.TERM, TERM.SPILL, SPILL.TERM)
 - Orange Tsai: Breaking Parser Logic (2018; C{..;})
 - Gil, Davison: Hop-by-hop header abuse (2019)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tests.conformance.recorder import Field

OURS = ("host", "x-forwarded-for", "x-real-ip", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "via")
"""The fields that every request to the origin server has of proxyd itself."""


class Seen(NamedTuple):
    """
    A request as the origin server must see it.

    @ivar fields: those of the client that go on, in their order.
    @ivar host: what C{Host} is.
    @ivar via: the version in C{Via}.
    @ivar framing: C{Content-Length} or C{Transfer-Encoding} if there must be one.
    @ivar extra: further fields of proxyd's own.
    @ivar upgrade: asks for a WebSocket.
    """

    line: str
    fields: tuple[Field, ...] = ()
    body: bytes = b""
    host: str = "a"
    via: str = "1.1"
    framing: Field | None = None
    trailers: tuple[Field, ...] = ()
    extra: tuple[Field, ...] = ()
    upgrade: bool = False


def seen(
    line: str,
    *fields: Field,
    body: str = "",
    chunked: bool = False,
    sized: bool = False,
    host: str = "a",
    via: str = "1.1",
    trailers: Iterable[Field] = (),
    extra: Iterable[Field] = (),
    upgrade: bool = False,
) -> Seen:
    """
    A request of HTTP/1.1 to the origin server.

    @param sized: there is a C{Content-Length} even for no body.
    """
    octets = body.encode("latin-1")
    framing: Field | None = None
    if chunked:
        framing = ("Transfer-Encoding", "chunked")
    elif octets or sized:
        framing = ("Content-Length", str(len(octets)))
    return Seen(f"{line} HTTP/1.1", fields, octets, host, via, framing, tuple(trailers), tuple(extra), upgrade)


class Outcome(NamedTuple):
    """
    What may come of a case.

    @ivar requests: all that become whole at the origin server.
    @ivar answers: the final answers, each one of these status codes; 200 are the origin's, one for each request.
    @ivar closed: proxyd ends the connection after them; else the next request on it is served.
    @ivar partial: the origin server may have seen a part of a request, whose connection was cut.
    @ivar waits: proxyd waits for more, and gives up when the client does.
    """

    requests: tuple[Seen, ...] = ()
    answers: tuple[tuple[int, ...], ...] = ()
    closed: bool = False
    partial: bool = False
    waits: bool = False


class Case(NamedTuple):
    """
    One client's connection.

    @ivar source: whose demand or whose attack this is.
    """

    name: str
    octets: bytes
    outcome: Outcome
    source: str


def refused(*statuses: int) -> Outcome:
    """No origin server hears of it; the connection ends."""
    return Outcome(answers=(statuses,), closed=True)


def broken() -> Outcome:
    """400 in the middle of a body: the origin server may have seen some of it, but never its end."""
    return Outcome(answers=((400,),), closed=True, partial=True)


def gets(*requests: Seen, then: int = 0, closed: bool = False) -> Outcome:
    """Exactly these, and behind them perhaps a refusal."""
    answers = ((200,),) * len(requests)
    return Outcome(requests, (*answers, (then,)) if then else answers, closed or bool(then))


def answered(status: int, *, closed: bool) -> Outcome:
    """Proxyd answers itself."""
    return Outcome(answers=((status,),), closed=closed)


WAITS = Outcome(partial=True, waits=True)
"""It is no whole request yet."""

BAD = refused(400)
SMUGGLED = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
SECOND = seen("GET /smuggled")
CHUNKED = "Transfer-Encoding: chunked"
CHUNKS = "5\r\nhello\r\n0\r\n\r\n"
LENGTH = "Content-Length: 5"


def get(*lines: str, target: str = "/x", version: str = "HTTP/1.1") -> str:
    """A request without a body."""
    return "\r\n".join([f"GET {target} {version}", "Host: a", *lines, "", ""])


def post(*lines: str, target: str = "/part", version: str = "HTTP/1.1") -> str:
    """The head of a request with a body."""
    return "\r\n".join([f"POST {target} {version}", "Host: a", *lines, "", ""])


def posted(*fields: Field, body: str = "hello", chunked: bool = False, trailers: Iterable[Field] = ()) -> Seen:
    """What the origin server sees of L{post}."""
    return seen("POST /part", *fields, body=body, chunked=chunked, sized=not chunked, trailers=trailers)


def _case(name: str, text: str, outcome: Outcome, source: str) -> Case:
    return Case(name, text.encode("latin-1"), outcome, source)


# Content-Length

BAD_LENGTHS = [
    "+5",
    "-5",
    "-0",
    "+0",
    "0x5",
    "0x0",
    "5,5",
    "5, 5",
    "5,6",
    "5,",
    ",5",
    "005",
    "05",
    "00",
    "5;",
    "5 ;",
    "5.0",
    "5.",
    "5e0",
    "5 5",
    "5\t5",
    "",
    " ",
    '"5"',
    "'5'",
    "\xd9\xa5",
    "9223372036854775808",
    "18446744073709551616",
    "18446744073709551621",
    "4294967296000000000005",
    "99999999999999999999",
    "1_0",
    "5\x0b",
    "\x0b5",
    "5\x0c",
    "\xa05",
    "5\xa0",
    "5\x00",
    "\x005",
    "5L",
    "0b101",
    "0o5",
    "5/5",
    "5%00",
    "NaN",
    "Infinity",
    "5\x85",
    "5\x1f",
    "5 hello",
    "(5)",
    "5\r",
    "\r5",
    "00000000000000000005",
]

LENGTH_NAMES = [
    "Content-Length ",
    "Content-Length\t",
    " Content-Length",
    "\tContent-Length",
    "Content-Length\x00",
    "Content-Length\x0b",
    "Content-Length\xa0",
    "Content Length",
    "Content-Lengt\xe9",
    "\x0bContent-Length",
    "Content-Length\r",
    "(Content-Length",
    "Content-Length:",
    "\x7fContent-Length",
    "Content\rLength",
]


def _lengths() -> Iterator[Case]:
    for value in BAD_LENGTHS:
        text = post(f"Content-Length: {value}", target="/x") + "hello" + SMUGGLED
        yield _case(f"length {value!r}", text, BAD, "RFC 9112 6.3, RFC 9110 8.6; Klein 2020, T-Reqs")
    for name in LENGTH_NAMES:
        text = post(f"{name}: 5", target="/x") + "hello" + SMUGGLED
        yield _case(f"length named {name!r}", text, BAD, "RFC 9112 5.1; CVE-2019-16276, CVE-2019-20445")
    for first, second in [("5", "5"), ("5", "6"), ("0", "5"), ("5", "0"), ("5", ""), ("", "5"), ("5", "+5")]:
        text = post(f"Content-Length: {first}", f"content-length: {second}", target="/x") + "hello" + SMUGGLED
        yield _case(f"lengths {first!r} and {second!r}", text, BAD, "RFC 9112 6.3 (5); Linhart 2005, CVE-2005-2088")
    for value in (" 5", "5 ", "\t5\t", "5 \t "):
        text = post(f"Content-Length:{value}") + "hello" + SMUGGLED
        yield _case(f"length with white space {value!r}", text, gets(posted(), SECOND), "RFC 9110 5.5")
    for name in ("content-length", "CONTENT-LENGTH", "cOnTeNt-LeNgTh"):
        yield _case(f"{name}", post(f"{name}: 5") + "hello" + SMUGGLED, gets(posted(), SECOND), "RFC 9110 5.1")
    for name in ("Content_Length", "content_length", "CONTENT_length"):
        yield _case(
            f"look-alike {name}",
            post(f"{name}: {len(SMUGGLED)}", target="/x") + SMUGGLED,
            gets(seen("POST /x"), SECOND),
            "RFC 3875 4.1.18 (look-alikes)",
        )
    yield _case("length of 2^63-1", post("Content-Length: 9223372036854775807") + SMUGGLED, WAITS, "RFC 9110 8.6")
    yield _case("length too short", post("Content-Length: 5") + "hel", WAITS, "RFC 9112 8")
    yield _case(
        "length 0 with octets behind",
        post("Content-Length: 0") + "hello" + SMUGGLED,
        gets(posted(body=""), then=501),
        "CL.0; Kettle 2022",
    )
    for method in ("GET", "DELETE", "PUT", "PATCH", "OPTIONS", "HEAD", "QUERY", "LOCK", "SEARCH"):
        text = f"{method} /part HTTP/1.1\r\nHost: a\r\nContent-Length: {len(SMUGGLED)}\r\n\r\n{SMUGGLED}"
        expected = seen(f"{method} /part", body=SMUGGLED, sized=True)
        yield _case(f"{method} with a request in its body", text, gets(expected), "RFC 9110 9.3.1; CL.0, Kettle 2022")
    for method in ("GET", "POST", "HEAD", "DELETE"):
        text = f"{method} /part HTTP/1.1\r\nHost: a\r\n\r\n{SMUGGLED}"
        yield _case(f"{method} without a length", text, gets(seen(f"{method} /part"), SECOND), "RFC 9112 6.3 (7)")
    body = f"Content-Length: {len(SMUGGLED)}"
    for name, line in [("OPTIONS *", "OPTIONS *"), ("OPTIONS of a host", "OPTIONS http://a")]:
        yield _case(
            f"{name} with a body",
            f"{line} HTTP/1.1\r\nHost: a\r\n{body}\r\n\r\n{SMUGGLED}",
            answered(204, closed=True),
            "CL.0, Kettle 2022; RFC 9112 9.6",
        )
        yield _case(
            f"{name} with chunks",
            f"{line} HTTP/1.1\r\nHost: a\r\n{CHUNKED}\r\n\r\n{CHUNKS}",
            answered(204, closed=True),
            "CL.0, Kettle 2022; RFC 9112 9.6",
        )
    yield _case(
        "no rule, with a body", post(body, target="/none") + SMUGGLED, answered(404, closed=True), "CL.0, Kettle 2022"
    )
    yield _case(
        "last hop, with a body",
        f"OPTIONS /x HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n{body}\r\n\r\n{SMUGGLED}",
        answered(204, closed=True),
        "CL.0, Kettle 2022; RFC 9110 7.6.2",
    )
    yield _case(
        "refused upgrade, with a body",
        get(*UPGRADE, body, target="/nows/x") + SMUGGLED,
        gets(
            seen(
                "GET /nows/x",
                ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
                ("Sec-WebSocket-Version", "13"),
                body=SMUGGLED,
            )
        ),
        "CL.0; RFC 6455 4.2.1",
    )
    yield _case(
        "in HTTP/1.0",
        post(LENGTH, version="HTTP/1.0") + "hello" + SMUGGLED,
        gets(posted()._replace(via="1.0"), closed=True),
        "RFC 9112 6.3",
    )


# Transfer-Encoding

BAD_CODINGS = [
    "xchunked",
    "chunkedx",
    "chunked, identity",
    "identity, chunked",
    "gzip, chunked",
    "chunked, gzip",
    "gzip,chunked",
    "chunked, chunked",
    "chunked;q=1",
    "chunked; a=b",
    "chunked;",
    '"chunked"',
    "'chunked'",
    "chunked\x0b",
    "\x0bchunked",
    "\x0cchunked",
    "chunked\x0c",
    "chunked\x00",
    "\x00chunked",
    "chunked\xa0",
    "\xa0chunked",
    "chun ked",
    "chunked,",
    ",chunked",
    ", chunked",
    "chunked ,",
    "chunked,,",
    "identity",
    "gzip",
    "deflate",
    "compress",
    "br",
    "x-gzip",
    "trailers",
    "chunk",
    "chunked chunked",
    "cow",
    "",
    "[chunked]",
    "{chunked}",
    "chunked\r",
    "\rchunked",
    " \x0b chunked",
    "chunked\xff",
    "chun\xe2\x84\xaaed",
    "chunked\x1f",
    "\x01chunked",
    "chunked\x7f",
    "chunked/1",
    "chunked=1",
    "chunked:",
    ":chunked",
    "=?utf-8?q?chunked?=",
    "%63hunked",
    "\\chunked",
    "chunked\\",
    "chunked\t, identity",
    "chunked 0",
    "identity\tchunked",
    "x chunked",
    "chunked x",
    "\x85chunked",
    "chunked\xc2\xa0",
]

CODING_NAMES = [
    "Transfer-Encoding ",
    "Transfer-Encoding\t",
    " Transfer-Encoding",
    "\tTransfer-Encoding",
    "Transfer-Encoding\x00",
    "Transfer-Encoding\x0b",
    "\x0bTransfer-Encoding",
    "Transfer-Encoding\xa0",
    "Transfer Encoding",
    "Transfer-Encoding\r",
    "\rTransfer-Encoding",
    "Transfer\rEncoding",
    "Transfer-Encoding:",
    "Transfer-Encodin\xe7",
    "\x00Transfer-Encoding",
    "\xffTransfer-Encoding",
    '"Transfer-Encoding"',
    "Transfer-Encoding\x7f",
    "X\nTransfer-Encoding",
    "X: 1\nTransfer-Encoding",
    "X: 1\rTransfer-Encoding",
    "X: 1\r\n Transfer-Encoding",
    "X: 1\r\n\tTransfer-Encoding",
    "X: 1\n\rTransfer-Encoding",
    "X: 1\r\r\nTransfer-Encoding",
    "Transfer-Encoding\r\n",
    "Transfer-Encoding\n",
    "X: 1\x00Transfer-Encoding",
    "X: 1\x00\r\nTransfer-Encoding",
    "\nTransfer-Encoding",
]


def _codings() -> Iterator[Case]:
    te = "TE.TE, Kettle 2019; RFC 9112 6.1"
    for value in BAD_CODINGS:
        text = post(f"Transfer-Encoding: {value}", target="/x") + CHUNKS + SMUGGLED
        yield _case(f"coding {value!r}", text, BAD, te)
        # With a length beside it: whoever does not know this coding would go by the length.
        text = post(LENGTH, f"Transfer-Encoding: {value}", target="/x") + "0\r\n\r\n" + SMUGGLED
        yield _case(f"length and coding {value!r}", text, BAD, "CL.TE, Kettle 2019; RFC 9112 6.3 (3)")
    for name in CODING_NAMES:
        text = post(f"{name}: chunked", target="/x") + CHUNKS + SMUGGLED
        yield _case(f"coding named {name!r}", text, BAD, "TE.TE, Kettle 2019; RFC 9112 5.1, 5.2, 2.2")
        text = post(LENGTH, f"{name}: chunked", target="/x") + "0\r\n\r\n" + SMUGGLED
        yield _case(f"length and coding named {name!r}", text, BAD, "CL.TE with TE.TE, Kettle 2019; CVE-2019-18277")
    for name, lines in [
        ("length before", (LENGTH, CHUNKED)),
        ("length behind", (CHUNKED, LENGTH)),
        ("a field between", (LENGTH, "X: 1", CHUNKED)),
        ("length 0", ("Content-Length: 0", CHUNKED)),
        ("twice", (CHUNKED, CHUNKED)),
        ("identity behind", (CHUNKED, "Transfer-Encoding: identity")),
        ("identity before", ("Transfer-Encoding: identity", CHUNKED)),
        ("cow behind", (CHUNKED, "Transfer-encoding: cow")),
        ("empty behind", (CHUNKED, "Transfer-Encoding:")),
        ("empty before", ("Transfer-Encoding:", CHUNKED)),
        ("gzip before", ("Transfer-Encoding: gzip", CHUNKED)),
        ("folded", ("Transfer-Encoding:", " chunked")),
        ("folded behind", (CHUNKED, " , identity")),
        ("folded with tab", ("Transfer-Encoding:", "\tchunked")),
        ("length between", (CHUNKED, LENGTH, CHUNKED)),
        ("bad length", ("Content-Length: x", CHUNKED)),
    ]:
        text = post(*lines, target="/x") + CHUNKS + SMUGGLED
        yield _case(f"coding: {name}", text, BAD, "RFC 9112 6.1, 6.3; Linhart 2005, Kettle 2019, CVE-2020-8287")
    for value in ("chunked", "keep-alive"):
        lines = (CHUNKED, *(() if value == "chunked" else ("Connection: keep-alive",)))
        text = post(*lines, target="/x", version="HTTP/1.0") + CHUNKS + SMUGGLED
        yield _case(f"chunks in HTTP/1.0, {value}", text, BAD, "RFC 9112 6.1 (faulty framing)")
    text = post(CHUNKED, LENGTH, target="/x", version="HTTP/1.0") + CHUNKS + SMUGGLED
    yield _case("length and chunks in HTTP/1.0", text, BAD, "RFC 9112 6.1; T-Reqs")
    body = gets(posted(chunked=True), SECOND)
    for line in (
        "Transfer-Encoding:chunked",
        "tRANSFER-ENCODING: chunked",
        "Transfer-Encoding:\tchunked",
        "Transfer-Encoding: CHUNKED",
        "Transfer-Encoding: cHuNkEd",
    ):
        yield _case(f"good {line!r}", post(line) + CHUNKS + SMUGGLED, body, "RFC 9110 5.5, RFC 9112 7 (case)")
    # RFC 9110 section 5.5 would have it read; llhttp does not, and nobody is misled by that.
    yield _case(
        "coding with white space behind",
        post("Transfer-Encoding: chunked \t ", target="/x") + CHUNKS + SMUGGLED,
        BAD,
        "RFC 9110 5.5",
    )
    for name in ("Transfer_Encoding", "transfer_encoding", "TRANSFER_Encoding"):
        yield _case(
            f"look-alike {name}",
            post(LENGTH, f"{name}: chunked") + "0\r\n\r\n" + SMUGGLED,
            gets(posted(body="0\r\n\r\n"), SECOND),
            "TE.TE, Kettle 2019; RFC 3875 4.1.18",
        )
    yield _case(
        "Content-Encoding: chunked",
        post(LENGTH, "Content-Encoding: chunked") + "0\r\n\r\n" + SMUGGLED,
        gets(posted(("Content-Encoding", "chunked"), body="0\r\n\r\n"), SECOND),
        "RFC 9110 8.4",
    )
    for method in ("GET", "DELETE", "HEAD", "OPTIONS"):
        text = f"{method} /part HTTP/1.1\r\nHost: a\r\n{CHUNKED}\r\n\r\n{len(SMUGGLED):x}\r\n{SMUGGLED}\r\n0\r\n\r\n"
        expected = seen(f"{method} /part", body=SMUGGLED, chunked=True)
        yield _case(f"{method} in chunks", text + SMUGGLED, gets(expected, SECOND), "RFC 9112 6.3; 0.TE")


# Chunks

BROKEN_CHUNKS = [
    ("white space behind a size", "5 \r\nhello\r\n0\r\n\r\n"),
    ("tab behind a size", "5\t\r\nhello\r\n0\r\n\r\n"),
    ("white space before a size", " 5\r\nhello\r\n0\r\n\r\n"),
    ("plus", "+5\r\nhello\r\n0\r\n\r\n"),
    ("minus", "-5\r\nhello\r\n0\r\n\r\n"),
    ("0x", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("0X", "0X5\r\nhello\r\n0\r\n\r\n"),
    ("suffix h", "5h\r\nhello\r\n0\r\n\r\n"),
    ("comma", "5,5\r\nhello\r\n0\r\n\r\n"),
    ("underscore", "0_5\r\nhello\r\n0\r\n\r\n"),
    ("dot", "5.0\r\nhello\r\n0\r\n\r\n"),
    ("quoted", '"5"\r\nhello\r\n0\r\n\r\n'),
    ("a letter over f", "g\r\nhello\r\n0\r\n\r\n"),
    ("no size", "\r\nhello\r\n0\r\n\r\n"),
    ("line feed behind a size", "5\nhello\r\n0\r\n\r\n"),
    ("line feeds only", "5\nhello\n0\n\n"),
    ("carriage return behind a size", "5\rhello\r\n0\r\n\r\n"),
    ("two carriage returns", "5\r\r\nhello\r\n0\r\n\r\n"),
    ("LF CR", "5\n\rhello\r\n0\r\n\r\n"),
    ("vertical tab", "5\x0b\r\nhello\r\n0\r\n\r\n"),
    ("form feed", "5\x0c\r\nhello\r\n0\r\n\r\n"),
    ("no-break space", "5\xa0\r\nhello\r\n0\r\n\r\n"),
    ("NUL", "5\x00\r\nhello\r\n0\r\n\r\n"),
    ("17 digits", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("zeros up to 17 digits", "00000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("33 digits", "1" + "0" * 31 + "5\r\nhello\r\n0\r\n\r\n"),
    ("a thousand zeros", "0" * 1000 + "5\r\nhello\r\n0\r\n\r\n"),
    ("only an extension", ";a=b\r\nhello\r\n0\r\n\r\n"),
    ("two sizes", "5 5\r\nhello\r\n0\r\n\r\n"),
    ("white space and text", "5 hello\r\nhello\r\n0\r\n\r\n"),
    ("data longer", "5\r\nhelloX\r\n0\r\n\r\n"),
    ("data shorter", "5\r\nhell\r\n0\r\n\r\n"),
    ("no line break behind data", "5\r\nhello0\r\n\r\n"),
    ("line feed behind data", "5\r\nhello\n0\r\n\r\n"),
    ("carriage return behind data", "5\r\nhello\r0\r\n\r\n"),
    ("CR CR LF behind data", "5\r\nhello\r\r\n0\r\n\r\n"),
    ("LF CR behind data", "5\r\nhello\n\r0\r\n\r\n"),
    ("two octets in place of CRLF", "5\r\nhelloXX0\r\n\r\n"),
    ("spilled size", "5\r\nhello\r0\r\n\r\n\r\n"),
    ("white space behind data", "5\r\nhello \r\n0\r\n\r\n"),
    ("last chunk with space", "0 \r\n\r\n"),
    ("last chunk with sign", "+0\r\n\r\n"),
    ("last chunk negative", "-0\r\n\r\n"),
    ("last chunk 0x0", "0x0\r\n\r\n"),
    ("last chunk by line feeds", "0\n\n"),
    ("last chunk CR LF LF", "0\r\n\nGET / HTTP/1.1\r\n\r\n"),
    ("last chunk LF CR LF", "0\n\r\n"),
    ("empty line for last chunk", "5\r\nhello\r\n\r\n\r\n"),
    ("17 zeros last", "0" * 17 + "\r\n\r\n"),
    ("extension with LF", "5;\nhello\r\n0\r\n\r\n"),
    ("TERM.EXT", "5;\nxx\r\nhello\r\n0\r\n\r\n"),
    ("EXT.TERM", "5;a\nhello\r\n0\r\n\r\n"),
    ("extension with CR", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
    ("extension ends by CR CR LF", "5;a\r\r\nhello\r\n0\r\n\r\n"),
    ("extension with NUL", "5;a\x00b\r\nhello\r\n0\r\n\r\n"),
    ("extension with vertical tab", "5;a\x0bb\r\nhello\r\n0\r\n\r\n"),
    ("extension with DEL", "5;a\x7f\r\nhello\r\n0\r\n\r\n"),
    ("quoted LF in extension", '5;a="\n"\r\nhello\r\n0\r\n\r\n'),
    ("last chunk's extension with LF", "0;\n\r\n\r\n"),
    ("second chunk's extension with LF", "1\r\na\r\n5;\nhello\r\n0\r\n\r\n"),
    ("extension of 2000 octets", "5;" + "a" * 2000 + "\r\nhello\r\n0\r\n\r\n"),
]

BROKEN_TRAILERS = [
    "no colon",
    "GET /smuggled HTTP/1.1",
    "X : 1",
    " X: 1",
    "\tX: 1",
    ": 1",
    "X: 1\rY: 2",
    "X: 1\nY: 2",
    "X: \x00",
    "X\x00: 1",
    "X: 1\r\n 2",
    "X: 1\r\n\t2",
    "X\xe9: 1",
    "X Y: 1",
    "X: \x01",
    "X: \x7f",
    "(X): 1",
    "X\r: 1",
    "\nGET /smuggled HTTP/1.1",
    "X: 1\n",
    "X: 1\r",
]

DROPPED_TRAILERS = [
    "Content-Length: 5",
    "Transfer-Encoding: chunked",
    "Host: evil",
    "Trailer: X",
    "Authorization: evil",
    "Cookie: evil",
    "Content-Type: a/b",
    "Content-Encoding: gzip",
    "Content-Range: bytes 0-1/2",
    "Connection: close",
    "Upgrade: h2c",
    "Te: trailers",
    "Via: evil",
    "Proxy: evil",
    "Forwarded: for=evil",
    "X-Forwarded-For: evil",
    "X_Forwarded_For: evil",
    "Content_Length: 5",
    "Transfer_Encoding: chunked",
    "X-Real-IP: evil",
    "Keep-Alive: 5",
    "Proxy-Connection: a",
    "Proxy-Authorization: a",
    "Max-Forwards: 0",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: evil",
]


def _chunks() -> Iterator[Case]:
    for name, body in BROKEN_CHUNKS:
        yield _case(
            f"chunks: {name}",
            post(CHUNKED) + body + SMUGGLED,
            broken(),
            "RFC 9112 7.1, 11.2; T-Reqs, Funky Chunks 2025, CVE-2022-32214, CVE-2023-39326, CVE-2025-22871",
        )
    for name, body in [
        ("2^64-1", "ffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        ("2^63", "8000000000000000\r\nhello\r\n0\r\n\r\n"),
        ("2^32+5", "100000005\r\nhello\r\n0\r\n\r\n"),
        ("2^63+5", "8000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("2^31+5", "80000005\r\nhello\r\n0\r\n\r\n"),
        ("no last chunk", "5\r\nhello\r\n"),
        ("no end of trailers", "5\r\nhello\r\n0\r\n"),
        ("half a line break", "5\r\nhello\r"),
        ("no size yet", "5"),
        ("no line break yet", "5\r"),
        ("trailer without end", "0\r\nX: 1\r\n"),
        ("last chunk CR LF CR", "0\r\n\r"),
    ]:
        yield _case(f"chunks: {name}", post(CHUNKED) + body, WAITS, "RFC 9112 7.1, 8 (overflow, incomplete)")
    for name, body, content in [
        ("upper case", "A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("lower case", "a\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("leading zeros", "0000000000000005\r\nhello\r\n0\r\n\r\n", "hello"),
        ("00 as last", "5\r\nhello\r\n00\r\n\r\n", "hello"),
        ("16 zeros as last", "5\r\nhello\r\n" + "0" * 16 + "\r\n\r\n", "hello"),
        ("extension", "5;a=b\r\nhello\r\n0\r\n\r\n", "hello"),
        ("empty extension", "5;\r\nhello\r\n0;\r\n\r\n", "hello"),
        ("white space before an extension", "5 \t;a\r\nhello\r\n0\r\n\r\n", "hello"),
        ("white space in an extension", "5; a = b\r\nhello\r\n0\r\n\r\n", "hello"),
        ("quoted extension", '5;a="b;\\"c"\r\nhello\r\n0\r\n\r\n', "hello"),
        ("extension of the last", "5\r\nhello\r\n0;a=b\r\n\r\n", "hello"),
        ("extension like a chunk", "5;0\r\nhello\r\n0\r\n\r\n", "hello"),
        ("extension of high octets", "5;\xe9\r\nhello\r\n0\r\n\r\n", "hello"),
        ("many", "1\r\nh\r\n1\r\ne\r\n1\r\nl\r\n1\r\nl\r\n1\r\no\r\n0\r\n\r\n", "hello"),
        ("none", "0\r\n\r\n", ""),
        ("data like a last chunk", "7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", "\r\n0\r\n\r\n"),
        ("data like a request", f"{len(SMUGGLED):x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED),
        ("unclosed quote", '5;a="\r\nhello\r\n0\r\n\r\n', "hello"),
    ]:
        yield _case(
            f"good chunks: {name}",
            post(CHUNKED) + body + SMUGGLED,
            gets(posted(body=content, chunked=True), SECOND),
            "RFC 9112 7.1, 7.1.1",
        )
    for line in BROKEN_TRAILERS:
        yield _case(
            f"trailer {line!r}",
            post(CHUNKED) + f"5\r\nhello\r\n0\r\n{line}\r\n\r\n" + SMUGGLED,
            broken(),
            "RFC 9112 7.1.2, 5.1, 5.2; CVE-2020-10687 (trailers)",
        )
    for line in DROPPED_TRAILERS:
        yield _case(
            f"trailer {line}",
            post(CHUNKED) + f"5\r\nhello\r\n0\r\n{line}\r\n\r\n" + SMUGGLED,
            gets(posted(chunked=True), SECOND),
            "RFC 9110 6.5.1; trailer smuggling, CVE-2025-12642",
        )
    yield _case(
        "good trailers",
        post(CHUNKED) + "5\r\nhello\r\n0\r\nX-T:  1 \r\nx-t: 2\r\n\r\n" + SMUGGLED,
        gets(posted(chunked=True, trailers=[("X-T", "1"), ("x-t", "2")]), SECOND),
        "RFC 9112 7.1.2",
    )
    yield _case(
        "trailer named by Connection",
        post(CHUNKED, "Connection: X-T") + "0\r\nX-T: 1\r\nX-U: 2\r\n\r\n" + SMUGGLED,
        gets(posted(body="", chunked=True, trailers=[("X-U", "2")]), SECOND),
        "RFC 9110 7.6.1, 6.5.1",
    )
    yield _case(
        "trailer that a rule sets",
        post(CHUNKED, target="/set/part") + "0\r\nX-Set: 1\r\nX_Set: 2\r\nX-Gone: 3\r\n\r\n" + SMUGGLED,
        gets(seen("POST /set/part", chunked=True, extra=[("X-Set", "ours")]), SECOND),
        "RFC 9110 6.5.1",
    )


# Heads

NOT_IN_NAMES = [
    octet
    for octet in range(256)
    if chr(octet) not in "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz:"
]
"""Octets that no token has; a colon ends a name."""

NOT_IN_VALUES = [octet for octet in (*range(32), 127) if octet != 9]

REQUEST_LINES = [
    ("two spaces", "GET  /x HTTP/1.1", 400),
    ("two spaces before the version", "GET /x  HTTP/1.1", 400),
    ("space before", " GET /x HTTP/1.1", 400),
    ("space behind", "GET /x HTTP/1.1 ", 400),
    ("tab", "GET\t/x HTTP/1.1", 400),
    ("tab before the version", "GET /x\tHTTP/1.1", 400),
    ("tab behind", "GET /x HTTP/1.1\t", 400),
    ("vertical tab", "GET\x0b/x HTTP/1.1", 400),
    ("form feed", "GET\x0c/x HTTP/1.1", 400),
    ("NUL behind", "GET /x HTTP/1.1\x00", 400),
    ("NUL before", "\x00GET /x HTTP/1.1", 400),
    ("NUL in the method", "G\x00ET /x HTTP/1.1", 400),
    ("no version", "GET /x", 400),
    ("no version, space", "GET /x ", 400),
    ("no target", "GET HTTP/1.1", 400),
    ("empty target", "GET  HTTP/1.1", 400),
    ("space in the target", "GET /x y HTTP/1.1", 400),
    ("four parts", "GET /x HTTP/1.1 HTTP/1.1", 400),
    ("CR in the target", "GET /x\r/y HTTP/1.1", 400),
    ("CR before the version", "GET /x\rHTTP/1.1", 400),
    ("CR behind", "GET /x HTTP/1.1\r", 400),
    ("LF in the target", "GET /x\n/y HTTP/1.1", 400),
    ("LF in the method", "GE\nT /x HTTP/1.1", 400),
    ("CR in the method", "GE\rT /x HTTP/1.1", 400),
    ("no method", "/x HTTP/1.1", 400),
    ("empty method", " /x HTTP/1.1", 400),
    ("a second line for a version", "GET /x\r\nHTTP/1.1", 400),
    ("colon in the method", "GET: /x HTTP/1.1", 400),
    ("lower case", "get /x HTTP/1.1", 501),
    ("method with a slash", "GET/ /x HTTP/1.1", 400),
    ("high octets", "G\xcbT /x HTTP/1.1", 400),
    ("unknown method", "SMUGGLE /x HTTP/1.1", 501),
    ("quoted method", '"GET" /x HTTP/1.1', 400),
    ("override of the method", "GET_POST /x HTTP/1.1", 501),
    ("HTTP/0.9", "GET /x HTTP/0.9", 505),
    ("HTTP/2.0", "GET /x HTTP/2.0", 505),
    ("HTTP/3.0", "GET /x HTTP/3.0", 505),
    ("HTTP/1.10", "GET /x HTTP/1.10", 400),
    ("HTTP/01.1", "GET /x HTTP/01.1", 400),
    ("HTTP/1.1.1", "GET /x HTTP/1.1.1", 400),
    ("http/1.1", "GET /x http/1.1", 400),
    ("HTTP /1.1", "GET /x HTTP /1.1", 400),
    ("HTTP/ 1.1", "GET /x HTTP/ 1.1", 400),
    ("HTTP/1,1", "GET /x HTTP/1,1", 400),
    ("HTTPS/1.1", "GET /x HTTPS/1.1", 400),
    ("HTTP/1.", "GET /x HTTP/1.", 400),
    ("HTTP/.1", "GET /x HTTP/.1", 400),
    ("HTTP/1", "GET /x HTTP/1", 400),
    ("HTTP/11", "GET /x HTTP/11", 400),
    ("ICY/1.1", "GET /x ICY/1.1", 400),
    ("HTTP/+1.1", "GET /x HTTP/+1.1", 400),
    ("HTTP/1.1HTTP/1.1", "GET /x HTTP/1.1HTTP/1.1", 400),
    ("HTTP/1.x", "GET /x HTTP/1.x", 400),
    ("HTTP-1.1", "GET /x HTTP-1.1", 400),
    ("HTTP/1.\xb9", "GET /x HTTP/1.\xb9", 400),
    ("RTSP/1.0", "GET /x RTSP/1.0", 400),
    ("CONNECT", "CONNECT a:443 HTTP/1.1", 405),
    ("CONNECT of a path", "CONNECT /x HTTP/1.1", 405),
    ("CONNECT of a URL", "CONNECT http://a/ HTTP/1.1", 405),
    ("connect in lower case", "connect a:443 HTTP/1.1", 501),
    ("authority-form", "GET a:443 HTTP/1.1", 400),
    ("asterisk", "GET * HTTP/1.1", 400),
    ("asterisk and more", "OPTIONS *x HTTP/1.1", 400),
    ("asterisk path", "OPTIONS */x HTTP/1.1", 400),
    ("no slash", "GET x HTTP/1.1", 400),
    ("HTTP/2's preface", "PRI * HTTP/2.0", 505),
]


def _heads() -> Iterator[Case]:
    for octet in NOT_IN_NAMES:
        if chr(octet) in "\r\n":
            continue
        yield _case(
            f"name with octet {octet:#04x}",
            get(f"X{chr(octet)}A: 1") + SMUGGLED,
            BAD,
            "RFC 9110 5.1, RFC 9112 5.1; T-Reqs",
        )
    for octet in NOT_IN_VALUES:
        yield _case(
            f"value with octet {octet:#04x}",
            get(f"X-A: 1{chr(octet)}2") + SMUGGLED,
            BAD,
            "RFC 9110 5.5, RFC 9112 2.2; CVE-2023-25725",
        )
    for name, lines in [
        ("folded", ("X: 1", " 2")),
        ("folded with tab", ("X: 1", "\t2")),
        ("folded first field", (" X: 1",)),
        ("folded empty", ("X: 1", " ")),
        ("folded Host", ("X: 1", " Host: b")),
        ("empty name", (": 1",)),
        ("no colon", ("X",)),
        ("no colon but white space", ("X 1",)),
        ("a request as a field", ("GET /smuggled HTTP/1.1",)),
        ("bare LF between fields", ("X: 1\nY: 2",)),
        ("bare CR between fields", ("X: 1\rY: 2",)),
        ("bare LF before", ("\nX: 1",)),
        ("bare LF behind", ("X: 1\n",)),
        ("bare CR behind", ("X: 1\r",)),
        ("LF CR", ("X: 1\n\rY: 2",)),
        ("CR CR LF", ("X: 1\r",)),
        ("empty head by LF", ("X: 1\n\nGET /smuggled HTTP/1.1",)),
        ("empty head by LF CR LF", ("X: 1\n\r\nGET /smuggled HTTP/1.1",)),
        ("empty head by CR CR", ("X: 1\r\rGET /smuggled HTTP/1.1",)),
        ("line of CR", ("\r",)),
        ("line of white space", (" ",)),
        ("line of tab", ("\t",)),
        ("line of NUL", ("\x00",)),
        ("two colons first", (":: 1",)),
        ("name in brackets", ("[X]: 1",)),
    ]:
        yield _case(f"head: {name}", get(*lines) + SMUGGLED, BAD, "RFC 9112 5, 5.2, 2.2; T-Reqs, CVE-2020-8201")
    for name, line, status in REQUEST_LINES:
        yield _case(
            f"line: {name}",
            f"{line}\r\nHost: a\r\n\r\n{SMUGGLED}",
            refused(status),
            "RFC 9112 3, 2.3; RFC 9110 9.3.6; T-Reqs",
        )
    for name, text, statuses in [
        ("LF only", "GET /x HTTP/1.1\nHost: a\n\n", (400,)),
        ("LF behind the first line", "GET /x HTTP/1.1\nHost: a\r\n\r\n", (400,)),
        ("LF at the end", "GET /x HTTP/1.1\r\nHost: a\r\n\n", (400,)),
        ("LF CRLF at the end", "GET /x HTTP/1.1\r\nHost: a\n\r\n", (400,)),
        ("CR only", "GET /x HTTP/1.1\rHost: a\r\r", (400,)),
        ("three empty lines", "\r\n\r\n\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n", (400,)),
        ("LF before", "\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n", (400,)),
        ("CR before", "\rGET /x HTTP/1.1\r\nHost: a\r\n\r\n", (400,)),
        ("white space line before", " \r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n", (400,)),
        ("a byte order mark", "\xef\xbb\xbfGET /x HTTP/1.1\r\nHost: a\r\n\r\n", (400,)),
        ("SSH", "SSH-2.0-OpenSSH_9.9\r\n\r\n", (400,)),
        ("SMTP", "EHLO a\r\nMAIL FROM:<a>\r\n\r\n", (400,)),
        ("PROXY protocol", "PROXY TCP4 6.6.6.6 1.1.1.1 1 2\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n", (400,)),
        ("an answer", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", (400,)),
        ("a chunk", "5\r\nhello\r\n0\r\n\r\n", (400,)),
        ("TLS", "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00\r\n\r\n", (400,)),
        ("Gopher", "/x\r\n\r\n", (400,)),
    ]:
        yield _case(f"start: {name}", text + SMUGGLED, refused(*statuses), "RFC 9112 2.2, 3; RFC 9110 2.5")
    yield _case("an empty line before", "\r\n" + get(), gets(seen("GET /x")), "RFC 9112 2.2")
    yield _case("two empty lines before", "\r\n\r\n" + get(), gets(seen("GET /x")), "RFC 9112 2.2")
    yield _case("an empty line between", get() + "\r\n" + SMUGGLED, gets(seen("GET /x"), SECOND), "RFC 9112 2.2")
    yield _case("pipelined", get() * 3 + SMUGGLED, gets(*[seen("GET /x")] * 3, SECOND), "RFC 9112 9.3.2")
    yield _case(
        "closed before a second", get("Connection: close") + SMUGGLED, gets(seen("GET /x"), closed=True), "RFC 9112 9.6"
    )
    yield _case(
        "close in a list", get("Connection: x, CLOSE") + SMUGGLED, gets(seen("GET /x"), closed=True), "RFC 9112 9.6"
    )
    yield _case(
        "HTTP/1.0", get(version="HTTP/1.0") + SMUGGLED, gets(seen("GET /x", via="1.0"), closed=True), "RFC 9112 9.3"
    )
    yield _case(
        "HTTP/1.0 kept",
        get("Connection: keep-alive", version="HTTP/1.0") + SMUGGLED,
        gets(seen("GET /x", via="1.0"), SECOND),
        "RFC 9112 9.3",
    )
    yield _case(
        "HTTP/1.2",
        post(CHUNKED, "Expect: 100-continue", version="HTTP/1.2") + CHUNKS + SMUGGLED,
        gets(posted(("Expect", "100-continue"), chunked=True)._replace(via="1.2"), SECOND),
        "RFC 9110 2.5",
    )
    for name, lines in [
        ("without a Host", "GET /x HTTP/1.2\r\n"),
        ("with both", f"POST /x HTTP/1.2\r\nHost: a\r\n{LENGTH}\r\n{CHUNKED}\r\n"),
    ]:
        yield _case(f"HTTP/1.2 {name}", f"{lines}\r\n{SMUGGLED}", BAD, "RFC 9110 2.5, RFC 9112 3.2, 6.3")
    yield _case("garbage behind", get() + "garbage\r\n\r\n", gets(seen("GET /x"), then=400), "RFC 9112 3")
    yield _case(
        "a body behind no length",
        post(target="/x") + "a=b\r\n\r\n" + SMUGGLED,
        gets(seen("POST /x"), then=400),
        "0.CL, Kettle 2025",
    )
    yield _case("a head without end", get()[:-2], WAITS, "RFC 9112 8")
    yield _case(
        "high octets in a value",
        get("X-A: \xe9\xff") + SMUGGLED,
        gets(seen("GET /x", ("X-A", "\xe9\xff")), SECOND),
        "RFC 9110 5.5",
    )
    yield _case(
        "odd but good names", get("!#$%&'*+-.^`|~: 1"), gets(seen("GET /x", ("!#$%&'*+-.^`|~", "1"))), "RFC 9110 5.6.2"
    )
    yield _case(
        "duplicates keep their order",
        get("X-A: 1", "X-B: 2", "x-a: 3"),
        gets(seen("GET /x", ("X-A", "1"), ("X-B", "2"), ("x-a", "3"))),
        "RFC 9110 5.3",
    )
    yield _case("long target", f"GET /{'a' * 9000} HTTP/1.1\r\nHost: a\r\n\r\n{SMUGGLED}", refused(414), "RFC 9112 3")
    yield _case("long field", get("X: " + "a" * 40000) + SMUGGLED, refused(431), "RFC 6585 5")


# Host

BAD_HOSTS = [
    "",
    "a b",
    "a\tb",
    "a, b",
    "a,b",
    "u@a",
    "u:p@a",
    "a/b",
    "a?b",
    "a#b",
    "http://a",
    "a:99999",
    "a:-1",
    "a:x",
    "a:80:80",
    "[::1",
    "::1",
    "[::1%25eth0]",
    "%61",
    "a\\b",
    "a%00",
    'a"',
    "\xe9",
    "a;b",
    "[a]",
    "[::1]x",
    "[]",
    "a:+80",
    "a:0x50",
    "a: 80",
    "a&b",
    "a\x00",
    "a\x0b",
    "(a)",
    "a:080808",
    "<a>",
    "'a'",
    "a b:80",
    "@a",
    "a@",
    "/",
    "a" * 256,
    "[v1.x]",
    "a:\xb2",
    "{a}",
    "a|b",
    "a^b",
    "a`b",
]


def _hosts() -> Iterator[Case]:
    source = "RFC 9112 3.2, RFC 9110 7.2; Kettle 2013 (Host attacks)"
    for value in BAD_HOSTS:
        yield _case(f"host {value[:20]!r}", f"GET /x HTTP/1.1\r\nHost: {value}\r\n\r\n{SMUGGLED}", BAD, source)
    for value in (
        "a.test",
        "a.test:8080",
        "[::1]",
        "[::1]:80",
        "192.0.2.1",
        "a_b",
        "a.",
        "a:",
        "A",
        "xn--bcher-kva.test",
        "[::ffff:1.2.3.4]",
        "~a",
    ):
        yield _case(
            f"good host {value}", f"GET /x HTTP/1.1\r\nHost: {value}\r\n\r\n", gets(seen("GET /x", host=value)), source
        )
    for name, text in [
        ("none", "GET /x HTTP/1.1\r\n\r\n"),
        ("two", "GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("the same twice", "GET /x HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        ("two spellings", "GET /x HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n"),
        ("a second empty", "GET /x HTTP/1.1\r\nHost: a\r\nHost:\r\n\r\n"),
        ("two in HTTP/1.0", "GET /x HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("space before the colon", "GET /x HTTP/1.1\r\nHost : a\r\n\r\n"),
        ("space before", "GET /x HTTP/1.1\r\n Host: a\r\n\r\n"),
        ("a folded second", "GET /x HTTP/1.1\r\nHost: a\r\n Host: b\r\n\r\n"),
        ("folded", "GET /x HTTP/1.1\r\nHost:\r\n a\r\n\r\n"),
        ("absolute, none", "GET http://a/x HTTP/1.1\r\n\r\n"),
        ("absolute, two", "GET http://a/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("absolute, odd", "GET http://a/x HTTP/1.1\r\nHost: a b\r\n\r\n"),
        ("a look-alike only", "GET /x HTTP/1.1\r\nHost_: a\r\n\r\n"),
    ]:
        yield _case(f"hosts: {name}", text + SMUGGLED, BAD, source)
    for target in (
        "http://u@a/x",
        "http://u:p@a/x",
        "http:///x",
        "http://",
        "http://a:99999/x",
        "http:/x",
        "http:x",
        "http://a\\@b/x",
        "http://a b/x",
        "http://[::1/x",
        "http://a,b/x",
        "ftp://a/x",
        "file:///etc/passwd",
        "gopher://a/x",
        "javascript:alert(1)",
        "http://a#/x",
        "http://a/x#y",
        "//a@b/x\\y",
        "http://a/..;/x",
        "http://a/%",
        "http://\xe9/x",
        "http://a%2f@b/x",
        "http://a/..%2fx",
        "\\\\a\\x",
        "http:\\\\a\\x",
        "?x",
        "http://@a/x",
        "http://a:80:80/x",
        "mailto:a@b",
        "://a/x",
    ):
        yield _case(
            f"target {target}",
            get(target=target) + SMUGGLED,
            BAD,
            "RFC 9112 3.2.2, RFC 9110 4.2.4; Kettle 2017 (Cracking the Lens)",
        )
    absolute = "RFC 9112 3.2.2"
    for target, host, line in [
        ("http://b/x", "b", "/x"),
        ("http://b:81/x", "b:81", "/x"),
        ("HTTP://B/x", "B", "/x"),
        ("http://b", "b", "/"),
        ("http://b?q", "b", "/?q"),
        ("https://b/x", "b", "/x"),
        ("http://[::1]:9/x", "[::1]:9", "/x"),
        ("http://b/x/../y", "b", "/y"),
        ("http://b//c/x", "b", "//c/x"),
        ("ws://b/x", "b", "/x"),
        ("http://b/x?u=http://c/", "b", "/x?u=http://c/"),
        ("http://b/@c/x", "b", "/@c/x"),
    ]:
        yield _case(
            f"absolute {target}", get(target=target) + SMUGGLED, gets(seen(f"GET {line}", host=host), SECOND), absolute
        )
    yield _case(
        "absolute in HTTP/1.0",
        "GET http://b/x HTTP/1.0\r\n\r\n" + SMUGGLED,
        gets(seen("GET /x", host="b", via="1.0"), closed=True),
        absolute,
    )
    yield _case("OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", answered(204, closed=False), "RFC 9110 9.3.7")
    for name in ("X-Forwarded-Host: evil", "X-Host: evil", "Forwarded: host=evil", "X_Forwarded_Host: evil"):
        given = () if "orwarded" in name else (("X-Host", "evil"),)
        yield _case(
            f"overriding {name}", get(name), gets(seen("GET /x", *given)), "Kettle 2018 (cache poisoning)"
        )


# Paths

PATHS = [
    ("/x/../y", "/y"),
    ("/x/%2e%2e/y", "/y"),
    ("/x/.%2e/y", "/y"),
    ("/x/%2E./y", "/y"),
    ("/x/./y", "/x/y"),
    ("/x/%2e/y", "/x/y"),
    ("/../../y", "/y"),
    ("/%2e%2e/%2e%2e/y", "/y"),
    ("/x/..", "/"),
    ("/x//../y", "/x/y"),
    ("//x/y", "//x/y"),
    ("/x%2fy", "/x%2fy"),
    ("/x%2Fy", "/x%2Fy"),
    ("/x%00y", "/x%00y"),
    ("/x%0d%0aEvil:1", "/x%0d%0aEvil:1"),
    ("/x%5cy", "/x%5cy"),
    ("/x;a=b/y", "/x;a=b/y"),
    ("/%252e%252e/y", "/%252e%252e/y"),
    ("/x%20HTTP/1.1%0d%0a", "/x%20HTTP/1.1%0d%0a"),
    ("/x%E2%80%AEy", "/x%E2%80%AEy"),
    ("/x...", "/x..."),
    ("/.../y", "/.../y"),
    ("/x?/../y", "/x?/../y"),
    ("/x?a=%0d%0aEvil:1", "/x?a=%0d%0aEvil:1"),
    ("/x?a=b?c", "/x?a=b?c"),
    ("/x?", "/x?"),
    ("/x?%", "/x?%"),
    ("/x?a=\\", "/x?a=\\"),
    ("/x%23y", "/x%23y"),
    ("/x%3fy", "/x%3fy"),
    ("/x%09y", "/x%09y"),
    ("/x+y", "/x+y"),
    ("/~x", "/~x"),
    ("/x%7f", "/x%7f"),
    ("/x'\"<>", "/x'\"<>"),
    ("/%c0%ae%c0%ae/y", "/%c0%ae%c0%ae/y"),
    ("/x..%252fy", "/x..%252fy"),
    ("/x%c4%8d%c4%8aEvil:1", "/x%c4%8d%c4%8aEvil:1"),
    ("/re/x", "/new/x"),
    ("/re/%0d%0aX-Evil:%201", "/new/%0d%0aX-Evil:%201"),
    ("/re/%0D%0A%0D%0AGET%20/smuggled", "/new/%0D%0A%0D%0AGET%20/smuggled"),
    ("/re/%20HTTP/1.1%0d%0a", "/new/%20HTTP/1.1%0d%0a"),
    ("/re/$1", "/new/$1"),
    ("/re/$&$`$'", "/new/$&$`$'"),
    ("/re/%24%31", "/new/%241"),
    ("/re/%00", "/new/%00"),
    ("/re/%2f", "/new/%2f"),
    ("/re//evil.test/x", "/new//evil.test/x"),
    ("/re/../x", "/x"),
    ("/re/%2e%2e/x", "/x"),
    ("/re/x?a=/../%0d%0a", "/new/x?a=/../%0d%0a"),
    ("/re/http://evil/", "/new/http://evil/"),
    ("/re/%3fa=b", "/new/%3fa=b"),
    ("/re/%23a", "/new/%23a"),
    ("/swap/a/b", "/b/a"),
    ("/swap/%0d/%0a", "/%0a/%0d"),
    ("/slash//evil.test", "//evil.test"),
    ("/slash/@evil.test", "/@evil.test"),
    ("/bare/x", "/x"),
    ("/bare/@evil.test", "/@evil.test"),
    ("/bare/:80@evil", "/:80@evil"),
    ("/sub/x", "/base/sub/x"),
    ("/sub/../x", "/x"),
]

BAD_PATHS = [
    "/x/..;/y",
    "/x/..;a=b/y",
    "/x/.;/y",
    "/x/..%2fy",
    "/x/..%2Fy",
    "/x/%2e%2e%2fy",
    "/x/..%5cy",
    "/x/%2e.%5Cy",
    "/x%2f..%2fy",
    "/x%2f../y",
    "/x%5c../y",
    "/..;/..;/y",
    "/%2e%2e;/y",
    "/x/%2e%2e;x/y",
    "/x\\y",
    "/x/..\\y",
    "/x#y",
    "/x?a#b",
    "/x%",
    "/x%zz",
    "/x%2",
    "/x%u002e",
    "/x%\xb2",
    "/x\xe9",
    "/x\x00y",
    "/x\x01",
    "/x\x7f",
    "/x\ty",
    "/x\x0by",
    "/x?a\x00",
    "/x?a\xe9",
    "/x?\x7f",
    "/x?a\tb",
    "/re/x\\y",
    "/dot/.-./y",
    "/dot/.-%2e/y",
    "/dot/.-.;/y",
    "/x\xc0\xae\xc0\xae/",
    "/x\r",
    "/x\n",
    "/%0",
    "/x\x85",
]


def _paths() -> Iterator[Case]:
    source = "RFC 9112 3.2.1, RFC 3986 5.2.4, 6.2.2; Orange Tsai 2018, CVE-2021-41773, CVE-2021-40346"
    for target, expected in PATHS:
        yield _case(f"path {target}", get(target=target) + SMUGGLED, gets(seen(f"GET {expected}"), SECOND), source)
    for target in BAD_PATHS:
        # What only the rewrite brings out is refused by a request that can be read: the connection goes on.
        outcome = Outcome((SECOND,), ((400,), (200,))) if target.startswith("/dot") else BAD
        yield _case(f"path {target!r}", get(target=target) + SMUGGLED, outcome, source)


# Connection

UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)

HOPS: list[tuple[str, tuple[str, ...], Seen]] = [
    ("Host", ("Connection: Host",), seen("GET /x")),
    ("close, Host", ("Connection: X, Host",), seen("GET /x")),
    ("Via", ("Connection: Via",), seen("GET /x")),
    ("X-Forwarded-For", ("Connection: X-Forwarded-For, X-Real-IP, X-Forwarded-Proto",), seen("GET /x")),
    ("X-A", ("Connection: X-A", "X-A: 1", "X-B: 2"), seen("GET /x", ("X-B", "2"))),
    ("x-a", ("Connection: x-A", "X-a: 1"), seen("GET /x")),
    ("two lines", ("Connection: X-A", "Connection: X-B", "X-A: 1", "X-B: 2", "X-C: 3"), seen("GET /x", ("X-C", "3"))),
    ("empty members", ("Connection: ,, ,X-A,", "X-A: 1"), seen("GET /x")),
    ("empty", ("Connection:", "X-A: 1"), seen("GET /x", ("X-A", "1"))),
    ("Cookie", ("Connection: Cookie", "Cookie: a"), seen("GET /x")),
    ("Authorization", ("Connection: Authorization", "Authorization: a"), seen("GET /x")),
    ("Keep-Alive", ("Keep-Alive: timeout=5",), seen("GET /x")),
    ("Proxy-Connection", ("Proxy-Connection: keep-alive, X-A", "X-A: 1"), seen("GET /x", ("X-A", "1"))),
    ("Proxy-Authorization", ("Proxy-Authorization: Basic a",), seen("GET /x")),
    ("Proxy-Authenticate", ("Proxy-Authenticate: Basic",), seen("GET /x")),
    ("Proxy", ("Proxy: http://evil",), seen("GET /x")),
    ("TE without Connection", ("TE: trailers",), seen("GET /x")),
    ("TE", ("TE: trailers", "Connection: TE"), seen("GET /x", extra=[("TE", "trailers"), ("Connection", "TE")])),
    ("TE of codings", ("TE: gzip, chunked", "Connection: TE"), seen("GET /x")),
    ("Close", ("Close: 1",), seen("GET /x", ("Close", "1"))),
    ("Upgrade h2c", ("Upgrade: h2c",), seen("GET /x")),
    (
        "h2c smuggling",
        ("Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA", "Connection: Upgrade, HTTP2-Settings"),
        seen("GET /x"),
    ),
    (
        "h2c without naming the settings",
        ("Upgrade: h2c", "HTTP2-Settings: AAMA", "Connection: Upgrade"),
        seen("GET /x", ("HTTP2-Settings", "AAMA")),
    ),
    ("Upgrade TLS", ("Upgrade: TLS/1.0", "Connection: Upgrade"), seen("GET /x")),
    ("Upgrade with tab", ("Upgrade: \th2c", "Connection: upgrade"), seen("GET /x")),
    ("two Upgrades", ("Upgrade: h2c", "Upgrade: h2", "Connection: upgrade"), seen("GET /x")),
    ("X_Forwarded_For", ("X_Forwarded_For: 6.6.6.6",), seen("GET /x")),
    ("X-Forwarded_For", ("X-Forwarded_For: 6.6.6.6",), seen("GET /x")),
    ("X_Real_IP", ("X_Real_IP: 6.6.6.6",), seen("GET /x")),
    ("X_FORWARDED_PROTO", ("X_FORWARDED_PROTO: https",), seen("GET /x")),
    ("Proxy_Authorization", ("Proxy_Authorization: a",), seen("GET /x")),
    ("X-Forwarded-For spoofed", ("X-Forwarded-For: 6.6.6.6",), seen("GET /x")),
    ("X-Forwarded-For twice", ("X-Forwarded-For: 6.6.6.6", "x-forwarded-for: 7.7.7.7"), seen("GET /x")),
    ("Forwarded", ("Forwarded: for=6.6.6.6;proto=https;host=evil",), seen("GET /x")),
    ("X-Forwarded-Proto", ("X-Forwarded-Proto: https", "X-Forwarded-Port: 1"), seen("GET /x")),
    ("X-Real-IP spoofed", ("X-Real-IP: 6.6.6.6",), seen("GET /x")),
    ("an earlier Via", ("Via: 1.0 evil",), seen("GET /x", ("Via", "1.0 evil"))),
    ("other underscores", ("X_A: 1",), seen("GET /x", ("X_A", "1"))),
]


def _hops() -> Iterator[Case]:
    source = "RFC 9110 7.6.1, 7.8, 10.1.4; hop-by-hop abuse, Gil and Davison 2019; Bishop Fox 2020"
    for name, lines, expected in HOPS:
        yield _case(f"connection: {name} {len(lines)}", get(*lines) + SMUGGLED, gets(expected, SECOND), source)
    yield _case(
        "connection: Content-Length",
        post("Connection: Content-Length", LENGTH) + "hello" + SMUGGLED,
        gets(posted(), SECOND),
        source,
    )
    yield _case(
        "connection: Transfer-Encoding",
        post("Connection: Transfer-Encoding", CHUNKED) + CHUNKS + SMUGGLED,
        gets(posted(chunked=True), SECOND),
        source,
    )
    yield _case(
        "connection: a rule's field",
        get("Connection: X-Set", "X-Set: 1", "X-Gone: 2", target="/set/x"),
        gets(seen("GET /set/x", extra=[("X-Set", "ours")])),
        source,
    )
    for lines in (("X_Set: 1",), ("X-SET: 1", "x-gone: 1")):
        given = (("X_Set", "1"),) if lines[0].startswith("X_") else ()
        yield _case(
            f"a rule's field {lines[0]}",
            get(*lines, target="/set/x"),
            gets(seen("GET /set/x", *given, extra=[("X-Set", "ours")])),
            "the reference: Rules",
        )
    yield _case(
        "changeOrigin",
        get("Origin: http://evil", target="/co/x"),
        gets(seen("GET /co/x", ("Origin", "TARGET"), host="TARGET")),
        "the reference: Rules",
    )


# Expect


def _expectations() -> Iterator[Case]:
    source = "RFC 9110 10.1.1; Kettle 2025 (Expect)"
    expect = ("Expect", "100-continue")
    for value in ("100-continue", "100-Continue", "100-CONTINUE"):
        yield _case(
            f"Expect {value}",
            post(f"Expect: {value}", LENGTH) + "hello" + SMUGGLED,
            gets(posted(("Expect", value)), SECOND),
            source,
        )
    yield _case(
        "Expect with chunks",
        post("Expect: 100-continue", CHUNKED) + CHUNKS + SMUGGLED,
        gets(posted(expect, chunked=True), SECOND),
        source,
    )
    yield _case(
        "Expect without a body", get("Expect: 100-continue") + SMUGGLED, gets(seen("GET /x", expect), SECOND), source
    )
    for value in ("x", "100-continue, x", "y 100-continue", "100-continue;a=b", "", '"100-continue"'):
        yield _case(
            f"Expect {value!r}",
            post(f"Expect: {value}", LENGTH) + "hello" + SMUGGLED,
            gets(posted(("Expect", value)), SECOND),
            source,
        )
    yield _case(
        "Expect twice",
        post("Expect: 100-continue", "Expect: 100-continue", LENGTH) + "hello" + SMUGGLED,
        gets(posted(expect, expect), SECOND),
        source,
    )
    yield _case(
        "Expect in HTTP/1.0",
        post("Expect: 100-continue", LENGTH, version="HTTP/1.0") + "hello" + SMUGGLED,
        gets(posted(expect)._replace(via="1.0"), closed=True),
        source,
    )
    yield _case(
        "Expect folded", post("Expect: 100-continue", " x", LENGTH, target="/x") + "hello" + SMUGGLED, BAD, source
    )
    for name, lines, body in [
        ("length", (f"Content-Length: {len(SMUGGLED) + 1}",), SMUGGLED),
        ("chunks", (CHUNKED,), f"{len(SMUGGLED):x}\r\n{SMUGGLED}\r\n"),
        ("Expect", ("Expect: 100-continue", f"Content-Length: {len(SMUGGLED) + 1}"), SMUGGLED),
    ]:
        yield _case(
            f"an answer before the body's end, {name}",
            post(*lines, target="/part/early") + body,
            Outcome((), ((403,),), closed=True, partial=True),
            "RFC 9112 9.6; CL.0, Kettle 2022",
        )


# Upgrades


def _upgrades() -> Iterator[Case]:
    source = "RFC 6455 4.2.1, RFC 9110 7.8; Egorov 2019 (WebSocket smuggling), CVE-2020-13935"
    version = ("Sec-WebSocket-Version", "13")
    asked = seen("GET /x", version, upgrade=True)
    yield _case("an upgrade that is refused, and a request", get(*UPGRADE) + SMUGGLED, gets(asked, closed=True), source)
    yield _case("an upgrade that is refused", get(*UPGRADE), gets(asked), source)
    for wrong in ("8", "777", "13, 8", ""):
        yield _case(
            f"wrong version {wrong!r}, and a request",
            get(*UPGRADE[:3], f"Sec-WebSocket-Version: {wrong}") + SMUGGLED,
            Outcome((seen("GET /x", ("Sec-WebSocket-Version", wrong), upgrade=True),), ((426,),), closed=True),
            source,
        )
    yield _case(
        "agreed, and a request for frames",
        get(*UPGRADE, target="/agree") + SMUGGLED,
        Outcome((seen("GET /agree", version, upgrade=True),), ((101,),), closed=True),
        source,
    )
    for name, lines in [
        ("no key", (*UPGRADE[:2], UPGRADE[3])),
        ("short key", (*UPGRADE[:2], "Sec-WebSocket-Key: YQ==", UPGRADE[3])),
        ("no Connection", (UPGRADE[0], *UPGRADE[2:])),
        ("no Upgrade", UPGRADE[1:]),
        ("another protocol", ("Upgrade: websocket2", *UPGRADE[1:])),
    ]:
        # It is plain, and so is what follows; the handshake's other fields go on as they are.
        kept = tuple(
            (key, value) for key, _, value in (line.partition(": ") for line in lines) if key.startswith("Sec-")
        )
        yield _case(f"no upgrade: {name}", get(*lines) + SMUGGLED, gets(seen("GET /x", *kept), SECOND), source)
    key = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    yield _case(
        "an upgrade with a body",
        get(*UPGRADE, f"Content-Length: {len(SMUGGLED)}") + SMUGGLED,
        gets(seen("GET /x", key, version, body=SMUGGLED)),
        source,
    )
    yield _case(
        "an upgrade with chunks",
        get(*UPGRADE, CHUNKED) + CHUNKS + SMUGGLED,
        gets(seen("GET /x", key, version, body="hello", chunked=True), SECOND),
        source,
    )
    yield _case(
        "POST of an upgrade",
        post(*UPGRADE, target="/x") + SMUGGLED,
        gets(seen("POST /x", key, version), SECOND),
        source,
    )
    yield _case(
        "an upgrade in HTTP/1.0",
        get(*UPGRADE, version="HTTP/1.0") + SMUGGLED,
        gets(seen("GET /x", key, version, via="1.0"), closed=True),
        source,
    )
    yield _case(
        "an upgrade that no rule takes",
        get(*UPGRADE, target="/none") + SMUGGLED,
        answered(404, closed=True),
        source,
    )
    yield _case(
        "an upgrade where there are none",
        get(*UPGRADE, target="/nows/x") + SMUGGLED,
        answered(404, closed=True),
        source,
    )


CASES = [
    *_lengths(),
    *_codings(),
    *_chunks(),
    *_heads(),
    *_hosts(),
    *_paths(),
    *_hops(),
    *_expectations(),
    *_upgrades(),
]
"""The corpus."""

RULES = [
    {"name": "rewrite", "pattern": "^/re/(.*)$", "rewrite": "/new/$1"},
    {"name": "swap", "pattern": "^/swap/([^/]*)/([^/]*)$", "rewrite": "/$2/$1"},
    {"name": "dot", "pattern": "^/dot/([^-]*)-(.*)$", "rewrite": "/$1$2"},
    {"name": "slash", "pattern": "^/slash(/.*)$", "rewrite": "$1"},
    {"name": "bare", "pattern": "^/bare/(.*)$", "rewrite": "$1"},
    {"name": "change", "pattern": "^/co/", "changeOrigin": True},
    {"name": "set", "pattern": "^/set/", "headers": {"X-Set": "ours", "X-Gone": None}},
    {"name": "plain", "pattern": "^/nows/", "ws": False},
    {"name": "sub", "pattern": "^/sub/", "target": "/base"},
    {"name": "all", "pattern": "^/(?!none)"},
]
"""The rules of the proxy; a C{target} is a path of the origin server's."""
