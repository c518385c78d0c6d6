"""Names of origin servers that there are not, that nobody tells, and that change."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.proxy import Proxy
from tests.support.wire import PATIENCE_S, Message, Origin, Wire

RESOLVER = Path(__file__).parent / "resolver"
"""Where what stands for the system's resolver is."""


class NameServer:
    """
    Says where names are, one question after the other.

    @ivar addresses: what it says; of a name that is not there it says nothing at all.
    @ivar asked: the names that it was asked for.
    """

    def __init__(self) -> None:
        self.addresses: dict[str, str] = {}
        self.asked: list[str] = []
        self._askers: dict[str, Any] = {}
        self._changed = threading.Condition()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._answer, daemon=True)
        self._thread.start()

    def _answer(self) -> None:
        while True:
            name, asker = self._socket.recvfrom(512)
            if not name:
                return
            with self._changed:
                self.asked.append(name.decode())
                self._askers[name.decode()] = asker
                self._changed.notify_all()
            if name.decode() in self.addresses:
                self._socket.sendto(self.addresses[name.decode()].encode(), asker)

    def wait_for(self, count: int) -> None:
        """Wait until so many questions have come."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.asked) >= count, 10), self.asked

    def says(self, name: str, address: str) -> None:
        """Answer the last question for a name."""
        self._socket.sendto(address.encode(), self._askers[name])

    def close(self) -> None:
        self._socket.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()


@pytest.fixture
def names() -> Iterator[NameServer]:
    """One that knows nothing yet."""
    one = NameServer()
    yield one
    one.close()


@pytest.fixture
def site(start, names: NameServer, own_origin: Origin) -> Callable[..., Proxy]:
    """Start a proxy for which C{/NAME/} is on the test's origin server, at C{NAME.names.test}."""

    def site(*rules: str, connect: float, workers: int = 1, **options: object) -> Proxy:
        return start(
            workers=workers,
            rules=[
                {"name": name, "id": name, "pattern": f"^/{name}/",
                 "target": f"http://{name}.names.test:{own_origin.port}", **options}
                for name in rules
            ],
            timeouts={"connect": connect, "drain": 0.1},
            log={"access": None},
            environment={"PYTHONPATH": str(RESOLVER), "TEST_NAMES_PORT": str(names.port)},
        )

    return site


def ask(proxy: Proxy, name: str) -> Message:
    """Ask once."""
    with proxy.connect() as client:
        client.request("GET", f"/{name}/")
        return client.read_message()


def told(proxy: Proxy, name: str, text: str, count: int = 1) -> None:
    """The log has so many lines of this rule, and each says this."""
    proxy.output.wait_for(rf" rule {name}, {name}\.names\.test:\d+: {text}.* \(\d+\.\d+ s after the request\)", count)
    assert len(re.findall(f" rule {name}, ", proxy.output.text)) == count


def test_no_such_name(site, names: NameServer, own_origin: Origin) -> None:
    """502, and the name is asked for again with the next request: by then it may be there."""
    proxy = site("new", connect=10)
    names.addresses["new.names.test"] = ""
    answer = ask(proxy, "new")
    assert (answer.status, answer.get("Proxy-Status")) == (502, "proxyd; error=dns_error")
    told(proxy, "new", r"origin dns_error: new\.names\.test:\d+ could not be reached: DNS lookup failed")
    names.addresses["new.names.test"] = "127.0.0.1"
    own_origin.answer_all()
    assert ask(proxy, "new").body == b"ok"


SILENT = [f"silent{number}" for number in range(40)]
"""More names than Twisted has threads for."""


def test_silent_name_server(site, names: NameServer, own_origin: Origin) -> None:
    """Whoever waits for a name is 504 in time; other names, and what else is done in threads, do not wait with them."""
    proxy = site(*SILENT, "good", connect=3)
    own_origin.answer_all()
    names.addresses["good.names.test"] = "127.0.0.1"
    asking = [name for name in SILENT for _ in range(5)]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(proxy.connect()) for _ in asking]
        for client, name in zip(clients, asking, strict=True):
            client.request("GET", f"/{name}/")
        names.wait_for(len(SILENT))
        assert ask(proxy, "good").body == b"ok"
        proxy.reload(yaml.safe_load(proxy.config.read_text()))
        assert ask(proxy, "good").body == b"ok"
        for client in clients:
            client.assert_silent()
        # However many wait for a name, it is asked for once.
        assert sorted(name for name in names.asked if name.startswith("silent")) == sorted(
            f"{name}.names.test" for name in SILENT
        )
        for client in clients:
            answer = client.read_message()
            assert (answer.status, answer.get("Proxy-Status")) == (504, "proxyd; error=dns_timeout")
    for name in SILENT:
        told(proxy, name, rf"origin dns_timeout: {name}\.names\.test:\d+ could not be resolved in 3 s", 5)


def test_silent_with_workers(site, names: NameServer, own_origin: Origin) -> None:
    """So it is in each worker."""
    proxy = site(*SILENT, "good", connect=3, workers=2)
    own_origin.answer_all()
    names.addresses["good.names.test"] = "127.0.0.1"
    with contextlib.ExitStack() as stack:
        for name in SILENT * 2:
            stack.enter_context(proxy.connect()).request("GET", f"/{name}/")
        names.wait_for(len(SILENT))
        with contextlib.ExitStack() as others:
            for client in [others.enter_context(proxy.connect()) for _ in range(8)]:
                client.request("GET", "/good/")
                assert client.read_message().body == b"ok"
        proxy.output.wait_for("origin dns_timeout: ", 2 * len(SILENT))


def test_silent_behind_a_proxy(site, names: NameServer, own_origin: Origin) -> None:
    """A name that is looked up here for a SOCKS proxy: the same."""
    proxy = site("silent", connect=0.3, proxy=f"socks5://127.0.0.1:{own_origin.port}")
    assert ask(proxy, "silent").status == 504
    told(proxy, "silent", "proxy connection_timeout: .* in 0.3 s")
    own_origin.assert_idle()


def test_late(site, names: NameServer, own_origin: Origin) -> None:
    """A name server that takes its time is waited for, and all who wait are served."""
    proxy = site("late", connect=10)
    own_origin.answer_all()
    with proxy.connect() as one, proxy.connect() as other:
        one.request("GET", "/late/")
        other.request("GET", "/late/")
        names.wait_for(1)
        one.assert_silent()
        names.says("late.names.test", "127.0.0.1")
        assert [client.read_message().body for client in (one, other)] == [b"ok", b"ok"]


def test_changed_address(site, names: NameServer, own_origin: Origin) -> None:
    """An origin server moves: connections that are kept stay where they are; the next new one goes to the new place."""
    names.addresses["moves.names.test"] = "127.0.0.1"
    proxy = site("moves", connect=10)
    with socket.create_server(("127.0.0.2", own_origin.port)) as listening, proxy.connect() as client:
        listening.settimeout(PATIENCE_S)

        def exchange(server: Wire) -> None:
            server.read_message()
            server.respond("ok")
            assert client.read_message().body == b"ok"

        client.request("GET", "/moves/")
        old = own_origin.accept()
        exchange(old)
        names.addresses["moves.names.test"] = "127.0.0.2"
        client.request("GET", "/moves/")
        exchange(old)
        client.request("GET", "/moves/")
        old.close()
        with Wire(listening.accept()[0]) as new:
            exchange(new)
        own_origin.assert_idle()


def test_end_while_a_name_is_looked_up(site, names: NameServer) -> None:
    """The process does not wait for a name server that is silent."""
    proxy = site("silent", connect=600)
    with proxy.connect() as client:
        client.request("GET", "/silent/")
        names.wait_for(1)
        proxy.terminate()
        assert proxy.process.wait(PATIENCE_S) == -signal.SIGTERM
