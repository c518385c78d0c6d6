"""L{proxyd.control.auth.passwords}: files of users, and the work of checking a password."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import bcrypt
import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from proxyd.control.auth import passwords
from proxyd.control.auth.passwords import (
    DEFAULT_COST,
    MAX_WAITING,
    REMEMBERED_S,
    PasswordChecks,
    Users,
    read_users,
    verify,
)
from proxyd.errors import ConfigError, OverCapacity


def hashed(password: bytes, cost: int = 4) -> bytes:
    """The hash of a password."""
    # Always the same salt: it is in the names of tests, which several processes have to agree on.
    return bcrypt.hashpw(password, b"$2b$%02d$eQ58gX9pS/JqyEOlxQHIS." % cost)


ANN = hashed(b"ann's")
USERS = Users({b"ann": ANN, b"bob": hashed(b"bob's", 5)})


def test_read_users(tmp_path: Path) -> None:
    """Lines as htpasswd writes them, with comments, in all forms of bcrypt."""
    file = tmp_path / "users"
    lines = [b"# comment", b"", b"ann:" + ANN, b"bob:" + ANN.replace(b"$2b$", b"$2y$") + b":more\r", b"\xc3\xa9:" + ANN]
    file.write_bytes(b"\n".join(lines))
    users = read_users(str(file))
    assert users.hash_of(b"ann") == ANN
    assert users.hash_of("é".encode()) == ANN
    assert verify(b"ann's", users.hash_of(b"bob"), 4)
    assert users.hash_of(b"# comment") is users.hash_of(b"") is None
    assert users.cost == 4
    file.write_bytes(b"")
    assert read_users(str(file)).cost == DEFAULT_COST


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"ann", "has no bcrypt hash"),
        (b"ann:", "has no bcrypt hash"),
        (b"ann:secret", "has no bcrypt hash"),
        (b"ann:$apr1$secret$secret", "has no bcrypt hash"),
        (b"ann:{SHA}secret", "has no bcrypt hash"),
        (b"ann:$2x$" + ANN[4:], "has no bcrypt hash"),
        (b"ann:" + ANN[:-1], "has no bcrypt hash"),
        (b"ann:" + ANN + b"x", "has no bcrypt hash"),
        (b"ann:$2b$31$" + ANN[7:], "has a hash whose cost is not from 4 to 17"),
        (b":" + ANN, "names no user"),
        (b"first:" + ANN, "is for a user who has a line already"),
    ],
)
def test_bad_lines(tmp_path: Path, line: bytes, problem: str) -> None:
    """Each is named by its number, and nothing of it is shown."""
    file = tmp_path / "users"
    file.write_bytes(b"first:" + ANN + b"\n\n" + line + b"\nalso bad\n")
    with pytest.raises(ConfigError) as raised:
        read_users(str(file))
    first, second = raised.value.problems
    assert first.message.startswith(f"{file}, line 3 {problem}")
    assert second.message.startswith(f"{file}, line 4 has no bcrypt hash")
    for secret in ("secret", "also", ANN.decode()[7:]):
        assert secret not in str(raised.value).replace(str(file), "")


def test_unreadable(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(ConfigError, match="missing cannot be read: No such file"):
        read_users(str(tmp_path / "missing"))


@pytest.mark.parametrize(
    ("known", "spent"),
    [
        # As many rounds for everybody: 2**7.
        (None, [7]),
        (7, [7]),
        (6, [6, 6]),
        (4, [4, 4, 5, 6]),
    ],
)
def test_everybody_costs_the_same(known: int | None, spent: list[int]) -> None:
    """Who is unknown, and who has a cheaper hash, takes as many rounds as the dearest: there is nothing to measure."""
    costs: list[int] = []

    def checkpw(password: bytes, hashed: bytes) -> bool:
        costs.append(int(hashed[4:6]))
        return False

    def hashpw(password: bytes, salt: bytes) -> bytes:
        costs.append(int(salt[4:6]))
        return real(password, salt)

    real = bcrypt.hashpw
    with patch.object(bcrypt, "checkpw", checkpw), patch.object(bcrypt, "hashpw", hashpw):
        assert not verify(b"wrong", None if known is None else b"$2b$%02d$" % known + b"." * 53, 7)
    assert costs == spent
    assert sum(2**cost for cost in costs) == 2**7


class Threads:
    """Hashes are computed when the test says so."""

    size = 2

    def __init__(self) -> None:
        self.running: list[tuple[Callable[[], bool], Deferred[bool]]] = []

    def run(self, function: Callable[[], bool]) -> Deferred[bool]:
        hashing: Deferred[bool] = Deferred()
        self.running.append((function, hashing))
        return hashing

    def finish(self) -> None:
        """Compute the first one."""
        function, hashing = self.running.pop(0)
        hashing.callback(function())


class ChecksTests(SynchronousTestCase):
    """One hashing for all who wait for it, and none for what is known."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.threads = Threads()
        self.checks = PasswordChecks(self.clock, self.threads)

    def check(self, user: bytes, password: bytes, users: Users = USERS) -> Deferred[bool]:
        """A check that needs hashing."""
        found = self.checks.check(user, password, users)
        assert isinstance(found, Deferred)
        return found

    def test_right_and_wrong(self) -> None:
        """What is right is remembered for a while, what is wrong is not."""
        right, wrong = self.check(b"ann", b"ann's"), self.check(b"ann", b"bob's")
        self.threads.finish()
        self.threads.finish()
        self.assertIs(self.successResultOf(right), True)
        self.assertIs(self.successResultOf(wrong), False)
        self.clock.advance(REMEMBERED_S - 1)
        self.assertIs(self.checks.check(b"ann", b"ann's", USERS), True)
        self.check(b"ann", b"bob's")
        self.check(b"bob", b"ann's")
        self.clock.advance(1)
        self.check(b"ann", b"ann's")

    def test_remembered_for_one_hash(self) -> None:
        """What was right is forgotten with the hash: in another file the same password is checked anew."""
        self.check(b"ann", b"ann's")
        self.threads.finish()
        self.assertIs(self.checks.check(b"ann", b"ann's", Users({b"ann": ANN})), True)
        self.check(b"ann", b"ann's", Users({b"ann": hashed(b"another")}))
        self.check(b"ann", b"ann's", Users({}))

    def test_shared(self) -> None:
        """Who asks for the same at the same time waits for the same."""
        waiters = [self.check(b"ann", b"ann's") for _ in range(3)]
        self.assertEqual(len(self.threads.running), 1)
        self.threads.finish()
        self.assertEqual([self.successResultOf(one) for one in waiters], [True] * 3)

    def test_unknown_users_share_nothing(self) -> None:
        """Two unknown users with one password take as long as one who is unknown and one who is there."""
        self.check(b"eve", b"x")
        self.check(b"mallory", b"x")
        self.assertEqual(len(self.threads.running), 2)

    def test_queue(self) -> None:
        """So many run, so many wait in their order, and more are refused; who asks for what is there is not."""
        waiters = [self.check(b"eve", b"%d" % number, Users({b"x": ANN})) for number in range(2 + MAX_WAITING)]
        self.assertEqual(len(self.threads.running), 2)
        with self.assertRaises(OverCapacity):
            self.checks.check(b"ann", b"ann's", USERS)
        self.check(b"eve", b"5", Users({b"x": ANN}))
        self.threads.finish()
        self.assertIs(self.successResultOf(waiters[0]), False)
        self.assertEqual(len(self.threads.running), 2)
        self.check(b"ann", b"ann's")

    def test_cancelled(self) -> None:
        """Who has gone is not waited for; what nobody waits for any more is not computed."""
        users = Users({b"x": ANN})
        running = [self.check(b"eve", b"%d" % number, users) for number in range(2)]
        waiting, shared, other = (self.check(b"eve", one, users) for one in (b"2", b"3", b"3"))
        waiting.cancel()
        shared.cancel()
        running[0].cancel()
        for one in (waiting, shared, running[0]):
            self.failureResultOf(one, CancelledError)
        self.threads.finish()
        self.threads.finish()
        self.assertEqual(len(self.threads.running), 1)
        self.threads.finish()
        self.assertIs(self.successResultOf(other), False)
        self.assertEqual(self.threads.running, [])

    def test_one_cancels_another(self) -> None:
        """What follows from a check may be that another is no longer waited for."""
        first, second = self.check(b"ann", b"ann's"), self.check(b"ann", b"ann's")
        first.addCallback(lambda _: second.cancel())
        self.threads.finish()
        self.failureResultOf(second, CancelledError)

    def test_failure(self) -> None:
        """An error of the library is an error, and no success."""
        waiting = self.check(b"ann", b"ann's")
        self.threads.running.pop()[1].errback(Failure(ValueError("odd")))
        self.failureResultOf(waiting, ValueError)
        self.check(b"ann", b"ann's")

    def test_bounded_memory(self) -> None:
        """The oldest is forgotten when there are too many."""
        with patch.object(passwords, "MAX_REMEMBERED", 2):
            for user in (b"a", b"b", b"c"):
                self.check(user, b"ann's", Users({user: ANN}))
                self.threads.finish()
        self.check(b"a", b"ann's", Users({b"a": ANN}))
        self.assertIs(self.checks.check(b"b", b"ann's", Users({b"b": ANN})), True)

    def test_long_passwords(self) -> None:
        """72 octets count."""
        users = Users({b"ann": hashed(b"x" * 72)})
        waiting = self.check(b"ann", b"x" * 100, users)
        self.threads.finish()
        self.assertIs(self.successResultOf(waiting), True)


class ThreadsTests(TestCase):
    """Hashes are computed beside the reactor."""

    timeout = 20

    async def test_reactor_goes_on(self) -> None:
        """A hash that ends only after the reactor has done something else ends."""
        from twisted.internet import reactor

        reactor_went_on = threading.Event()
        stop: list[Callable[[], Any]] = []

        class Reactor:
            """The reactor, which does not end."""

            seconds = reactor.seconds  # type: ignore[attr-defined]
            callFromThread = reactor.callFromThread  # type: ignore[attr-defined]

            def addSystemEventTrigger(self, phase: str, event: str, function: Callable[[], Any]) -> None:
                assert (phase, event) == ("during", "shutdown")
                stop.append(function)

        def checkpw(password: bytes, hashed: bytes) -> bool:
            return reactor_went_on.wait(10)

        checks = PasswordChecks(Reactor())
        with patch.object(bcrypt, "checkpw", checkpw):
            found = checks.check(b"ann", b"ann's", USERS)
            assert isinstance(found, Deferred)
            reactor.callLater(0, reactor_went_on.set)  # type: ignore[attr-defined]
            assert await found is True
        (end,) = stop
        end()
