"""The access log: one line for each exchange, for people (combined) or programs (JSON)."""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final, NamedTuple

from twisted.logger import Logger
from zope.interface import implementer

from proxyd.forward.record import Record
from proxyd.http.fields import gathered
from proxyd.http.request import RequestHead
from proxyd.interfaces import IAccessLog
from proxyd.service.settings import STDOUT, Log
from proxyd.times import to_the_millisecond

log = Logger()


WHOLE: Final = 4096
"""So many octets go at most at once into what does not keep more together, such as a pipe (POSIX: C{PIPE_BUF})."""


def open_access_log(settings: Log) -> IAccessLog | None:
    """
    @return: the access log that the configuration asks for, if any.

    @raise OSError: its file cannot be opened.
    """
    if settings.access is None:
        return None
    return AccessLog(settings.access, JSON if settings.format == "json" else COMBINED, settings.query)


class Format(NamedTuple):
    """
    What a line looks like.

    @ivar moment: the time, seconds since the epoch, as the lines of that moment have it.
    @ivar line: the line of an exchange at such a moment, with the query strings or without.
    """

    moment: Callable[[float], str]
    line: Callable[[Record, str, bool], str]


@implementer(IAccessLog)
class AccessLog:
    """
    Writes a line for each exchange, into a file or to standard output.

    Several processes may share the file, and a disk that is full costs lines,
    not requests.
    """

    def __init__(self, name: str, form: Format, query: bool) -> None:
        """
        @param name: a file name, or C{-} for standard output.
        @param query: whether query strings are written.

        @raise OSError: the file cannot be opened.
        """
        self._name = name
        self._form = form
        self._query = query
        self._failing = False
        self._use(self._open())

    def _use(self, file: int) -> None:
        self._file = file
        self._is_torn = False  # the disk was full within a line
        self._keeps_together = stat.S_ISREG(os.fstat(file).st_mode)

    def _open(self) -> int:
        if self._name == STDOUT:
            # Not sys.stdout, which twistd makes a part of its own log.
            assert sys.__stdout__ is not None
            return sys.__stdout__.fileno()
        return os.open(self._name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def write(self, records: Iterable[Record]) -> None:
        line, query = self._form.line, self._query
        now = self._form.moment(time.time())
        lines = "".join([line(record, now, query) for record in records]).encode("utf-8")
        if self._is_torn:
            lines = b"\n" + lines
        try:
            while lines:
                written = os.write(self._file, self._portion(lines))
                self._is_torn = lines[written - 1 : written] != b"\n"
                lines = lines[written:]
        except OSError as error:
            if not self._failing:
                log.error("the access log {name} cannot be written: {error}", name=self._name, error=error)
            self._failing = True
        else:
            self._failing = False

    def _portion(self, lines: bytes) -> bytes:
        """What may go out at once without another process's lines within it."""
        if self._keeps_together or len(lines) <= WHOLE:
            return lines
        end = lines.rfind(b"\n", 0, WHOLE)
        return lines[: (end if end >= 0 else lines.index(b"\n")) + 1]

    def reopen(self) -> None:
        if self._name == STDOUT:
            return
        try:
            opened = self._open()
        except OSError as error:
            log.error("the access log cannot be opened again, the old file stays in use: {error}", error=error)
            return
        self.close()
        self._use(opened)

    def close(self) -> None:
        """Let go of the file."""
        if self._name != STDOUT:
            os.close(self._file)


def combined_line(record: Record, now: str, query: bool) -> str:
    """
    The line that web servers have written since NCSA's, with what a proxy adds at its end::

        client - user [time] "request line" status octets "referer" "user agent" rule=ID origin=AUTHORITY
        time=TOTAL origin_time=UNTIL_ITS_HEAD failed="who and how"
    """
    head = record.head
    if head is None:
        request, says = "-", '"-" "-"'
    else:
        request = head.line.decode("latin-1")
        if not query and "?" in request:
            request = f"{request.partition('?')[0]} HTTP/1.{head.minor}"
        logged = head.logged
        if logged is None or logged[0] is not query:
            logged = head.logged = (query, _says(head, query))
        says = logged[1]
    user = _word(record.user) if record.user else "-"
    origin_time = "-" if record.origin_s is None else _seconds(record.origin_s)
    failed = f' failed="{quoted(record.failed)}"' if record.failed else ""
    return (
        f'{record.client or "-"} - {user} [{now}] "{quoted(request)}" {record.status or "-"} {record.sent} {says} '
        f"rule={record.rule_id or '-'} origin={record.origin or '-'} "
        f"time={_seconds(record.duration)} origin_time={origin_time}{failed}\n"
    )


def _says(head: RequestHead, query: bool) -> str:
    """The referring page and the client's program, which are the same in all requests of most connections."""
    referer, agent = _page_and_program(head, query)
    return f'"{quoted(referer or "-")}" "{quoted(agent or "-")}"'


_UNDER_ONE: Final = tuple(f"0.{thousandths:03}" for thousandths in range(1000))
"""Nearly every exchange takes one of these: looked up in a quarter of the time."""


def _seconds(duration: float) -> str:
    thousandths = int(duration * 1000.0 + 0.5)
    return _UNDER_ONE[thousandths] if thousandths < 1000 else f"{duration:.3f}"


def _combined_moment(moment: float) -> str:
    return _second(int(moment))


@lru_cache(maxsize=2)
def _second(moment: int) -> str:
    return time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(moment))


def json_line(record: Record, now: str, query: bool) -> str:
    """One JSON object, with C{null} for what is not known."""
    entry: dict[str, Any] = {
        "time": now,
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
    head = record.head
    if head is not None:
        referer, agent = _page_and_program(head, query)
        entry.update(
            method=_text(head.method),
            target=_target(head, query),
            host=_text(head.host_value) or None,
            version=f"1.{head.minor}",
            referer=referer,
            user_agent=agent,
        )
    return json.dumps(entry) + "\n"


COMBINED: Final = Format(_combined_moment, combined_line)
JSON: Final = Format(to_the_millisecond, json_line)


def _target(head: RequestHead, query: bool) -> str:
    target = _text(head.raw_target)
    return target if query else target.partition("?")[0]


def _page_and_program(head: RequestHead, query: bool) -> tuple[str | None, str | None]:
    found = gathered(head.fields, (b"referer", b"user-agent"))
    if not found:
        return None, None
    referer = _first(found, b"referer")
    if referer and not query:
        referer = referer.partition("?")[0]
    return referer, _first(found, b"user-agent")


def _first(found: dict[bytes, list[bytes]], name: bytes) -> str | None:
    return _text(found[name][0]) if name in found else None


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
