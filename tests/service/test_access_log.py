"""L{proxyd.service.access_log}: lines that cannot be forged, and a log that costs no request."""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs, eventAsText
from zope.interface.verify import verifyObject

from proxyd.errors import ResponseTruncated, UpstreamTimeout
from proxyd.forward.record import Record
from proxyd.http.request import parse_request
from proxyd.interfaces import IAccessLog
from proxyd.service.access_log import COMBINED, JSON, WHOLE, AccessLog, combined_line, json_line, open_access_log
from proxyd.service.settings import Log

MOMENT = 1795305600.25
NOW = COMBINED.moment(MOMENT)


def record(head: bytes | None = b"GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n") -> Record:
    """A finished exchange."""
    made = Record(None if head is None else parse_request(head), "192.0.2.1", 0.0)
    made.status, made.sent, made.received, made.duration = 200, 5, 7, 0.0125
    made.rule_id, made.origin, made.origin_s = "r", "o.test:80", 0.01
    return made


def test_combined() -> None:
    """The line of web servers, and what a proxy adds."""
    assert combined_line(record(), NOW, True) == (
        '192.0.2.1 - - [22/Nov/2026:00:00:00 +0000] "GET /a?b HTTP/1.1" 200 5 "-" "-" '
        "rule=r origin=o.test:80 time=0.013 origin_time=0.010\n"
    )


@pytest.mark.parametrize(
    ("user", "word"), [("ann", "ann"), ("a b\"\n", "a\\x20b\\x22\\x0a"), ("J\xfcrgen", "J\xfcrgen")]
)
def test_user(user: str, word: str) -> None:
    """Who asks is in the third column, as one word whatever it is."""
    known = record()
    known.user = user
    assert combined_line(known, NOW, True).startswith(f"192.0.2.1 - {word} [22/Nov/2026:00:00:00 +0000] ")
    assert json.loads(json_line(known, NOW, True))["user"] == user


def test_combined_unreadable() -> None:
    """What could not be read has no request line."""
    unread = Record(None, "", 0.0)
    unread.fail(UpstreamTimeout('say "x"\n', stage="response"))
    assert combined_line(unread, NOW, True) == (
        '- - - [22/Nov/2026:00:00:00 +0000] "-" - 0 "-" "-" rule=- origin=- time=0.000 origin_time=- '
        'failed="origin http_response_timeout: say \\x22x\\x22\\x0a"\n'
    )


def test_json() -> None:
    """The same, for programs."""
    head = b"GET /a?b HTTP/1.1\r\nHost: h\r\nReferer: http://r/?q\r\nUser-Agent: \xe9\r\n\r\n"
    entry = json.loads(json_line(record(head), JSON.moment(MOMENT), True))
    assert entry == {
        "time": "2026-11-22T00:00:00.250Z", "client": "192.0.2.1", "user": None, "method": "GET",
        "target": "/a?b", "host": "h", "version": "1.1", "status": 200, "sent": 5, "received": 7, "duration": 0.0125,
        "rule": "r", "origin": "o.test:80", "origin_duration": 0.01, "referer": "http://r/?q", "user_agent": "\xe9",
        "failed": None,
    }
    entry = json.loads(json_line(record(head), NOW, False))
    assert (entry["target"], entry["referer"]) == ("/a", "http://r/")
    entry = json.loads(json_line(Record(None, "", 0.0), NOW, True))
    assert {entry[name] for name in ("client", "method", "target", "status", "rule", "origin_duration")} == {None}


def test_query_is_left_out() -> None:
    """Without queries none is written, not even the referring page's."""
    head = b"GET /a?secret HTTP/1.1\r\nHost: h\r\nReferer: http://r/?secret\r\n\r\n"
    assert "secret" not in combined_line(record(head), NOW, False) + json_line(record(head), NOW, False)


def test_first_failure_counts() -> None:
    """What fails because of a failure is not the failure."""
    failed = record()
    failed.fail(ResponseTruncated("first"))
    failed.fail(ResponseTruncated("second"))
    assert failed.failed == "origin http_response_incomplete: first"


@given(st.binary(max_size=40).filter(lambda octets: not set(octets) & set(range(32)) and 127 not in octets))
def test_lines_cannot_be_forged(octets: bytes) -> None:
    """Whatever a client sends, a line stays one line, and its quotations stay closed."""
    head = b"GET / HTTP/1.1\r\nHost: h\r\nUser-Agent: a" + octets + b"z\r\n\r\n"
    line = combined_line(record(head), NOW, True)
    assert line.count("\n") == 1 and line.isascii() is octets.isascii() or line[:-1].isprintable()
    assert line.count('"') == 6
    assert json.loads(json_line(record(head), NOW, True))["user_agent"] == "a" + octets.decode("latin-1") + "z"


def test_file(tmp_path: Path) -> None:
    """Lines go into the file at once, and into a new one after it was moved."""
    file, old = tmp_path / "access.log", tmp_path / "old"
    log = open_access_log(Log(access=str(file)))
    assert verifyObject(IAccessLog, log)
    for lines in (1, 2, 3):
        log.write([record()])
        assert file.read_text().count("\n") == lines
    log.write([record()])
    file.rename(old)
    log.reopen()
    assert (old.read_text().count("\n"), file.read_text()) == (4, "")
    log.write([record()])
    log.close()
    assert file.read_text().count("\n") == 1


def test_lines_stay_whole() -> None:
    """Into a pipe that several processes share, no more goes at once than the system keeps together."""
    # Of a pipe of this kind, one read gives what one write has put into it.
    ours, theirs = os.pipe2(os.O_DIRECT)
    output = os.dup(1)
    os.dup2(theirs, 1)
    try:
        log = AccessLog("-", COMBINED, True)
        line = len(combined_line(record(), NOW, True))
        log.write([record()] * (WHOLE // line + 3))
        assert len(os.read(ours, 65536)) == WHOLE // line * line
        assert len(os.read(ours, 65536)) == 3 * line
        long = record(b"GET /%b HTTP/1.1\r\nHost: h\r\n\r\n" % (b"a" * 2 * WHOLE))
        log.write([record(), long, record()])
        log.close()
        assert len(os.read(ours, 65536)) == line
        # One line that is longer than that cannot be kept together: the system cuts it.
        octets = b"".join(os.read(ours, 65536) for _ in range(3))
        assert octets.count(b"\n") == 1
        assert len(os.read(ours, 65536)) == line
    finally:
        os.dup2(output, 1)
        for descriptor in (ours, theirs, output):
            os.close(descriptor)


def test_many_lines_into_a_file(tmp_path: Path) -> None:
    """A turn's lines go into a file together, however many they are."""
    file = tmp_path / "access.log"
    AccessLog(str(file), COMBINED, True).write([record()] * 2000)
    assert file.read_text().count("\n") == 2000


def test_no_log() -> None:
    """Null is no log."""
    assert open_access_log(Log(access=None)) is None


def test_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    """A dash is standard output, which stays open."""
    log = open_access_log(Log(access="-", format="json"))
    log.reopen()
    log.write([record()])
    log.close()
    assert json.loads(capfd.readouterr().out)["status"] == 200
    os.fstat(sys.__stdout__.fileno())


def test_file_that_cannot_be_opened(tmp_path: Path) -> None:
    """At the start that is an error; when it is opened again, the old file stays in use."""
    with pytest.raises(OSError):
        open_access_log(Log(access=str(tmp_path / "missing" / "access.log")))
    file = tmp_path / "folder" / "access.log"
    file.parent.mkdir()
    log = AccessLog(str(file), COMBINED, True)
    file.parent.rename(tmp_path / "moved")
    log.reopen()
    log.write([record()])
    log.close()
    assert (tmp_path / "moved" / "access.log").read_text().count("\n") == 1


def test_disk_full_within_a_line(tmp_path: Path) -> None:
    """A line that was cut stays cut, and the next one is a line of its own."""
    file = tmp_path / "access.log"
    log = AccessLog(str(file), COMBINED, True)
    line = len(combined_line(record(), NOW, True))
    # A limit of the process's own stands for the disk's; its signal is the default's to ignore in Python.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (line + 10, before[1]))
    try:
        with capturedLogs():
            log.write([record(), record()])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log.write([record()])
    first, cut, last = file.read_text().splitlines()
    assert (len(first), len(cut), len(last)) == (line - 1, 10, line - 1)


def test_full_disk() -> None:
    """A disk that is full costs lines, not requests, and is told once."""
    log = AccessLog("/dev/full", COMBINED, True)
    with capturedLogs() as told:
        for _ in range(3):
            log.write([record()])
        log.reopen()
        log.write([record()])
        log.close()
    assert [eventAsText(event, includeTimestamp=False).partition("] ")[2] for event in told] == [
        "the access log /dev/full cannot be written: [Errno 28] No space left on device"
    ]
