"""L{proxyd.outbound.pac}: what a script says, and what it can do to us, with the real worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase

from proxyd.errors import ProxyConnectionRefused
from proxyd.outbound import pac, pac_fetch, pac_process
from proxyd.outbound.pac import PacEvaluator, parse_result
from proxyd.rules.proxy import PacSource
from tests.support.folders import folder_for


@pytest.mark.parametrize(
    ("text", "ways"),
    [
        ("DIRECT", ["direct"]),
        ("PROXY a:3128", ["http://a:3128"]),
        ("PROXY a", ["http://a:80"]),
        ("HTTPS a:3129; DIRECT", ["https://a:3129", "direct"]),
        ("SOCKS a:1;SOCKS5 b:2 ; SOCKS4 c", ["socks5h://a:1", "socks5h://b:2", "socks4a://c:1080"]),
        ("proxy [::1]:3;direct;", ["http://[::1]:3", "direct"]),
        ("QUIC a:1; PROXY u:p@a:1; PROXY ; PROXY a:0; DIRECT", ["direct"]),
    ],
)
def test_results(text: str, ways: list[str]) -> None:
    """All kinds of entries; what is none is passed over."""
    assert ["direct" if way is None else way.name for way in parse_result(text)] == ways


@pytest.mark.parametrize("text", ["", "null", "undefined", ";", "PROXY", "DIRECT a", "QUIC a:1"])
def test_no_result(text: str) -> None:
    """Nothing to try is an error, and not direct."""
    with pytest.raises(ValueError, match="names no proxy"):
        parse_result(text)


def says(body: str) -> str:
    """A script with this function."""
    return "function FindProxyForURL(url, host) {" + body + "}"


class EvaluatorTests(TestCase):
    """L{PacEvaluator} with its process."""

    timeout = 60

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.file = folder_for(self) / "proxy.pac"
        self.evaluator = PacEvaluator(reactor, PacSource(str(self.file)))
        self.addCleanup(self.evaluator.retire)
        self.now = 0

    def write(self, text: str) -> None:
        """Another script: with another size or another time."""
        self.now += 1
        self.file.write_text(text)
        os.utime(self.file, (self.now, self.now))

    def ask(self, host: str = "a.test", scheme: str = "https", port: int = 443) -> Deferred[Any]:
        """Ask, and look at the file first."""
        self.evaluator._looked = float("-inf")
        return self.evaluator.ask(scheme, host, port)

    async def names(self, asking: Awaitable[Any]) -> list[str]:
        """What is to be tried."""
        return ["direct" if way is None else way.name for way in await asking]

    async def fails(self, asking: Deferred[Any], reason: str) -> None:
        """There is no answer, for this reason."""
        error = await self.assertFailure(asking, ProxyConnectionRefused)
        self.assertRegex(str(error), reason)
        self.assertEqual((error.status, error.error_type), (502, "proxy_configuration_error"))

    async def test_question(self) -> None:
        """The script is told the origin alone, and knows the functions that every PAC script knows."""
        self.write(says("return url == 'wss://b.test:81/' && host == 'b.test' ? 'PROXY yes' : 'PROXY no';"))
        self.assertEqual(await self.names(self.ask("b.test", "wss", 81)), ["http://yes:80"])
        self.assertEqual(await self.names(self.ask("b.test", "wss", 443)), ["http://no:80"])
        self.write(says("return url == 'http://[::1]/' && host == '::1' ? 'PROXY yes' : 'PROXY no';"))
        self.assertEqual(await self.names(self.ask("::1", "http", 80)), ["http://yes:80"])
        self.write(says("return dnsDomainIs(host, '.test') && shExpMatch(host, 'a*') ? 'DIRECT' : 'PROXY no';"))
        self.assertEqual(await self.names(self.ask()), ["direct"])

    async def test_caching(self) -> None:
        """An answer is asked for once, by however many; another target is another question."""
        self.write("var n = 0;" + says("n += 1; return 'PROXY p' + n;"))
        first, second = self.ask(), self.ask()
        self.assertEqual([await self.names(first), await self.names(second)], [["http://p1:80"]] * 2)
        self.assertEqual(await self.names(self.ask()), ["http://p1:80"])
        self.assertEqual(await self.names(self.ask("b.test")), ["http://p2:80"])
        self.patch(pac, "ANSWER_S", 0.0)
        self.assertEqual(await self.names(self.ask()), ["http://p3:80"])

    async def test_change(self) -> None:
        """A changed file counts for the next question; one that is gone does not, and the log says so once."""
        self.write(says("return 'PROXY old';"))
        self.assertEqual(await self.names(self.ask()), ["http://old:80"])
        self.write(says("return 'PROXY new';"))
        self.assertEqual(await self.names(self.ask()), ["http://new:80"])
        self.file.unlink()
        for host in ("b.test", "c.test"):
            self.assertEqual(await self.names(self.ask(host)), ["http://new:80"])

    async def test_endlessLoop(self) -> None:
        """A script without end is ended, in the function and outside of it; the next question has a new worker."""
        self.patch(pac_process, "EVALUATION_S", 0.5)
        for script in (says("while (true) {}"), "while (true) {}"):
            self.write(script)
            await self.fails(self.ask(), "it took longer than 0.5 s")
            self.assertIsNone(self.evaluator.worker_pid)
        self.patch(pac_process, "EVALUATION_S", 20.0)
        self.write(says("return 'DIRECT';"))
        self.assertEqual(await self.names(self.ask()), ["direct"])

    async def test_memoryBomb(self) -> None:
        """A script that takes all memory fails, whichever way it dies, and harms nothing else."""
        self.write(says("var a = ['x']; while (true) { a.push(a.join('') + 'yyyyyyyyyyyyyyyyyyyy'); }"))
        await self.fails(self.ask(), "gave no answer: ")
        self.write(says("return 'DIRECT';"))
        self.assertEqual(await self.names(self.ask()), ["direct"])

    async def test_badScripts(self) -> None:
        """What is wrong is said, and never means direct."""
        for script, reason in (
            ("function (", "SyntaxError"),
            (says("throw 'no luck';"), "no luck"),
            (says("return nothing_there;"), "nothing_there"),
            (says("return null;"), "names no proxy"),
            (says("return '';"), "names no proxy"),
            ("var a = 1;", "gave no answer"),
            ("", "gave no answer"),
        ):
            self.write(script)
            await self.fails(self.ask(), reason)
        self.write(says("return 'DIRECT';"))
        self.assertEqual(await self.names(self.ask()), ["direct"])

    async def test_noScript(self) -> None:
        """No file, a folder, a file that is too long."""
        await self.fails(self.ask(), "No such file")
        self.file.mkdir()
        await self.fails(self.ask(), "gave no answer: .*(it is no file|Is a directory)")
        self.file.rmdir()
        self.write("x" * (pac_fetch.MAX_SCRIPT + 1))
        await self.fails(self.ask(), "it is longer than")

    async def test_crash(self) -> None:
        """A worker that dies takes its question with it, and no other."""
        self.write(says("if (host == 'loop.test') { while (true) {} } return 'DIRECT';"))
        self.assertEqual(await self.names(self.ask()), ["direct"])
        asking = self.ask("loop.test")
        waiting = self.ask("b.test")
        pid = self.evaluator.worker_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await self.fails(asking, "ended by signal 9")
        self.assertEqual(await self.names(waiting), ["direct"])
        self.assertNotEqual(self.evaluator.worker_pid, pid)

    async def test_cancelled(self) -> None:
        """Who gives up is not answered; a retired evaluator then has no process, and no one else's answer is lost."""
        self.write(says("if (host == 'loop.test') { while (true) {} } return 'DIRECT';"))
        waiting = self.ask("b.test")
        asking = self.ask("loop.test")
        self.evaluator.retire()
        self.assertEqual(await self.names(waiting), ["direct"])
        self.assertIsNotNone(self.evaluator.worker_pid)
        asking.cancel()
        await self.assertFailure(asking, CancelledError)
        self.assertIsNone(self.evaluator.worker_pid)

    async def test_missingPacparser(self) -> None:
        """Without the extra the error says what to install."""
        folder = folder_for(self)
        Path(folder / "pacparser.py").write_text("raise ImportError('none')")
        self.patch(os, "environ", os.environ | {"PYTHONPATH": str(folder)})
        self.write(says("return 'DIRECT';"))
        await self.fails(self.ask(), r"install proxyd\[pac\]")
