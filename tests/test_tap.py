"""C{twistd proxyd}: its options, and the service that it makes."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.python.usage import UsageError

from proxyd.tap import Options, makeService
from tests.support.wire import Origin

TWISTD = "from twisted.scripts.twistd import run; run()"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A good configuration without rules."""
    file = tmp_path / "proxyd.yaml"
    file.write_text("listen: ['tcp:0:interface=127.0.0.1']\n")
    return file


def python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own: a process has one reactor, and one set of signals."""
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=30)


def test_plugin() -> None:
    """twistd finds the command, and it leads here."""
    (maker,) = (one for one in getPlugins(IServiceMaker) if one.tapname == "proxyd")
    assert (maker.module, maker.options, maker.makeService) == ("proxyd.tap", Options, makeService)


def test_help() -> None:
    """twistd lists the command and explains it."""
    assert "A rule-matching reverse proxy" in python(TWISTD, "--help").stdout
    assert "--config" in python(TWISTD, "proxyd", "--help").stdout


def test_plugin_is_light() -> None:
    """Every twistd reads the plugin: neither a reactor nor the proxy is loaded for that."""
    program = """
import sys
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
assert "proxyd" in [one.tapname for one in getPlugins(IServiceMaker)]
print(sorted({"twisted.internet.reactor", "proxyd.tap", "autobahn", "pydantic"} & set(sys.modules)))
"""
    assert python(program).stdout == "[]\n"


@pytest.mark.parametrize("arguments", [["--config"], ["--nonsense"], ["--config", "a.yaml", "b.yaml"]])
def test_usage(arguments: list[str]) -> None:
    """A call that makes no sense is refused."""
    with pytest.raises(UsageError):
        Options().parseOptions(arguments)


def test_no_configuration() -> None:
    """The configuration must be named."""
    with pytest.raises(UsageError, match="--config FILE"):
        Options().parseOptions([])


@pytest.mark.parametrize("option", ["--config", "-c"])
@pytest.mark.parametrize(
    ("before", "reactor"),
    [
        ("", "proxyd.reactor.PromptReactor"),
        ("import twisted.internet.selectreactor as one; one.install()", "twisted.internet.selectreactor.SelectReactor"),
    ],
    ids=["none yet", "another"],
)
def test_reactor(option: str, before: str, reactor: str) -> None:
    """The reactor is ours, unless there is one already: twistd was given --reactor."""
    program = f"""
{before}
from proxyd.tap import Options
options = Options()
options.parseOptions([{option!r}, "some.yaml"])
from twisted.internet import reactor
print(options["config"], type(reactor).__module__ + "." + type(reactor).__name__)
"""
    assert python(program).stdout == f"some.yaml {reactor}\n"


def test_service(config: Path) -> None:
    """The service is of Twisted's kind: it listens from its start to its end, and in between takes signals."""
    program = """
import signal, sys
from twisted.application.service import IService
from twisted.internet.defer import ensureDeferred
from proxyd.tap import Options, makeService
options = Options()
options.parseOptions(["--config", sys.argv[1]])
parent = makeService(options)
[service] = parent
print(IService.providedBy(service), len(service.ports), callable(signal.getsignal(signal.SIGHUP)))
from twisted.internet import reactor
async def run():
    parent.privilegedStartService()
    parent.startService()
    print(service.running, len(service.ports))
    await parent.stopService()
    print(service.running, len(service.ports))
    reactor.stop()
reactor.callWhenRunning(lambda: ensureDeferred(run()))
reactor.run()
"""
    assert python(program, str(config)).stdout.splitlines() == ["True 0 True", "1 1", "0 0"]


def test_bad_configuration(config: Path) -> None:
    """A bad configuration ends the process with all that is wrong, before anything listens."""
    config.write_text("listen: [tcp]\nnonsense: 1\n")
    program = """
import sys
from proxyd.tap import makeService
makeService({"config": sys.argv[1]})
"""
    ended = python(program, str(config))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert [line.split(": ")[:2] for line in ended.stderr.splitlines()] == [
        [f"{config}:1", "listen.0"],
        [f"{config}:2", "nonsense"],
    ]


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_second_signal(start, own_origin: Origin, second: signal.Signals) -> None:
    """After Ctrl-C, too, a second signal of either kind stops at once."""
    proxy = start(rules=[{"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}])
    with proxy.connect() as client:
        client.request("GET", "/")
        own_origin.accept().read_message()
        proxy.process.send_signal(signal.SIGINT)
        proxy.output.wait_for("draining: 1 connections")
        proxy.process.send_signal(second)
        client.assert_cut()
    assert proxy.process.wait(10) == -signal.SIGINT


def test_two_signals_at_once(start, own_origin: Origin) -> None:
    """The second one may come before the first one has had any effect."""
    proxy = start(rules=[{"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}])
    with proxy.connect() as client:
        client.request("GET", "/")
        own_origin.accept().read_message()
        proxy.process.send_signal(signal.SIGINT)
        proxy.process.send_signal(signal.SIGTERM)
        client.assert_cut()
    assert proxy.process.wait(10) == -signal.SIGINT


def test_ignored_signal_stays_so(start, own_origin: Origin) -> None:
    """Who starts it in a shell's background, which has SIGINT ignored, does not end it by Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        proxy = start(rules=[{"name": "all", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}])
    finally:
        signal.signal(signal.SIGINT, before)
    own_origin.answer_all()
    proxy.process.send_signal(signal.SIGINT)
    with proxy.connect() as client:
        client.request("GET", "/")
        assert client.read_message().status == 200
    proxy.terminate()
    assert proxy.process.wait(10) == -signal.SIGTERM
    assert "SIGINT" not in proxy.output.text
