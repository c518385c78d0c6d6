"""The way to a target that a proxy auto-config script says, as one endpoint: its candidates in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from proxyd.errors import ConnectFailed, ProxyConnectionRefused, UpstreamTimeout
from proxyd.outbound.pac import Candidates, PacEvaluator, PacRoute
from proxyd.outbound.tunnel import GivenUp
from proxyd.rules.proxy import ProxySettings

log = Logger()


class GivenUpOn(GivenUp):
    """
    An attempt with one of a script's candidates was cancelled.

    @ivar candidate: it.
    """

    def __init__(self, stage: str, candidate: ProxySettings | None) -> None:
        super().__init__(stage)
        self.candidate = candidate


@implementer(IStreamClientEndpoint)
class PacEndpoint:
    """
    A target by whatever way a script says.

    The next candidate is tried when one could not be reached, and only then.
    """

    def __init__(
        self,
        evaluator: PacEvaluator,
        way: PacRoute,
        host: str,
        port: int,
        endpoint: Callable[[ProxySettings | None, int], IStreamClientEndpoint],
    ) -> None:
        """
        @param endpoint: makes the endpoint for one of so many candidates.
        """
        self._evaluator = evaluator
        self._way = way
        self._host = host
        self._port = port
        self._endpoint = endpoint

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        asking: Deferred[Any] = self._evaluator.ask(self._way.scheme, self._host, self._port)
        asking.addErrback(_not_asked)
        return asking.addCallback(lambda candidates: self._try(candidates, 0, protocolFactory))

    def _try(self, candidates: Candidates, index: int, factory: IProtocolFactory) -> Deferred[IProtocol]:
        candidate = candidates[index]
        if candidate is not None:
            candidate = replace(candidate, tls=self._way.tls)
        connecting: Deferred[Any] = self._endpoint(candidate, len(candidates)).connect(factory)

        def failed(failure: Failure) -> Any:
            cause = failure.value
            if isinstance(cause, GivenUp):
                return Failure(GivenUpOn(cause.stage, candidate))
            if index + 1 < len(candidates) and _is_unreached(cause, candidate):
                log.info("{error}; the next way is tried", error=cause)
                return self._try(candidates, index + 1, factory)
            return failure

        connecting.addErrback(failed)
        return connecting


def _not_asked(failure: Failure) -> Failure:
    return Failure(GivenUp("pac")) if failure.check(CancelledError) else failure


def _is_unreached(cause: BaseException | None, candidate: ProxySettings | None) -> bool:
    if candidate is not None:
        return isinstance(cause, ProxyConnectionRefused)
    return isinstance(cause, ConnectFailed) or (isinstance(cause, UpstreamTimeout) and cause.stage == "connect")
