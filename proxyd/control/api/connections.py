"""Live connections, over the API."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred

from proxyd.control.api.calls import Answer, Call, CallError, Operation, is_number
from proxyd.control.api.documents import CloseQuery, CloseRuleQuery
from proxyd.control.connections import Closing, Live


class Connections(Protocol):
    """All requests and WebSockets that are under way."""

    def listed(self) -> Deferred[list[Live]]:
        """All of them, the oldest one first."""

    def close(self, number: int, code: int) -> Deferred[bool]:
        """Close one; fires with whether it was there."""

    def close_rule(self, rule_id: str, code: int, spread_s: float) -> Deferred[int]:
        """Close all that a rule serves now, within so many seconds; fires with how many these are."""


class ConnectionsAPI:
    """All calls about connections."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self.operations = (
            Operation("GET", "/api/connections", "read", self._list, "Requests and WebSockets under way", list[Live]),
            Operation("DELETE", "/api/connections", "write", self._close_rule, "Close all connections of a rule",
                      Closing, query=CloseRuleQuery),
            Operation("DELETE", "/api/connections/{id}", "write", self._close, "Close one connection",
                      Closing, query=CloseQuery, errors=(404,)),
        )

    async def _list(self, call: Call) -> Answer:
        return Answer(await self._connections.listed())

    async def _close(self, call: Call) -> Answer:
        number = call.parameters["id"]
        query = call.query(CloseQuery)
        if not is_number(number) or not await self._connections.close(int(number), int(query.code)):
            raise CallError(404, f"There is no connection {number}.")
        return Answer(Closing(closing=1))

    async def _close_rule(self, call: Call) -> Answer:
        query = call.query(CloseRuleQuery)
        return Answer(Closing(closing=await self._connections.close_rule(query.rule, int(query.code), query.spread)))
