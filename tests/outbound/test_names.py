"""L{proxyd.outbound.names}: who asks for a name, and who is told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHostnameResolver, IHostResolution, IResolutionReceiver
from zope.interface import implementer
from zope.interface.verify import verifyObject

from proxyd.outbound import names
from proxyd.outbound.names import Names

V4 = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))
V6 = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 80, 0, 0))


class System:
    """The system's resolver, which answers when the test says so, and a reactor that does what threads ask it to."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self._answers: dict[str, SimpleQueue[Any]] = {}
        self._calls: SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]]] = SimpleQueue()
        self._has_asked = threading.Condition()

    def getaddrinfo(self, *question: Any) -> Any:
        with self._has_asked:
            self.asked.append(question)
            self._has_asked.notify_all()
            answer = self._answers.setdefault(question[0], SimpleQueue())
        found = answer.get(timeout=10)
        if isinstance(found, Exception):
            raise found
        return found

    def wait_for(self, count: int) -> None:
        """Wait until it has been asked so often."""
        with self._has_asked:
            assert self._has_asked.wait_for(lambda: len(self.asked) >= count, 10)

    def says(self, name: str, found: Any) -> None:
        """Answer one question for a name, and have that told."""
        with self._has_asked:
            answer = self._answers.setdefault(name, SimpleQueue())
        answer.put(found)
        call, arguments = self._calls.get(timeout=10)
        call(*arguments)

    def callFromThread(self, call: Callable[..., None], *arguments: Any) -> None:
        self._calls.put((call, arguments))


@implementer(IResolutionReceiver)
class Receiver:
    """Somebody who asks."""

    def __init__(self) -> None:
        self.addresses: list[Any] = []
        self.is_complete = False
        self.then: Callable[[], None] = lambda: None

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self.resolution = resolutionInProgress

    def addressResolved(self, address: Any) -> None:
        self.addresses.append(address)

    def resolutionComplete(self) -> None:
        self.is_complete = True
        self.then()


@pytest.fixture
def system() -> System:
    return System()


@pytest.fixture
def ask(system: System) -> Callable[..., Receiver]:
    """Ask for a name."""
    resolver = Names(system, system.getaddrinfo)
    verifyObject(IHostnameResolver, resolver)

    def ask(name: str, *more: Any) -> Receiver:
        receiver = Receiver()
        assert resolver.resolveHostName(receiver, name, *more) is receiver.resolution
        assert receiver.resolution.name == name
        return receiver

    return ask


def test_addresses(system: System, ask) -> None:
    """All addresses of a name, in their order."""
    receiver = ask("a.test", 80)
    system.says("a.test", [V6, V4])
    assert receiver.addresses == [IPv6Address("TCP", "2001:db8::1", 80, 0, 0), IPv4Address("TCP", "192.0.2.1", 80)]
    assert receiver.is_complete


@pytest.mark.parametrize(
    ("more", "question"),
    [
        ((), (0, socket.AF_UNSPEC, socket.SOCK_STREAM)),
        ((80, [IPv4Address]), (80, socket.AF_INET, socket.SOCK_STREAM)),
        ((80, [IPv6Address]), (80, socket.AF_INET6, socket.SOCK_STREAM)),
        ((80, [IPv4Address, IPv6Address]), (80, socket.AF_UNSPEC, socket.SOCK_STREAM)),
        ((80, None, "UDP"), (80, socket.AF_UNSPEC, socket.SOCK_DGRAM)),
    ],
)
def test_question(system: System, ask, more: tuple[Any, ...], question: tuple[Any, ...]) -> None:
    """What the system is asked."""
    ask("a.test", *more)
    system.says("a.test", [])
    assert system.asked == [("a.test", *question)]


@pytest.mark.parametrize("error", [socket.gaierror(socket.EAI_NONAME, "none"), UnicodeError("label too long")])
def test_no_such_name(system: System, ask, error: Exception) -> None:
    """It has no addresses."""
    receiver = ask("a.test")
    system.says("a.test", error)
    assert receiver.is_complete and receiver.addresses == []


def test_shared(system: System, ask) -> None:
    """Who asks at the same time shares a look-up; who asks later has another one."""
    receivers = [ask("a.test"), ask("a.test")]
    other = ask("a.test", 443)
    system.wait_for(2)
    system.says("a.test", [V4])
    system.says("a.test", [V4])
    assert len(system.asked) == 2
    assert all(one.is_complete and len(one.addresses) == 1 for one in (*receivers, other))
    late = ask("a.test")
    assert not late.is_complete
    system.says("a.test", [])
    assert late.is_complete and late.addresses == []


def test_cancelled(system: System, ask) -> None:
    """Who gives up is not told, even by one who is told at the same moment; the look-up is not begun again."""
    one, other, last = ask("a.test"), ask("a.test"), ask("a.test")
    one.resolution.cancel()
    other.then = last.resolution.cancel
    system.says("a.test", [V4])
    assert [one.is_complete, other.is_complete, last.is_complete] == [False, True, False]
    alone = ask("b.test")
    alone.resolution.cancel()
    again = ask("b.test")
    system.says("b.test", [V4])
    assert not alone.is_complete and again.is_complete
    assert len(system.asked) == 2


def test_limit(system: System, ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many names are looked up at once; the next one when one of these is done."""
    monkeypatch.setattr(names, "MAX_LOOK_UPS", 2)
    receivers = [ask(f"{number}.test") for number in range(3)]
    system.wait_for(2)
    assert {question[0] for question in system.asked} == {"0.test", "1.test"}
    system.says("1.test", [V4])
    system.wait_for(3)
    system.says("2.test", [V4])
    system.says("0.test", [V4])
    assert all(one.is_complete for one in receivers)


def test_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the system has no thread left, nobody waits for ever, and the next one who asks may be lucky."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    called: list[Any] = []

    class Reactor:
        def callFromThread(self, call: Callable[..., None], *arguments: Any) -> None:
            called.append((call, arguments))

    class Receiver:
        completed = 0

        def resolutionBegan(self, resolution: object) -> None: ...

        def addressResolved(self, address: object) -> None: ...

        def resolutionComplete(self) -> None:
            self.completed += 1

    looked_up = Names(Reactor(), lambda *question: [V4])
    monkeypatch.setattr(threading.Thread, "start", start)
    receiver: Any = Receiver()
    looked_up.resolveHostName(receiver, "a.test")
    call, arguments = called.pop()
    call(*arguments)
    assert receiver.completed == 1
    monkeypatch.undo()
    looked_up.resolveHostName(receiver, "a.test")
    for _ in range(100):
        if called:
            break
        threading.Event().wait(0.05)
    call, arguments = called.pop()
    call(*arguments)
    assert receiver.completed == 2
