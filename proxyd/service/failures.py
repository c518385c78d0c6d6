"""
What the service's own log says of origin servers, and of proxies on the way to them, that fail requests.

One line for each request that could not be served, whatever the access log
says of it, if there is one; nginx's error log has as many.
"""

from __future__ import annotations

from typing import Final

from twisted.logger import Logger

from proxyd.forward.record import Record
from proxyd.service.access_log import quoted

log = Logger()

_UPSTREAM: Final = ("origin", "proxy")
"""The parties whose failures nobody else tells of."""

_CONNECTING: Final = ("connect", "initializing")
"""Where else requests fail of which nobody else tells: proxyd has no descriptors left."""


def tell_failure(record: Record) -> None:
    """Write a line if what is upstream has failed an exchange, or could not be reached."""
    if record.failed_party in _UPSTREAM or record.failed_stage in _CONNECTING:
        log.error(
            "rule {rule}, {origin}: {failed} ({duration:.3f} s after the request)",
            rule=record.rule_id,
            origin=record.origin,
            failed=quoted(record.failed),
            duration=record.duration,
        )
