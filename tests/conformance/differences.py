"""
What RFC 9110, 9112 and 6455 leave open, case by case, and what proxyd, nginx and HAProxy make of it.

Each L{Case} says what comes of it with all three, as L{tests.conformance.peers.Outcome} writes it.  Where proxyd
differs from both others there is a reason.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.conformance.peers import Script

CHUNKED = "Transfer-Encoding: chunked"
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
UPGRADE = ("Upgrade: websocket", "Connection: Upgrade")


class Case(NamedTuple):
    """
    One request, and one answer to it.

    @ivar outcomes: what comes of it, by who forwards it.
    @ivar why: the reason for which proxyd agrees with neither.
    """

    name: str
    script: Script
    outcomes: dict[str, str]
    why: str

    @property
    def agrees_with(self) -> str:
        """Who does as proxyd does: C{both}, C{nginx}, C{HAProxy} or C{neither}."""
        nginx, haproxy = (self.outcomes[who] == self.outcomes["proxyd"] for who in ("nginx", "haproxy"))
        return {(True, True): "both", (True, False): "nginx", (False, True): "HAProxy"}.get((nginx, haproxy), "neither")


def case(
    name: str,
    request: bytes,
    ours: str,
    *,
    answer: bytes = ANSWER,
    end: bool = False,
    shows: tuple[str, ...] = (),
    nginx: str = "",
    haproxy: str = "",
    why: str = "",
) -> Case:
    """
    A case.

    @param end: the origin server ends its connection with its answer.
    @param shows: fields that are not left out of what is compared.
    @param nginx: what comes of it there if not the same.
    """
    script = Script(request, answer, end, tuple(name.lower() for name in shows))
    return Case(name, script, {"proxyd": ours, "nginx": nginx or ours, "haproxy": haproxy or ours}, why)


def get(*lines: str, target: str = "/x", method: str = "GET", version: str = "1.1") -> bytes:
    """The head of a request."""
    return "\r\n".join([f"{method} {target} HTTP/{version}", "Host: a", *lines, "", ""]).encode("latin-1")


def post(*lines: str, version: str = "1.1") -> bytes:
    """The head of a request with a body."""
    return get(*lines, method="POST", version=version)


def respond(*lines: str, status: str = "200 OK", body: str = "") -> bytes:
    """An answer."""
    return ("\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]) + body).encode("latin-1")


def upgrade(*lines: str, method: str = "GET", version: str = "13", http: str = "1.1") -> bytes:
    """A request for a WebSocket: the example of RFC 6455 section 1.3."""
    handshake = ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", f"Sec-WebSocket-Version: {version}")
    return get(*(lines or UPGRADE), *handshake, method=method, version=http)


def switch(*lines: str, accept: str = "ACCEPT") -> bytes:
    """The answer that agrees to a WebSocket."""
    fields = (*UPGRADE, f"Sec-WebSocket-Accept: {accept}", *lines)
    return "\r\n".join(["HTTP/1.1 101 Switching Protocols", *fields, "", ""]).encode()


CASES = {
    "Targets": [
        case(
            "absolute-form",
            b"GET http://b/x?y HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /x?y; host: b → 200",
            haproxy="400",
        ),
        case(
            "absolute-form without a path",
            b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / → 200",
            haproxy="GET http://a → 200",
        ),
        case(
            "absolute-form of https",
            b"GET https://a/x HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /x → 200",
            haproxy="GET https://a/x → 200",
        ),
        case("two slashes", get(target="//x//y/"), "GET //x//y/ → 200"),
        case("an escaped slash", get(target="/x%2Fy%2fz"), "GET /x%2Fy%2fz → 200"),
        case(
            "dot segments",
            get(target="/x/../y/./z"),
            "GET /y/z → 200",
            nginx="GET /x/../y/./z → 200",
            haproxy="GET /x/../y/./z → 200",
            why="rules match the path that is asked for in the end (SPEC 1, RFC 3986 6.2.2.3)",
        ),
        case(
            "escaped dot segments",
            get(target="/x/%2e%2E/y"),
            "GET /y → 200",
            nginx="GET /x/%2e%2E/y → 200",
            haproxy="GET /x/%2e%2E/y → 200",
            why="the same in disguise (SPEC 1, RFC 3986 6.2.2)",
        ),
        case(
            "dot segments above the root",
            get(target="/../y"),
            "GET /y → 200",
            nginx="400",
            haproxy="GET /../y → 200",
            why="removed as RFC 3986 5.2.4 says",
        ),
        case(
            "a dot segment with a parameter",
            get(target="/x/..;a/y"),
            "400",
            nginx="GET /x/..;a/y → 200",
            haproxy="GET /x/..;a/y → 200",
            why="servers disagree whether it is one (SPEC 1, security)",
        ),
        case("parameters", get(target="/x;a=b/y;c"), "GET /x;a=b/y;c → 200"),
        case("an empty query", get(target="/x?"), "GET /x? → 200"),
        case("a query with a query", get(target="/x?a=b?c=/../d"), "GET /x?a=b?c=/../d → 200"),
        case("escapes of letters", get(target="/%61%7E%2D"), "GET /%61%7E%2D → 200"),
        case("escapes in lower case", get(target="/%c3%a9"), "GET /%c3%a9 → 200"),
        case("an escape that is none", get(target="/x%zz"), "400", haproxy="GET /x%zz → 200"),
        case("an escape that is none in the query", get(target="/x?%zz%"), "GET /x?%zz% → 200"),
        case("an escaped NUL", get(target="/x%00y"), "GET /x%00y → 200", nginx="400"),
        case("high octets in the path", get(target="/x\xe9"), "400", nginx="GET /x\\xe9 → 200"),
        case("characters that no URI has", get(target='/x"<>^`{|}'), 'GET /x"<>^`{|} → 200'),
        case(
            "a backslash",
            get(target="/x\\y"),
            "400",
            nginx="GET /x\\\\y → 200",
            haproxy="GET /x\\\\y → 200",
            why="some servers take it for a slash (SPEC 1, security)",
        ),
        case("a fragment", get(target="/x#y"), "400", nginx="GET /x#y → 200"),
        case(
            "OPTIONS *",
            b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "204",
            nginx="400",
            haproxy="OPTIONS * → 200",
            why="is for the server that is asked, which proxyd is (SPEC 2, RFC 9110 9.3.7)",
        ),
        case("a long target", get(target="/" + "a" * 6999), "GET /a{6999} → 200"),
    ],
    "Methods and versions": [
        case("PROPFIND", get(method="PROPFIND"), "PROPFIND /x → 200"),
        case("QUERY", get("Content-Length: 1", method="QUERY") + b"q", 'QUERY /x; "q" → 200'),
        case(
            "a method that nobody knows",
            get(method="BREW"),
            "501",
            nginx="BREW /x → 200",
            haproxy="BREW /x → 200",
            why="parsers disagree about those that are in no registry (SPEC 2, RFC 9110 15.6.2)",
        ),
        case(
            "a method in lower case",
            get(method="get"),
            "501",
            nginx="400",
            haproxy="get /x → 200",
            why="methods are case-sensitive: it is an unknown one (SPEC 2, RFC 9110 9.1)",
        ),
        case("TRACE", get(method="TRACE"), "TRACE /x → 200", nginx="405"),
        case(
            "CONNECT",
            b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
            "405",
            nginx="400",
            haproxy="CONNECT a:80 → 200",
            why="no tunnels, and 405 says so (SPEC 2, RFC 9110 15.5.6)",
        ),
        case(
            "OPTIONS with Max-Forwards of 1",
            get("Max-Forwards: 1", method="OPTIONS"),
            "OPTIONS /x; max-forwards: 0 → 200",
            nginx="OPTIONS /x; max-forwards: 1 → 200",
            haproxy="OPTIONS /x; max-forwards: 1 → 200",
            why="must be counted down (RFC 9110 7.6.2)",
        ),
        case(
            "OPTIONS with Max-Forwards of 0",
            get("Max-Forwards: 0", method="OPTIONS"),
            "204",
            nginx="OPTIONS /x; max-forwards: 0 → 200",
            haproxy="OPTIONS /x; max-forwards: 0 → 200",
            why="must be answered here (RFC 9110 7.6.2)",
        ),
        case("HTTP/1.0", get(version="1.0"), "GET /x → 200; the end", haproxy="GET /x HTTP/1.0 → 200; the end"),
        case(
            "HTTP/1.0 with keep-alive",
            get("Connection: keep-alive", version="1.0"),
            "GET /x → 200",
            haproxy="GET /x HTTP/1.0 → 200",
        ),
        case(
            "HTTP/1.0 without Host",
            b"GET /x HTTP/1.0\r\n\r\n",
            "GET /x; host: the target's → 200; the end",
            nginx="GET /x; host: (none) → 200; the end",
            haproxy="GET /x HTTP/1.0; host: (none) → 200; the end",
            why="what is sent on is HTTP/1.1, which needs one (RFC 9112 3.2)",
        ),
        case("HTTP/1.2", get(version="1.2"), "GET /x → 200"),
        case("HTTP/2.0", get(version="2.0"), "505", haproxy="GET /x → 200"),
        case("an empty line before", b"\r\n" + get(), "GET /x → 200"),
        case(
            "two spaces in the request line",
            b"GET  /x HTTP/1.1\r\nHost: a\r\n\r\n",
            "400",
            nginx="GET /x → 200",
            haproxy="GET /x → 200",
            why="nothing is guessed (RFC 9112 3, security)",
        ),
        case(
            "lines that end with LF",
            b"GET /x HTTP/1.1\nHost: a\n\n",
            "400",
            nginx="GET /x → 200",
            haproxy="GET /x → 200",
            why="may be taken for the end of a line, need not (RFC 9112 2.2, security)",
        ),
    ],
    "Fields of requests": [
        case("an empty value", get("X-A:"), "GET /x; x-a: → 200"),
        case("white space around a value", get("X-A: \t b c \t"), "GET /x; x-a: b c → 200"),
        case(
            "fields with one name",
            get("X-A: 1", "x-b: 2", "x-A: 3, 4", "X-A: 1"),
            "GET /x; x-a: 1; x-a: 3, 4; x-a: 1; x-b: 2 → 200",
        ),
        case("a list with empty members", get("X-A: ,, a ,,b,"), "GET /x; x-a: ,, a ,,b, → 200"),
        case("obs-text", get("X-A: \xe9\x80\xff"), "GET /x; x-a: \\xe9\\x80\\xff → 200"),
        case("a tab within a value", get("X-A: a\tb"), "GET /x; x-a: a\\tb → 200"),
        case(
            "every character of a token",
            get("!#$%&'*+-.^_~0Aa: 1"),
            "GET /x; !#$%&'*+-.^_~0aa: 1 → 200",
            nginx="GET /x → 200",
        ),
        case("a name with an underscore", get("X_A: 1"), "GET /x; x_a: 1 → 200", nginx="GET /x → 200"),
        case(
            "a look-alike of X-Forwarded-For",
            get("X_Forwarded_For: 6.6.6.6"),
            "GET /x → 200",
            haproxy="GET /x; x_forwarded_for: 6.6.6.6 → 200",
        ),
        case("a long value", get("X-A: " + "a" * 7000), "GET /x; x-a: a{7000} → 200"),
        case("many fields", get(*["X-A: 1"] * 100), "GET /x; x-a: 1 (100 times) → 200", haproxy="400"),
        case("a folded line", get("X-A: 1", " 2"), "400", haproxy="GET /x; x-a: 1   2 → 200"),
        case("white space before a colon", get("X-A : 1"), "400"),
        case("no Host", b"GET /x HTTP/1.1\r\n\r\n", "400", haproxy="GET /x; host: (none) → 200"),
        case("two equal Hosts", get("Host: a"), "400", haproxy="GET /x → 200"),
        case(
            "a Host in upper case",
            b"GET /x HTTP/1.1\r\nHost: EXAMPLE.Test\r\n\r\n",
            "GET /x; host: EXAMPLE.Test → 200",
            nginx="GET /x; host: example.test → 200",
        ),
        case(
            "a Host with a comma",
            b"GET /x HTTP/1.1\r\nHost: a,b\r\n\r\n",
            "400",
            nginx="GET /x; host: a,b → 200",
            haproxy="GET /x; host: a,b → 200",
            why="might be two that somebody has joined (SPEC 2, security)",
        ),
        case(
            "Connection with several names",
            get("Connection: X-A, keep-alive , x-b", "X-A: 1", "X-B: 2", "X-C: 3"),
            "GET /x; x-c: 3 → 200",
            nginx="GET /x; x-a: 1; x-b: 2; x-c: 3 → 200",
            haproxy="GET /x; x-a: 1; x-b: 2; x-c: 3 → 200",
            why="all that it names must be removed (RFC 9110 7.6.1)",
        ),
        case(
            "Connection that names Host",
            get("Connection: Host, Cookie", "Cookie: a"),
            "GET /x → 200",
            nginx="GET /x; cookie: a → 200",
            haproxy="GET /x; cookie: a → 200",
            why="the same; Host cannot be named away (SPEC 2, RFC 9110 7.6.1)",
        ),
        case("Connection: close", get("Connection: close"), "GET /x → 200; the end"),
        case(
            "Keep-Alive and Proxy-Connection",
            get("Keep-Alive: timeout=5", "Proxy-Connection: keep-alive"),
            "GET /x → 200",
            nginx="GET /x; proxy-connection: keep-alive → 200",
            haproxy="GET /x; proxy-connection: keep-alive → 200",
            why="ends with the connection, too (RFC 9110 7.6.1)",
        ),
        case(
            "Proxy-Authorization",
            get("Proxy-Authorization: Basic YTpi"),
            "GET /x → 200",
            nginx="GET /x; proxy-authorization: Basic YTpi → 200",
            haproxy="GET /x; proxy-authorization: Basic YTpi → 200",
            why="ends here (SPEC 2, RFC 9110 11.7.2)",
        ),
        case(
            "Proxy",
            get("Proxy: http://evil.test"),
            "GET /x → 200",
            nginx="GET /x; proxy: http://evil.test → 200",
            haproxy="GET /x; proxy: http://evil.test → 200",
            why="CGI would take it for its own setting (SPEC 2, httpoxy)",
        ),
        case(
            "Authorization and cookies",
            get("Authorization: Basic YTpi", "Cookie: a=b", "Cookie: c=d"),
            "GET /x; authorization: Basic YTpi; cookie: a=b; cookie: c=d → 200",
        ),
        case(
            "X-Forwarded-For of a stranger",
            get("X-Forwarded-For: 6.6.6.6"),
            "GET /x; x-forwarded-for: 127.0.0.1 → 200",
            shows=("X-Forwarded-For",),
            nginx="GET /x; x-forwarded-for: 6.6.6.6 → 200",
            haproxy="GET /x; x-forwarded-for: 6.6.6.6 → 200",
            why="what a stranger says of itself is not believed (SPEC 2); the others leave it unless told to",
        ),
        case(
            "Forwarded of a stranger",
            get("Forwarded: for=6.6.6.6"),
            "GET /x → 200",
            nginx="GET /x; forwarded: for=6.6.6.6 → 200",
            haproxy="GET /x; forwarded: for=6.6.6.6 → 200",
            why="as with X-Forwarded-For (SPEC 2)",
        ),
        case(
            "Via",
            get("Via: 1.0 before"),
            "GET /x; via: 1.0 before; via: 1.1 proxyd → 200",
            shows=("Via",),
            nginx="GET /x; via: 1.0 before → 200",
            haproxy="GET /x; via: 1.0 before → 200",
            why="must be appended to (RFC 9110 7.6.3)",
        ),
        case(
            "TE: trailers",
            get("TE: trailers", "Connection: TE"),
            "GET /x; te: trailers → 200",
            nginx="GET /x → 200",
        ),
        case(
            "TE that Connection does not name",
            get("TE: trailers"),
            "GET /x → 200",
            haproxy="GET /x; te: trailers → 200",
        ),
        case("TE of a coding", get("TE: gzip", "Connection: TE"), "GET /x → 200"),
        case(
            "Upgrade to h2c",
            get("Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMA"),
            "GET /x → 200",
            shows=("Connection",),
            nginx="GET /x; connection: upgrade; http2-settings: AAMA; upgrade: h2c → 200",
            haproxy="GET /x; connection: http2-settings, upgrade; http2-settings: AAMA; upgrade: h2c → 200",
            why="a way past the rules (SPEC 2, RFC 9110 7.8, h2c smuggling)",
        ),
        case(
            "Upgrade to another protocol",
            get("Upgrade: irc/6.9", "Connection: Upgrade"),
            "GET /x → 200",
            shows=("Connection",),
            nginx="GET /x; connection: upgrade; upgrade: irc/6.9 → 200",
            haproxy="GET /x; connection: upgrade; upgrade: irc/6.9 → 200",
            why="only WebSocket is known here (SPEC 2, RFC 9110 7.8)",
        ),
        case(
            "Upgrade that Connection does not name",
            get("Upgrade: websocket"),
            "GET /x → 200",
            shows=("Connection",),
            nginx="GET /x; connection: upgrade; upgrade: websocket → 200",
            haproxy="GET /x; upgrade: websocket → 200",
            why="is to be ignored (RFC 9110 7.8)",
        ),
        case(
            "Expect of something else",
            get("Expect: miracles"),
            "GET /x; expect: miracles → 200",
            nginx="GET /x → 200",
        ),
    ],
    "Bodies of requests": [
        case("GET with a length of 0", get("Content-Length: 0"), 'GET /x; "" → 200'),
        case("POST without a length", get(method="POST"), "POST /x → 200"),
        case("GET with a body", get("Content-Length: 5") + b"hello", 'GET /x; "hello" → 200'),
        case("DELETE with a body", get("Content-Length: 5", method="DELETE") + b"hello", 'DELETE /x; "hello" → 200'),
        case(
            "GET in chunks",
            get(CHUNKED) + CHUNKS,
            'GET /x; "hello" in chunks → 200',
            nginx='GET /x; "hello" → 200',
        ),
        case(
            "POST in chunks",
            post(CHUNKED) + CHUNKS,
            'POST /x; "hello" in chunks → 200',
            nginx='POST /x; "hello" → 200',
        ),
        case(
            "a coding in upper case",
            post("Transfer-Encoding: CHUNKED") + CHUNKS,
            'POST /x; "hello" in chunks → 200',
            nginx='POST /x; "hello" → 200',
        ),
        case(
            "chunk sizes with leading zeros",
            post(CHUNKED) + b"0005\r\nhello\r\n00\r\n\r\n",
            'POST /x; "hello" in chunks → 200',
            nginx='POST /x; "hello" → 200',
        ),
        case(
            "chunk sizes in either case",
            post(CHUNKED) + b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
            'POST /x; "01234567890123456789" in chunks → 200',
            nginx='POST /x; "01234567890123456789" → 200',
        ),
        case(
            "chunk extensions",
            post(CHUNKED) + b'5;a;b=c;d="e;f"\r\nhello\r\n0;g\r\n\r\n',
            'POST /x; "hello" in chunks → 200',
            nginx='POST /x; "hello" → 200',
        ),
        case(
            "white space behind a chunk size",
            post(CHUNKED) + b"5 \r\nhello\r\n0\r\n\r\n",
            "400",
            nginx='POST /x; "hello" → 200',
            haproxy='POST /x; "hello" in chunks → 200',
            why="no grammar has it (RFC 9112 7.1, security)",
        ),
        case(
            "trailers",
            post(CHUNKED, "Trailer: X-T") + b"5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
            'POST /x; trailer: X-T; "hello" in chunks; trailer x-t: 1 → 200',
            nginx='POST /x; trailer: X-T; "hello" → 200',
        ),
        case(
            "trailers that are no trailers",
            post(CHUNKED) + b"5\r\nhello\r\n0\r\nHost: b\r\nCookie: c\r\n\r\n",
            'POST /x; "hello" in chunks → 200',
            nginx='POST /x; "hello" → 200',
            haproxy='POST /x; "hello" in chunks; trailer cookie: c; trailer host: b → 200',
            why="must not be taken for fields of the head (SPEC 2, RFC 9110 6.5.1, 6.5.2)",
        ),
        case(
            "chunks and a length",
            post(CHUNKED, "Content-Length: 5") + CHUNKS,
            "400",
            haproxy='POST /x; "hello" in chunks → 200; the end',
        ),
        case(
            "two equal lengths",
            post("Content-Length: 5", "Content-Length: 5") + b"hello",
            "400",
            haproxy='POST /x; "hello" → 200',
        ),
        case(
            "a list of equal lengths",
            post("Content-Length: 5, 5") + b"hello",
            "400",
            haproxy='POST /x; "hello" → 200',
        ),
        case(
            "a length with leading zeros",
            post("Content-Length: 005") + b"hello",
            "400",
            nginx='POST /x; "hello" → 200',
            haproxy='POST /x; "hello" → 200',
            why="some read it as octal (RFC 9112 11.2, security)",
        ),
        case(
            "chunks in HTTP/1.0",
            post(CHUNKED, version="1.0") + CHUNKS,
            "400",
            haproxy='POST /x HTTP/1.0; "hello" in chunks → 200; the end',
        ),
        case(
            "two codings",
            post("Transfer-Encoding: gzip, chunked") + CHUNKS,
            "400",
            nginx="501",
            haproxy="422",
            why="each refuses; 400 like all framing that is not understood (RFC 9112 6.1, 6.3)",
        ),
        case(
            "Expect: 100-continue",
            post("Expect: 100-continue", "Content-Length: 5") + b"hello",
            'POST /x; expect: 100-continue; "hello" → 100 Continue, 200',
            nginx='POST /x; "hello" → 100 Continue, 200',
        ),
        case(
            "Expect in HTTP/1.0",
            post("Expect: 100-continue", "Content-Length: 5", version="1.0") + b"hello",
            'POST /x; expect: 100-continue; "hello" → 200; the end',
            nginx='POST /x; "hello" → 200; the end',
            haproxy='POST /x HTTP/1.0; expect: 100-continue; "hello" → 100 Continue, 200; the end',
            why="no 1xx to HTTP/1.0 (RFC 9110 15.2); the body goes on in any case",
        ),
        case(
            "Expect without a body",
            get("Expect: 100-continue"),
            "GET /x; expect: 100-continue → 100 Continue, 200",
            nginx="GET /x → 100 Continue, 200",
        ),
    ],
    "Status lines and interim answers": [
        case("no reason", get(), "GET /x → 200", answer=respond("Content-Length: 2", status="200 ", body="ok")),
        case(
            "neither reason nor space",
            get(),
            "GET /x → 200",
            answer=respond("Content-Length: 2", status="200", body="ok"),
        ),
        case(
            "another reason",
            get(),
            "GET /x → 200 Fine \\xe9",
            answer=respond("Content-Length: 2", status="200 Fine \xe9", body="ok"),
        ),
        case(
            "status 299",
            get(),
            "GET /x → 299 Odd",
            answer=respond("Content-Length: 2", status="299 Odd", body="ok"),
        ),
        case(
            "status 599",
            get(),
            "GET /x → 599 Odd",
            answer=respond("Content-Length: 2", status="599 Odd", body="ok"),
        ),
        case(
            "status 799",
            get(),
            "GET /x → 799 Odd",
            answer=respond("Content-Length: 2", status="799 Odd", body="ok"),
        ),
        case(
            "status 451",
            get(),
            'GET /x → 451 Unavailable For Legal Reasons; link: <http://a>; rel=blocked-by; ""',
            answer=respond(
                "Link: <http://a>; rel=blocked-by", "Content-Length: 0", status="451 Unavailable For Legal Reasons"
            ),
        ),
        case(
            "a 100 that nobody asked for",
            get(),
            "GET /x → 100 Continue, 200",
            answer=b"HTTP/1.1 100 Continue\r\n\r\n" + ANSWER,
        ),
        case("a 103", get(), "GET /x → 103 Early Hints; link: </a>, 200", answer=HINTS + ANSWER),
        case(
            "several interim answers",
            get(),
            "GET /x → 103 Early Hints; link: </a>, 102 Processing, 103 Early Hints; link: </a>, 200",
            answer=HINTS + b"HTTP/1.1 102 Processing\r\n\r\n" + HINTS + ANSWER,
        ),
        case(
            "a 103 to HTTP/1.0",
            get(version="1.0"),
            "GET /x → 200; the end",
            answer=HINTS + ANSWER,
            nginx="GET /x → 103 Early Hints; link: </a>, 200",
            haproxy="GET /x HTTP/1.0 → 103 Early Hints; link: </a>, 200; the end",
            why="no 1xx to HTTP/1.0 (SPEC 2, RFC 9110 15.2)",
        ),
        case(
            "a 101 that nobody asked for",
            get(),
            "GET /x → 502",
            answer=respond("Upgrade: x", "Connection: Upgrade", status="101 Switching Protocols"),
            end=True,
            nginx="GET /x → 101 Switching Protocols; upgrade: x",
        ),
        case(
            "an answer in HTTP/1.0",
            get(),
            "GET /x → 200",
            answer=b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
            end=True,
        ),
        case(
            "an answer in HTTP/1.2",
            get(),
            "GET /x → 200",
            answer=b"HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        case(
            "lines of an answer that end with LF",
            get(),
            "GET /x → 502",
            answer=b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
            end=True,
            nginx="GET /x → 200",
            haproxy="GET /x → 200",
            why="may be taken for the end of a line, need not (RFC 9112 2.2, security)",
        ),
    ],
    "Fields of answers": [
        case(
            "cookies",
            get(),
            "GET /x → 200; set-cookie: a=1; set-cookie: b=2; Path=/; set-cookie: a=1",
            answer=respond(
                "Set-Cookie: a=1", "Set-Cookie: b=2; Path=/", "Set-Cookie: a=1", "Content-Length: 2", body="ok"
            ),
        ),
        case(
            "a list in two lines",
            get(),
            "GET /x → 200; vary: a; vary: b, c",
            answer=respond("Vary: a", "Vary: b, c", "Content-Length: 2", body="ok"),
        ),
        case(
            "Location of the origin server",
            get(),
            'GET /x → 302 Found; location: http://127.0.0.1:1/x; ""',
            answer=respond("Location: http://127.0.0.1:1/x", "Content-Length: 0", status="302 Found"),
        ),
        case(
            "a relative Location",
            get(),
            'GET /x → 302 Found; location: ../x; ""',
            answer=respond("Location: ../x", "Content-Length: 0", status="302 Found"),
        ),
        case(
            "Date",
            get(),
            "GET /x → 200; date: Thu, 01 Jan 1970 00:00:00 GMT",
            answer=respond("Date: Thu, 01 Jan 1970 00:00:00 GMT", "Content-Length: 2", body="ok"),
            shows=("Date",),
            nginx="GET /x → 200; date: now",
        ),
        case("no Date", get(), "GET /x → 200; date: now", shows=("Date",), haproxy="GET /x → 200"),
        case(
            "Server",
            get(),
            "GET /x → 200; server: theirs",
            answer=respond("Server: theirs", "Content-Length: 2", body="ok"),
            shows=("Server",),
            nginx="GET /x → 200; server: its own",
        ),
        case(
            "Via of an answer",
            get(),
            "GET /x; via: 1.1 proxyd → 200; via: 1.0 before",
            answer=respond("Via: 1.0 before", "Content-Length: 2", body="ok"),
            shows=("Via",),
            nginx="GET /x → 200; via: 1.0 before",
            haproxy="GET /x → 200; via: 1.0 before",
            why="ours is on requests; on answers a gateway need not add one (SPEC 2, RFC 9110 7.6.3)",
        ),
        case(
            "an empty value and obs-text",
            get(),
            "GET /x → 200; x-a:; x-b: \\xe9",
            answer=respond("X-A:", "X-B: \xe9", "Content-Length: 2", body="ok"),
        ),
        case(
            "a name with an underscore in an answer",
            get(),
            "GET /x → 200; x_a: 1",
            answer=respond("X_A: 1", "Content-Length: 2", body="ok"),
        ),
        case(
            "Connection of an answer with several names",
            get(),
            "GET /x → 200",
            answer=respond(
                "Connection: X-A, keep-alive", "X-A: 1", "Keep-Alive: timeout=5", "Content-Length: 2", body="ok"
            ),
            nginx="GET /x → 200; x-a: 1",
            haproxy="GET /x → 200; x-a: 1",
            why="all that it names must be removed (RFC 9110 7.6.1)",
        ),
        case(
            "Connection: close of an answer",
            get(),
            "GET /x → 200",
            answer=respond("Connection: close", "Content-Length: 2", body="ok"),
            end=True,
        ),
        case(
            "Upgrade of an answer",
            get(),
            "GET /x → 200",
            answer=respond("Upgrade: h2c", "Connection: Upgrade", "Content-Length: 2", body="ok"),
            shows=("Connection",),
            nginx="GET /x → 200; upgrade: h2c",
            haproxy="GET /x → 200; connection: upgrade; upgrade: h2c",
            why="is for one connection, and not what is served here (RFC 9110 7.8)",
        ),
        case(
            "Proxy-Authenticate",
            get(),
            'GET /x → 407 X; ""',
            answer=respond("Proxy-Authenticate: Basic", "Content-Length: 0", status="407 X"),
            nginx='GET /x → 407 X; proxy-authenticate: Basic; ""',
            haproxy='GET /x → 407 X; proxy-authenticate: Basic; ""',
            why="is for the hop that it was sent to (SPEC 2, RFC 9110 11.7.1)",
        ),
        case(
            "a folded line in an answer",
            get(),
            "GET /x → 502",
            answer=respond("X-A: 1", " 2", "Content-Length: 2", body="ok"),
            haproxy="GET /x → 200; x-a: 1   2",
        ),
        case(
            "white space before a colon in an answer",
            get(),
            "GET /x → 502",
            answer=respond("X-A : 1", "Content-Length: 2", body="ok"),
        ),
        case(
            "a long value in an answer",
            get(),
            "GET /x → 200; x-a: a{3000}",
            answer=b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 3000 + b"\r\nContent-Length: 2\r\n\r\nok",
        ),
    ],
    "Bodies of answers": [
        case(
            "a 204 with fields",
            get(),
            'GET /x → 204 No Content; content-type: text/plain; etag: "a"',
            answer=respond('ETag: "a"', "Content-Type: text/plain", status="204 No Content"),
        ),
        case(
            "a 204 with a length",
            get(),
            "GET /x → 204 No Content",
            answer=respond("Content-Length: 0", status="204 No Content"),
            nginx="GET /x → 204 No Content; content-length: 0",
        ),
        case(
            "a 304 with fields",
            get(),
            'GET /x → 304 Not Modified; content-length: 5; etag: "a"',
            answer=respond('ETag: "a"', "Content-Length: 5", status="304 Not Modified"),
        ),
        case(
            "a 205 with a body",
            get(),
            'GET /x → 205 Reset Content; "x"',
            answer=respond("Content-Length: 1", status="205 Reset Content", body="x"),
        ),
        case("HEAD", get(method="HEAD"), "HEAD /x → 200; content-length: 5", answer=respond("Content-Length: 5")),
        case(
            "HEAD of chunks",
            get(method="HEAD"),
            "HEAD /x → 200",
            answer=respond("Transfer-Encoding: chunked"),
            haproxy="HEAD /x → 200; transfer-encoding: chunked",
        ),
        case(
            "a body up to the end",
            get(),
            'GET /x → 200; "hello" in chunks',
            answer=respond(body="hello"),
            end=True,
            haproxy='GET /x → 200; "hello" until the end; the end',
        ),
        case(
            "a body up to the end, to HTTP/1.0",
            get(version="1.0"),
            'GET /x → 200; "hello" until the end; the end',
            answer=respond(body="hello"),
            end=True,
            haproxy='GET /x HTTP/1.0 → 200; "hello" until the end; the end',
        ),
        case(
            "chunks",
            get(),
            'GET /x → 200; "hello" in chunks',
            answer=respond("Transfer-Encoding: chunked") + CHUNKS,
        ),
        case(
            "chunks to HTTP/1.0",
            get(version="1.0"),
            'GET /x → 200; "hello" until the end; the end',
            answer=respond("Transfer-Encoding: chunked") + CHUNKS,
            haproxy='GET /x HTTP/1.0 → 200; "hello" in chunks; the end',
        ),
        case(
            "chunks with extensions and zeros",
            get(),
            'GET /x → 200; "hello" in chunks',
            answer=respond("Transfer-Encoding: chunked", body="005;a=b\r\nhello\r\n000;c\r\n\r\n"),
        ),
        case(
            "chunks with trailers",
            get("TE: trailers", "Connection: TE"),
            'GET /x; te: trailers → 200; trailer: X-T; "hello" in chunks; trailer x-t: 1',
            answer=respond("Transfer-Encoding: chunked", "Trailer: X-T", body="5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"),
            nginx='GET /x → 200; trailer: X-T; "hello" in chunks',
        ),
        case(
            "trailers that nobody asked for",
            get(),
            'GET /x → 200; "hello" in chunks; trailer x-t: 1',
            answer=respond("Transfer-Encoding: chunked", body="5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"),
            nginx='GET /x → 200; "hello" in chunks',
        ),
        case(
            "a trailer that sets a cookie",
            get(),
            'GET /x → 200; "hello" in chunks',
            answer=respond("Transfer-Encoding: chunked", body="5\r\nhello\r\n0\r\nSet-Cookie: a=b\r\n\r\n"),
            haproxy='GET /x → 200; "hello" in chunks; trailer set-cookie: a=b',
        ),
        case(
            "Content-Encoding",
            get("Accept-Encoding: gzip"),
            'GET /x; accept-encoding: gzip → 200; content-encoding: gzip; "\\x1f\\x8b\\x08\\x00"',
            answer=respond("Content-Encoding: gzip", "Content-Length: 4", body="\x1f\x8b\x08\x00"),
        ),
        case(
            "a length and chunks",
            get(),
            "GET /x → 502",
            answer=respond("Content-Length: 5", "Transfer-Encoding: chunked") + CHUNKS,
            end=True,
            nginx='GET /x → 200; "hello" in chunks',
            haproxy='GET /x → 200; "hello" in chunks',
            why="ought to be handled as an error (RFC 9112 6.3, security)",
        ),
        case(
            "two equal lengths in an answer",
            get(),
            "GET /x → 502",
            answer=respond("Content-Length: 2", "Content-Length: 2", body="ok"),
            end=True,
            nginx="GET /x → 200",
            haproxy="GET /x → 200",
            why="may be joined, need not (RFC 9112 6.3, security)",
        ),
        case(
            "a body that breaks off",
            get(),
            "GET /x → a part of an answer",
            answer=respond("Content-Length: 5", body="hel"),
            end=True,
        ),
        case(
            "chunks that break off",
            get(),
            "GET /x → a part of an answer",
            answer=respond("Transfer-Encoding: chunked", body="5\r\nhel"),
            end=True,
        ),
        case(
            "chunks that break off, to HTTP/1.0",
            get(version="1.0"),
            "GET /x → a part of an answer",
            answer=respond("Transfer-Encoding: chunked", body="5\r\nhel"),
            end=True,
            nginx='GET /x → 200; "hel" until the end; the end',
            haproxy="GET /x HTTP/1.0 → a part of an answer",
            why="only a reset tells HTTP/1.0 that it is not whole (SPEC 2, RFC 9112 8)",
        ),
        case("no answer", get(), "GET /x → 502", answer=b"", end=True),
    ],
    "WebSockets": [
        case(
            "an upgrade",
            upgrade(),
            "GET /x; connection: upgrade; sec-websocket-version: 13; upgrade: websocket"
            " → 101 Switching Protocols; connection: upgrade; sec-websocket-accept: right; upgrade: websocket",
            answer=switch(),
            shows=("Connection", "Sec-WebSocket-Version"),
        ),
        case(
            "the key of an upgrade",
            upgrade(),
            "GET /x; sec-websocket-key: another; upgrade: websocket"
            " → 101 Switching Protocols; sec-websocket-accept: right; upgrade: websocket",
            answer=switch(),
            shows=("Sec-WebSocket-Key",),
            nginx="GET /x; sec-websocket-key: as sent; upgrade: websocket"
            " → 101 Switching Protocols; sec-websocket-accept: right; upgrade: websocket",
            haproxy="GET /x; sec-websocket-key: as sent; upgrade: websocket"
            " → 101 Switching Protocols; sec-websocket-accept: right; upgrade: websocket",
            why="each connection has its own nonce (RFC 6455 4.1)",
        ),
        case(
            "tokens in a list",
            upgrade("Upgrade: h2c, WebSocket", "Connection: keep-alive, UPGRADE"),
            "GET /x; connection: upgrade; upgrade: websocket"
            " → 101 Switching Protocols; connection: upgrade; sec-websocket-accept: right; upgrade: websocket",
            answer=switch(),
            shows=("Connection",),
            nginx="GET /x; connection: upgrade; upgrade: h2c, WebSocket"
            " → 101 Switching Protocols; connection: upgrade; sec-websocket-accept: right; upgrade: websocket",
            haproxy="GET /x; connection: upgrade; upgrade: h2c, WebSocket"
            " → 101 Switching Protocols; connection: upgrade; sec-websocket-accept: right; upgrade: websocket",
            why="only WebSocket is asked for (SPEC 2, RFC 9110 7.8)",
        ),
        case(
            "an upgrade with a subprotocol",
            upgrade(*UPGRADE, "Sec-WebSocket-Protocol: a, b", "Sec-WebSocket-Protocol: c"),
            "GET /x; sec-websocket-protocol: a, b; sec-websocket-protocol: c; upgrade: websocket"
            " → 101 Switching Protocols; sec-websocket-accept: right; sec-websocket-protocol: b; set-cookie: a=b;"
            " upgrade: websocket",
            answer=switch("Sec-WebSocket-Protocol: b", "Set-Cookie: a=b"),
        ),
        case(
            "a subprotocol that nobody offered",
            upgrade(*UPGRADE, "Sec-WebSocket-Protocol: a"),
            "GET /x; sec-websocket-protocol: a; upgrade: websocket → 502",
            answer=switch("Sec-WebSocket-Protocol: b"),
            nginx="GET /x; sec-websocket-protocol: a; upgrade: websocket"
            " → 101 Switching Protocols; sec-websocket-accept: right; sec-websocket-protocol: b; upgrade: websocket",
            haproxy="GET /x; sec-websocket-protocol: a; upgrade: websocket"
            " → 101 Switching Protocols; sec-websocket-accept: right; sec-websocket-protocol: b; upgrade: websocket",
            why="a client would have to fail it (SPEC 3, RFC 6455 4.1)",
        ),
        case(
            "an extension that nobody knows",
            upgrade(*UPGRADE, "Sec-WebSocket-Extensions: x-odd; a=1, permessage-deflate"),
            "GET /x; sec-websocket-extensions: x-odd; a=1, permessage-deflate; upgrade: websocket"
            " → 101 Switching Protocols; sec-websocket-accept: right; sec-websocket-extensions: x-odd; a=2;"
            " upgrade: websocket",
            answer=switch("Sec-WebSocket-Extensions: x-odd; a=2"),
        ),
        case(
            "a 101 with a wrong Accept",
            upgrade(),
            "GET /x; upgrade: websocket → 502",
            answer=switch(accept="AAAA"),
            nginx="GET /x; upgrade: websocket"
            " → 101 Switching Protocols; sec-websocket-accept: wrong; upgrade: websocket",
            haproxy="GET /x; upgrade: websocket"
            " → 101 Switching Protocols; sec-websocket-accept: wrong; upgrade: websocket",
            why="a client would have to fail it (SPEC 3, RFC 6455 4.1)",
        ),
        case(
            "a 101 in other letters",
            upgrade(),
            "GET /x; upgrade: websocket → 101 Fine; sec-websocket-accept: right; upgrade: websocket",
            answer=respond(
                "UPGRADE: WebSocket", "connection: UPGRADE", "sec-websocket-accept: ACCEPT", status="101 Fine"
            ),
            nginx="GET /x; upgrade: websocket → 101 Fine; sec-websocket-accept: right; upgrade: WebSocket",
            haproxy="GET /x; upgrade: websocket → 101 Fine; sec-websocket-accept: right; upgrade: WebSocket",
            why="fields of this connection are our own (RFC 9110 7.6.1, 7.8)",
        ),
        case(
            "a refusal with a body",
            upgrade(),
            'GET /x; upgrade: websocket → 403 Forbidden; x-a: 1; "no"',
            answer=respond("X-A: 1", "Content-Length: 2", status="403 Forbidden", body="no"),
        ),
        case(
            "a refusal up to the end",
            upgrade(),
            'GET /x; upgrade: websocket → 401 Unauthorized; www-authenticate: Odd; "no" in chunks',
            answer=respond("WWW-Authenticate: Odd", status="401 Unauthorized", body="no"),
            end=True,
            haproxy='GET /x; upgrade: websocket → 401 Unauthorized; www-authenticate: Odd; "no" until the end; the end',
        ),
        case("a 200 instead of 101", upgrade(), "GET /x; upgrade: websocket → 200"),
        case(
            "an unknown version",
            upgrade(version="8"),
            "GET /x; sec-websocket-version: 8; upgrade: websocket"
            ' → 426 Upgrade Required; sec-websocket-version: 13; ""',
            answer=respond("Sec-WebSocket-Version: 13", "Content-Length: 0", status="426 Upgrade Required"),
            shows=("Sec-WebSocket-Version",),
        ),
        case(
            "a refusal that asks for an upgrade",
            get(),
            'GET /x → 426 Upgrade Required; connection: upgrade; upgrade: websocket; ""',
            answer=respond(
                "Upgrade: websocket", "Connection: Upgrade", "Content-Length: 0", status="426 Upgrade Required"
            ),
            shows=("Connection",),
            nginx='GET /x → 426 Upgrade Required; upgrade: websocket; ""',
            haproxy="GET /x"
            ' → 426 Upgrade Required; connection: upgrade; sec-websocket-accept: wrong; upgrade: websocket; ""',
            why="says what a 426 must, as our own (RFC 9110 15.5.22)",
        ),
        case(
            "an upgrade without a key",
            get(*UPGRADE, "Sec-WebSocket-Version: 13"),
            "GET /x → 200",
            shows=("Connection",),
            nginx="GET /x; connection: upgrade; upgrade: websocket → 200",
            haproxy="400",
            why="is none, and plain (SPEC 3, RFC 6455 4.2.1)",
        ),
        case(
            "an upgrade by POST",
            upgrade(method="POST"),
            "POST /x → 200",
            shows=("Connection",),
            nginx="POST /x; connection: upgrade; upgrade: websocket → 200",
            haproxy="POST /x; connection: upgrade; upgrade: websocket → 200",
            why="is none, and plain (SPEC 3, RFC 6455 4.2.1)",
        ),
        case(
            "an upgrade in HTTP/1.0",
            upgrade(http="1.0"),
            "GET /x → 200; the end",
            shows=("Connection",),
            nginx="GET /x; connection: upgrade; upgrade: websocket → 200; the end",
            haproxy="GET /x HTTP/1.0; connection: upgrade; upgrade: websocket → 200; the end",
            why="is none, and plain (SPEC 3, RFC 9110 7.8)",
        ),
        case(
            "an upgrade with a body",
            upgrade(*UPGRADE, "Content-Length: 5") + b"hello",
            'GET /x; "hello" → 200',
            shows=("Connection",),
            nginx='GET /x; connection: upgrade; upgrade: websocket; "hello" → 200',
            haproxy='GET /x; connection: upgrade; "hello" → 200',
            why="is none, and plain (SPEC 3, RFC 6455 4.2.1)",
        ),
    ],
}
"""The cases, by what they are about."""


def table() -> str:
    """The cases as docs/conformance.md shows them."""
    lines = []
    for title, cases in CASES.items():
        lines += [f"### {title}", ""]
        lines += ["| case | agrees with | proxyd | nginx | HAProxy | why |", "|---|---|---|---|---|---|"]
        for one in cases:
            ours = one.outcomes["proxyd"]
            others = ["same" if one.outcomes[who] == ours else _code(one.outcomes[who]) for who in ("nginx", "haproxy")]
            cells = [one.name, one.agrees_with, _code(ours), *others, one.why]
            lines.append("| " + " | ".join(cells).rstrip() + (" |" if one.why else "|"))
        lines.append("")
    return "\n".join(lines)


def _code(text: str) -> str:
    """As code within a table."""
    fence = "``" if "`" in text else "`"
    return fence + text.replace("|", "\\|") + fence
