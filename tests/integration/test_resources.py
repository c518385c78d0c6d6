"""Ordinary Resources are served by proxyd as a stock C{twisted.web} Site serves them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.proxy import Output
from tests.support.wire import Message, Wire

LIMIT = 1000000
"""The C{limits.body} of proxyd here."""


class _Sites(NamedTuple):
    """
    The ports of the same tree.

    @ivar stock: by a stock Site.
    @ivar proxyd: by proxyd, beside its rules.
    @ivar plain: by proxyd, without any.
    @ivar gate: by proxyd, with an ordinary root in front of the rules.
    """

    stock: int
    proxyd: int
    plain: int
    gate: int


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Sites]:
    """All the sites, in one process."""
    folder = tmp_path_factory.mktemp("sites")
    file = folder / "file.txt"
    file.write_bytes(bytes(range(256)) * 1000)
    os.utime(file, (1600000000, 1600000000))
    (folder / "folder").mkdir()
    (folder / "folder" / "index.html").write_text("<p>index")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.sites", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=Path(__file__).parents[2],
    )
    output = Output(process)
    (found,) = output.wait_for(r"ports (\d+) (\d+) (\d+) (\d+)")
    yield _Sites(*map(int, found.groups()))
    process.kill()
    process.wait()
    text = output.join()
    process.stdout.close()
    # What fails on purpose is a ZeroDivisionError.
    assert text.count("Traceback") == text.count("ZeroDivisionError: on purpose"), text


@pytest.fixture(params=["stock", "proxyd"])
def site(request: pytest.FixtureRequest, sites: _Sites) -> int:
    """The port of each of the two, for what is said of both."""
    port: int = getattr(sites, request.param)
    return port


def ask(port: int, *requests: str) -> list[Message]:
    """
    Send requests on one connection, all at once.

    @return: the answers, without the fields that differ between any two servers.
    """
    with Wire.to(port) as wire:
        wire.send("".join(requests))
        messages = []
        for one in requests:
            message = wire.read_message(bodiless=one.startswith("HEAD"))
            while message.status == 100:
                messages.append(message)
                message = wire.read_message(bodiless=one.startswith("HEAD"))
            fields = [field for field in message.fields if field[0] not in ("Date", "Connection")]
            messages.append(message._replace(fields=fields))
        return messages


def get(path: str, *fields: str, method: str = "GET", version: str = "1.1", body: str = "") -> str:
    """A request."""
    lines = [f"{method} {path} HTTP/{version}", "Host: example.test", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", body])


MULTIPART = (
    '--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    '--b\r\nContent-Disposition: form-data; name="f"; filename="f.txt"\r\n'
    "Content-Type: text/plain\r\n\r\nfile\r\n--b--\r\n"
)
FORM = "Content-Type: application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(get("/static/file.txt"), id="file"),
        pytest.param(get("/static/file.txt", method="HEAD"), id="head of a file"),
        pytest.param(get("/static/file.txt", "Range: bytes=10-19"), id="range"),
        pytest.param(get("/static/file.txt", "Range: bytes=-5"), id="range at the end"),
        pytest.param(get("/static/file.txt", "Range: bytes=999999-"), id="range beyond the end"),
        pytest.param(
            get("/static/file.txt", "If-Modified-Since: Sun, 13 Sep 2020 12:26:40 GMT"), id="not modified"
        ),
        pytest.param(get("/static/file.txt", "If-Modified-Since: Sat, 12 Sep 2020 12:26:40 GMT"), id="modified"),
        pytest.param(get("/static/none.txt"), id="no such file"),
        pytest.param(get("/static/folder"), id="folder without a slash"),
        pytest.param(get("/static/folder/"), id="index"),
        pytest.param(get("/static/folder/", method="HEAD"), id="head of an index"),
        pytest.param(get("/missing"), id="404"),
        pytest.param(get("/getting/no/child"), id="no child"),
        pytest.param(get("/echo/a//b%2Fc?x=1&x=2&y=&z=%20+"), id="path and query"),
        pytest.param(get("/echo/", "X-A: 1", "x-a: 2", "Cookie: a=1; b=2"), id="fields"),
        pytest.param(get("/echo/", "Authorization: Basic dTpw"), id="user"),
        pytest.param(get("/echo/", FORM, method="POST", body="a=1&a=2&b=%C3%A4+"), id="form"),
        pytest.param(get("/echo/?a=0", FORM, method="POST", body="a=1"), id="form with a query"),
        pytest.param(
            get("/echo/", "Content-Type: multipart/form-data; boundary=b", method="POST", body=MULTIPART),
            id="multipart",
        ),
        pytest.param(get("/echo/", "Content-Type: text/plain", method="POST", body="b" * 300000), id="large body"),
        pytest.param(get("/echo/", method="PUT", body="put"), id="put"),
        pytest.param(
            get("/echo/", "Transfer-Encoding: chunked", FORM, method="POST") + "3\r\na=1\r\n4\r\n&b=2\r\n0\r\n\r\n",
            id="chunked form",
        ),
        pytest.param(get("/echo/", "Expect: 100-continue", FORM, method="POST", body="a=1"), id="100-continue"),
        pytest.param(get("/getting"), id="get"),
        pytest.param(get("/getting", method="HEAD"), id="head of what only knows get"),
        pytest.param(get("/getting", method="POST", body="x"), id="405"),
        pytest.param(get("/getting", method="PATCH", body="x"), id="501 by the Resource"),
        pytest.param(get("/redirect"), id="redirect"),
        pytest.param(get("/cookie"), id="cookies"),
        pytest.param(get("/zipped", "Accept-Encoding: gzip"), id="gzip"),
        pytest.param(get("/zipped"), id="no gzip"),
        pytest.param(get("/unfinished"), id="unknown length"),
        pytest.param(get("/unfinished", method="HEAD"), id="head of unknown length"),
        pytest.param(get("/nothing", method="HEAD"), id="no octets to head"),
        pytest.param(get("/fails"), id="render fails"),
        pytest.param(get("/fails", method="POST", body="x"), id="render of a body fails"),
        pytest.param(get("/status/204"), id="204"),
        pytest.param(get("/status/304"), id="304"),
        pytest.param(get("/status/404"), id="404 with a body"),
        pytest.param(get("/finishes"), id="notifyFinish"),
        pytest.param(get("*", method="OPTIONS"), id="asterisk"),
    ],
)
def test_as_stock(sites: _Sites, request_: str) -> None:
    """The same answer, octet for octet, on a connection that is kept: a second request follows each."""
    stock = ask(sites.stock, request_, get("/echo/next"))
    # With the rules as the root this one is proxyd's own to answer.
    port = sites.plain if request_.startswith("OPTIONS *") else sites.proxyd
    assert ask(port, request_, get("/echo/next")) == stock


def test_first_version(site: int) -> None:
    """An answer to HTTP/1.0 has no chunks; it ends with the connection."""
    with Wire.to(site) as wire:
        wire.send("GET /unfinished HTTP/1.0\r\n\r\n")
        message = wire.read_message()
        assert (message.get("Transfer-Encoding"), message.body) == (None, b"one two three")


def test_expect_before_the_body(site: int) -> None:
    """Who waits for a 100 gets it before the body is there."""
    with Wire.to(site) as wire:
        wire.send(get("/echo/", "Expect: 100-continue", "Content-Length: 3", FORM, method="POST"))
        assert wire.read_message().status == 100
        wire.send("a=1")
        assert json.loads(wire.read_message().body)["args"] == {"a": ["1"]}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_failing_child(sites: _Sites, method: str) -> None:
    """A getChild that fails is a 500, and costs only its request."""
    with Wire.to(sites.proxyd) as wire:
        wire.send(get("/failing/x", method=method, body="x" if method == "POST" else ""))
        message = wire.read_message()
        assert message.status == 500
        assert b"ZeroDivisionError" not in message.body
        if method == "GET":
            wire.send(get("/getting"))
            assert wire.read_message().body == b"got"


def test_malformed_form(sites: _Sites) -> None:
    """A multipart body that is none is a 400 and the connection's end."""
    with Wire.to(sites.proxyd) as wire:
        wire.send(get("/echo/", "Content-Type: multipart/form-data", method="POST", body="x"))
        message = wire.read_message()
        assert (message.status, message.get("Connection")) == (400, "close")
        wire.assert_ended()


def test_session(site: int) -> None:
    """A session is found again by its cookie."""
    with Wire.to(site) as wire:
        wire.send(get("/session"))
        first = wire.read_message()
        cookie = (first.get("Set-Cookie") or "").partition(";")[0]
        assert (first.body, cookie.partition("=")[0]) == (b"1", "TWISTED_SESSION")
        wire.send(get("/session", f"Cookie: {cookie}"))
        assert wire.read_message().body == b"2"


def test_on_the_way(site: int) -> None:
    """A getChild may look at the query and at the session, and set fields of the answer."""
    (message,) = ask(site, get("/meeting/x?a=1&a=2"))
    assert (message.body, message.get("X-Met"), len(message.all("Set-Cookie"))) == (b"x", "2", 1)


def test_pipelining_behind_not_done_yet(site: int) -> None:
    """What was sent behind an unfinished request is answered after it, in order."""
    with Wire.to(site) as wire, Wire.to(site) as other:
        wire.send(get("/later") + get("/getting") + get("/echo/", method="POST", body="x") + get("/later"))
        other.send(get("/events/none"))
        wire.assert_silent()
        for expected in (b"at last", b"got", None, b"at last"):
            if expected == b"at last":
                _release(site)
            body = wire.read_message().body
            assert body == expected if expected else json.loads(body)["method"] == "POST"


def _release(port: int) -> None:
    """Let one unfinished request finish, which may not have come yet."""
    with Wire.to(port) as wire:
        while True:
            wire.send(get("/later/release"))
            if wire.read_message().body != b"0":
                return


def test_client_goes_away(site: int) -> None:
    """notifyFinish says that the client has gone."""
    with Wire.to(site) as wire, Wire.to(site) as other:
        wire.send(get("/waits"))
        assert happened(other, "waiting") == b""
        wire.close()
        assert happened(other, "lost") == b"Failure"
        with Wire.to(site) as wire:
            wire.send(get("/finishes"))
            assert wire.read_message().body == b"done"
        assert happened(other, "finished") == b"NoneType"


def happened(wire: Wire, event: str) -> bytes:
    """Wait for an event in the sites' process."""
    wire.send(get(f"/events/{event}"))
    return wire.read_message().body


@pytest.mark.parametrize("kind", ["pushes", "pulls"])
def test_slow_client(site: int, kind: str) -> None:
    """A producer is paused by a client that reads slowly; nothing is lost."""
    with Wire.to(site) as wire, Wire.to(site) as other:
        wire.send(get(f"/{kind}") + get("/getting"))
        assert happened(other, "paused") == b""
        body = wire.read_message().body
        if kind == "pushes":
            payload, _, written = body.partition(b"|")
            assert (len(payload), payload.strip(b"x")) == (int(written), b"")
        else:
            assert (len(body), body.strip(b"x")) == (321 * 65536, b"")
        assert wire.read_message().body == b"got"


@pytest.mark.parametrize("kind", ["pushes", "pulls"])
def test_client_of_a_producer_goes_away(site: int, kind: str) -> None:
    """A producer is stopped when the client has gone."""
    with Wire.to(site) as wire, Wire.to(site) as other:
        wire.send(get(f"/{kind}"))
        assert happened(other, "paused") == b""
        wire.reset()
        assert happened(other, "stopped") == b""


def test_producer_that_cannot_be_stopped(sites: _Sites) -> None:
    """An exception in stopProducing is logged, and keeps nothing from ending."""
    with Wire.to(sites.proxyd) as wire, Wire.to(sites.proxyd) as other:
        wire.send(get("/pushes/badly"))
        assert happened(other, "paused") == b""
        wire.reset()
        assert happened(other, "gone") == b"Failure"


@pytest.mark.parametrize("how", ["lose", "lose/transport", "finish"])
def test_resource_ends_the_connection(site: int, how: str) -> None:
    """What was written before loseConnection arrives."""
    with Wire.to(site) as wire:
        wire.send(get(f"/partly/{how}"))
        assert wire.read_head().get("Content-Length") == "1000"
        assert wire.read_all() == b"y" * 100


def test_resource_cuts_the_connection(site: int) -> None:
    """abortConnection resets it."""
    with Wire.to(site) as wire:
        wire.send(get("/partly/abort"))
        wire.assert_cut()


def test_client_closes(site: int) -> None:
    """A client that sends Connection: close has it."""
    with Wire.to(site) as wire:
        wire.send(get("/getting", "Connection: close"))
        message = wire.read_message()
        assert (message.body, message.get("Connection")) == (b"got", "close")
        wire.assert_ended()


# Where proxyd has an answer of its own


def test_resource_closes(sites: _Sites) -> None:
    """A Resource that sets Connection: close has it; a stock Site goes on nonetheless."""
    with Wire.to(sites.proxyd) as wire:
        wire.send(get("/closing") + get("/getting"))
        message = wire.read_message()
        assert (message.body, message.get("Connection")) == (b"bye", "close")
        wire.assert_ended()


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_body_limit(sites: _Sites, framing: str) -> None:
    """A body over limits.body is a 413; the Resource does not see the request."""
    with Wire.to(sites.proxyd) as wire:
        if framing == "length":
            wire.send(get("/echo/", f"Content-Length: {LIMIT + 1}", method="POST"))
        else:
            wire.send(get("/echo/", "Transfer-Encoding: chunked", method="POST"))
            wire.send(b"%x\r\n%b\r\n" % (LIMIT + 1, b"x" * (LIMIT + 1)))
        message = wire.read_message()
        assert (message.status, message.get("Proxy-Status")) == (413, "proxyd; error=http_request_denied")


def test_body_just_within_the_limit(sites: _Sites) -> None:
    """As many octets as the limit allows."""
    (message,) = ask(sites.proxyd, get("/echo/", method="POST", body="x" * LIMIT))
    assert message.status == 200


def test_unknown_method(sites: _Sites) -> None:
    """A method that nobody knows is a 501 from proxyd itself, as it is from a Resource."""
    for port in sites[:2]:
        (message,) = ask(port, get("/getting", method="BREW"))
        assert message.status == 501


def test_kept_in_the_first_version(sites: _Sites) -> None:
    """Unlike a stock Site, proxyd keeps the connection of a client of HTTP/1.0 that asks for it."""
    with Wire.to(sites.proxyd) as wire:
        for _ in range(2):
            wire.send("GET /getting HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            message = wire.read_message()
            assert (message.body, message.get("Connection")) == (b"got", "keep-alive")


def test_absolute_form(sites: _Sites) -> None:
    """A Resource sees the path of an absolute-form, and its host."""
    (message,) = ask(sites.proxyd, get("http://other.test/echo/a?b"))
    seen = json.loads(message.body)
    assert (seen["uri"], seen["path"], seen["host"]) == ("/echo/a?b", "/echo/a", "other.test")


def test_rules_beside_resources(sites: _Sites) -> None:
    """What no Resource is mounted for goes to the rules."""
    statuses = [message.status for message in ask(sites.proxyd, get("/rules"), get("/nowhere"), get("/rulesx"))]
    assert statuses == [502, 404, 502]


def test_resource_that_streams(sites: _Sites) -> None:
    """One that provides IHeadResource answers while the body still comes."""
    with Wire.to(sites.proxyd) as wire:
        wire.send(get("/streaming", "Transfer-Encoding: chunked", method="POST") + "3\r\none\r\n")
        assert wire.read_head().get("Transfer-Encoding") == "chunked"
        assert wire.read(8) == b"3\r\none\r\n"
        wire.send("3\r\ntwo\r\n0\r\n\r\n")
        assert wire.read(13) == b"3\r\ntwo\r\n0\r\n\r\n"


def test_resource_that_streams_fails(sites: _Sites) -> None:
    """An exception in head_received is a 500, and costs only its request."""
    first, second = ask(sites.proxyd, get("/streaming/fails"), get("/getting"))
    assert (first.status, second.body) == (500, b"got")


def test_resource_that_takes_over(sites: _Sites) -> None:
    """A Resource that would take the connection over finds that it cannot, as on HTTP/2."""
    first, second = ask(sites.proxyd, get("/takeover"), get("/getting"))
    assert (first.status, second.body) == (426, b"got")


@pytest.mark.parametrize("path", ["/gate/x", "/gate/x/y", "/gate/"])
def test_way_back_to_the_rules(sites: _Sites, path: str) -> None:
    """A Resource that is mounted beside the rules may hand a request back to them."""
    (message,) = ask(sites.proxyd, get(path))
    assert (message.status, message.get("Proxy-Status")) == (404, "proxyd; error=destination_not_found")


@pytest.mark.parametrize(
    ("path", "status"), [("/rules", 502), ("/rules/x", 502), ("/nowhere", 404), ("/", 404), ("/echo/x", 200)]
)
def test_ordinary_root(sites: _Sites, path: str, status: int) -> None:
    """An ordinary Resource may be the root, and hand to the rules what it does not take."""
    (message,) = ask(sites.gate, get(path))
    assert message.status == status
