"""The access log: one line for each exchange, for people (combined) or programs (JSON)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, TextIO

from twisted.logger import Logger
from zope.interface import implementer

from proxyd.forward.record import Record
from proxyd.http.fields import values
from proxyd.interfaces import IAccessLog
from proxyd.service.settings import STDOUT, Log
from proxyd.times import to_the_millisecond

log = Logger()


def open_access_log(settings: Log) -> IAccessLog | None:
    """
    @return: the access log that the configuration asks for, if any.

    @raise OSError: its file cannot be opened.
    """
    if settings.access is None:
        return None
    line = json_line if settings.format == "json" else combined_line
    return AccessLog(settings.access, line, settings.query)


@implementer(IAccessLog)
class AccessLog:
    """
    Writes a line for each exchange, into a file or to standard output.

    A disk that is full costs lines, not requests.
    """

    def __init__(self, name: str, line: Callable[[Record, float, bool], str], query: bool) -> None:
        """
        @param name: a file name, or C{-} for standard output.
        @param query: whether query strings are written.

        @raise OSError: the file cannot be opened.
        """
        self._name = name
        self._line = line
        self._query = query
        self._failing = False
        self._file = self._open()

    def _open(self) -> TextIO:
        # Each line goes out whole, so that several processes may share the file, and a crash loses none.
        if self._name != STDOUT:
            return open(self._name, "a", buffering=1, encoding="utf-8")
        # Not sys.stdout, which twistd makes a part of its own log.
        assert sys.__stdout__ is not None
        return sys.__stdout__

    def write(self, record: Record) -> None:
        try:
            self._file.write(self._line(record, time.time(), self._query))
            if self._name == STDOUT:
                self._file.flush()
        except OSError as error:
            if not self._failing:
                log.error("the access log {name} cannot be written: {error}", name=self._name, error=error)
            self._failing = True
        else:
            self._failing = False

    def reopen(self) -> None:
        if self._name == STDOUT:
            return
        try:
            opened = self._open()
        except OSError as error:
            log.error("the access log cannot be opened again, the old file stays in use: {error}", error=error)
            return
        self.close()
        self._file = opened

    def close(self) -> None:
        """Let go of the file."""
        if self._name != STDOUT:
            # What is left to be written is lost if the disk is still full; the file is closed all the same.
            with suppress(OSError):
                self._file.close()


def combined_line(record: Record, now: float, query: bool) -> str:
    """
    The line that web servers have written since NCSA's, with what a proxy adds at its end::

        client - user [time] "request line" status octets "referer" "user agent" rule=ID origin=AUTHORITY
        time=TOTAL origin_time=UNTIL_ITS_HEAD failed="who and how"
    """
    request, referer, agent = "-", "-", "-"
    if record.head is not None:
        request = f"{_text(record.head.method)} {_target(record, query)} HTTP/1.{record.head.minor}"
        referer, agent = _field(record, b"referer"), _field(record, b"user-agent")
        if not query:
            referer = referer.partition("?")[0]
    at = _second(int(now))
    origin_time = "-" if record.origin_s is None else f"{record.origin_s:.3f}"
    failed = f' failed="{quoted(record.failed)}"' if record.failed else ""
    return (
        f'{record.client or "-"} - {_word(record.user) or "-"} [{at}] "{quoted(request)}" '
        f'{record.status or "-"} {record.sent} "{quoted(referer)}" "{quoted(agent)}" '
        f"rule={record.rule_id or '-'} origin={record.origin or '-'} "
        f"time={record.duration:.3f} origin_time={origin_time}{failed}\n"
    )


@lru_cache(maxsize=2)
def _second(now: int) -> str:
    return time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now))


def json_line(record: Record, now: float, query: bool) -> str:
    """One JSON object, with C{null} for what is not known."""
    entry: dict[str, Any] = {
        "time": to_the_millisecond(now),
        "client": record.client or None,
        "user": record.user or None,
        "method": None,
        "target": None,
        "host": None,
        "version": None,
        "status": record.status or None,
        "sent": record.sent,
        "received": record.received,
        "duration": round(record.duration, 6),
        "rule": record.rule_id or None,
        "origin": record.origin or None,
        "origin_duration": None if record.origin_s is None else round(record.origin_s, 6),
        "referer": None,
        "user_agent": None,
        "failed": record.failed or None,
    }
    if record.head is not None:
        referer = _field(record, b"referer", None)
        entry.update(
            method=_text(record.head.method),
            target=_target(record, query),
            host=_text(record.head.host_value) or None,
            version=f"1.{record.head.minor}",
            referer=referer if query or referer is None else referer.partition("?")[0],
            user_agent=_field(record, b"user-agent", None),
        )
    return json.dumps(entry) + "\n"


def _target(record: Record, query: bool) -> str:
    assert record.head is not None
    target = _text(record.head.raw_target)
    return target if query else target.partition("?")[0]


def _field(record: Record, name: bytes, default: Any = "-") -> Any:
    assert record.head is not None
    found = values(record.head.fields, name)
    return _text(found[0]) if found else default


def _text(octets: bytes) -> str:
    return octets.decode("latin-1")


def _word(text: str) -> str:
    """The same as L{quoted} in a place without quotes."""
    return quoted(text).replace(" ", "\\x20")


def quoted(text: str) -> str:
    """Nothing that a client or an origin sends can end a quotation, or a line, or reach a terminal."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(
        character if character.isprintable() and character not in '"\\' else f"\\x{ord(character):02x}"
        for character in text
    )
