"""The state of the service, its reload, and what would happen to a request, over the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from typing_extensions import TypedDict

from proxyd.control.api.calls import Answer, Call, CallError, Operation
from proxyd.control.api.documents import ExplainDocument
from proxyd.control.explain import Explanation, Snapshot, explain
from proxyd.errors import ConfigError


class RulesStatus(TypedDict):
    """How many rules there are; C{unusable} ones of the store are not in force."""

    static: int
    dynamic: int
    unusable: int


class StoreStatus(TypedDict):
    """The store of dynamic rules; C{away} says why it cannot be reached."""

    kind: str
    revision: int
    away: str | None


class Totals(TypedDict):
    """
    What has been since the start: two readings make a rate.

    C{latency} counts requests by how long they took: pairs of an upper bound in seconds (null: none) and how many
    took at most that and more than the bound before.
    """

    requests: int
    errors: int
    latency: list[tuple[float | None, int]]


class Status(TypedDict):
    """The service at this moment; times are in seconds."""

    version: str
    started: str
    uptime: float
    config: str
    listening: list[str]
    draining: bool
    restartNeeded: list[str]
    reloadError: str | None
    rules: RulesStatus
    store: StoreStatus
    connections: int
    websockets: int
    totals: Totals
    role: str


class Reloaded(TypedDict):
    """A reload is done; C{restartNeeded} names what it could not change."""

    reloaded: bool
    rules: int
    restartNeeded: list[str]


class Service(Protocol):
    """What the API asks of the service."""

    @property
    def restart_needed(self) -> list[str]:
        """What of the configuration was changed and needs a restart."""

    def status(self, role: str) -> Status:
        """The state of the moment."""

    def reload(self) -> Deferred[ConfigError | None]:
        """Read the configuration again; fires with what is wrong with it."""

    @property
    def snapshot(self) -> Snapshot:
        """What requests are served by."""


class StatusAPI:
    """Calls about the service as a whole."""

    def __init__(self, service: Service, now: Callable[[], float]) -> None:
        self._service = service
        self._now = now
        self.operations = (
            Operation("GET", "/api/status", "read", self._status, "The state of the service", Status),
            Operation("POST", "/api/reload", "write", self._reload, "Read the configuration file again", Reloaded,
                      errors=(409,)),
            Operation("POST", "/api/explain", "read", self._explain, "What would happen to a request", Explanation,
                      body=ExplainDocument),
        )

    def _status(self, call: Call) -> Answer:
        return Answer(self._service.status(call.caller.role))

    async def _reload(self, call: Call) -> Answer:
        error = await self._service.reload()
        if error is not None:
            raise CallError(409, f"The configuration was not reloaded, the old one stays in force: {error}")
        rules = self._service.status(call.caller.role)["rules"]["static"]
        return Answer(Reloaded(reloaded=True, rules=rules, restartNeeded=self._service.restart_needed))

    def _explain(self, call: Call) -> Answer:
        asked = call.body(ExplainDocument)
        return Answer(
            explain(self._service.snapshot, self._now, asked.method, asked.url, asked.headers, call.may_write)
        )
