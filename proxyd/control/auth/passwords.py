"""
Files of users and their hashed passwords, and the work of checking one.

A hash is made to be slow: it is computed in threads that do nothing else, one
request waits for it and no other.  What was found right is remembered for a
while, or each request of a browser would cost as much as the first.
"""

from __future__ import annotations

import hmac
import os
import re
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

import bcrypt
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from proxyd.control.auth.files import read_file
from proxyd.errors import ConfigError, OverCapacity, Problem

MAX_PASSWORD: Final = 72
"""
Octets of a password that count.  bcrypt knows no more; Apache and nginx ignore
the rest, too, and files made with their tools expect that.
"""

MAX_FILE: Final = 16 * 1024 * 1024
"""Octets of a file of users: some two hundred thousand of them."""

MAX_COST: Final = 17
"""The highest cost of a hash, as C{htpasswd} has it: one takes about ten seconds."""

DEFAULT_COST: Final = 10
"""What an unknown user costs when a file has nobody in it; C{mod_authn_file}'s documentation has hashes of 5 to 10."""

MAX_WAITING: Final = 100
"""Checks that may wait for a thread; with the usual hashes they take some seconds together."""

REMEMBERED_S: Final = 60.0
"""Seconds for which a password that was right need not be hashed again."""

MAX_REMEMBERED: Final = 10_000
"""Passwords that are remembered at once."""

_HASH = re.compile(rb"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")


class Users:
    """
    The users of one file.

    @ivar cost: the highest cost of their hashes: what finding out costs, for everybody.
    """

    __slots__ = ("_hashes", "cost")

    def __init__(self, hashes: Mapping[bytes, bytes]) -> None:
        self._hashes = hashes
        self.cost = max(map(cost_of, hashes.values()), default=DEFAULT_COST)

    def hash_of(self, user: bytes) -> bytes | None:
        """
        @return: the hash of this user's password; L{None} for a user that there is not.
        """
        return self._hashes.get(user)


def cost_of(hashed: bytes) -> int:
    """
    @return: the cost of a hash: the binary logarithm of its rounds.
    """
    return int(hashed[4:6])


def read_users(name: str) -> Users:
    """
    Read a file as C{htpasswd -B} makes it.

    @raise ConfigError: it cannot be read, or some lines are something else;
        they are named by their numbers, and nothing of what is in them.
    """
    lines = read_file(name, MAX_FILE).split(b"\n")
    hashes: dict[bytes, bytes] = {}
    problems: list[Problem] = []
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line.startswith(b"#"):
            continue
        user, _, rest = line.partition(b":")
        hashed = rest.partition(b":")[0]
        wrong = _wrong(user, hashed)
        if wrong is None and user in hashes:
            wrong = "is for a user who has a line already; keep one"
        if wrong is not None:
            problems.append(Problem((), f"{name}, line {number} {wrong}"))
        hashes[user] = hashed
    if problems:
        raise ConfigError(tuple(problems))
    return Users(hashes)


def _wrong(user: bytes, hashed: bytes) -> str | None:
    found = _HASH.fullmatch(hashed)
    if not user:
        return "names no user; a line is user:hash"
    if found is None:
        return "has no bcrypt hash ($2y$, $2b$ or $2a$); htpasswd -B makes them"
    if not 4 <= int(found[1]) <= MAX_COST:
        return f"has a hash whose cost is not from 4 to {MAX_COST}"
    return None


def verify(password: bytes, hashed: bytes | None, cost: int) -> bool:
    """
    Whether this is the password that was hashed.  It takes as long as a hash
    of this cost, whoever it is: who is wrong learns nothing from the time.

    @param password: at most L{MAX_PASSWORD} octets.
    @param hashed: L{None} for a user that there is not.
    """
    spent = 0
    if hashed is not None:
        if bcrypt.checkpw(password, hashed):
            return True
        spent = cost_of(hashed)
    # Each step doubles the work: all costs from one to below another make up the difference between the two.
    for one in range(spent, cost) if spent else (cost,):
        bcrypt.hashpw(password, b"$2b$%02d$%b" % (one, b"." * 22))
    return False


class Threads(Protocol):
    """Where hashes are computed."""

    @property
    def size(self) -> int:
        """How many at once."""

    def run(self, function: Callable[[], bool]) -> Deferred[bool]:
        """Compute one."""


class HashingThreads:
    """
    Threads of their own: slow file names or files must not wait behind passwords.

    They are started by the first password, and end with the reactor.
    """

    def __init__(self, reactor: Any) -> None:
        self.size = max(1, min(4, (os.cpu_count() or 1) - 1))
        self._reactor = reactor
        self._pool: ThreadPool | None = None

    def run(self, function: Callable[[], bool]) -> Deferred[bool]:
        pool = self._pool
        if pool is None:
            pool = self._pool = ThreadPool(0, self.size, "passwords")
            pool.start()
            self._reactor.addSystemEventTrigger("during", "shutdown", pool.stop)
        hashing: Deferred[bool] = deferToThreadPool(self._reactor, pool, function)
        return hashing


class _Check:
    """One password that is being checked, or waits for that."""

    __slots__ = ("key", "running", "waiters", "work")

    def __init__(self, key: bytes, work: Callable[[], bool]) -> None:
        self.key = key
        self.work = work
        self.running = False
        self.waiters: list[Deferred[bool]] = []


class PasswordChecks:
    """
    All checks of passwords, whatever files they are from.

    It outlives the files.  What is remembered is that a password has a certain
    hash, which stays true; whose hash that is, the files say at each request.
    """

    def __init__(self, reactor: Any, threads: Threads | None = None) -> None:
        """
        @param threads: where hashes are computed, instead of in threads of this reactor.
        """
        self._clock: IReactorTime = reactor
        self._threads = HashingThreads(reactor) if threads is None else threads
        self._secret = os.urandom(32)
        self._right: dict[bytes, float] = {}
        self._pending: dict[bytes, _Check] = {}
        self._waiting: deque[_Check] = deque()
        self._running = 0

    def check(self, user: bytes, password: bytes, users: Users) -> bool | Deferred[bool]:
        """
        Whether this is the user's password: at once when it was found right a short while ago.

        Who asks for the same at the same time shares one hashing.  Cancelling
        the Deferred takes the check out of the queue, if nobody else waits for it.

        @raise OverCapacity: too many wait.
        """
        password = password[:MAX_PASSWORD]
        hashed = users.hash_of(user)
        # The user's name belongs to it: two who are not there would otherwise share a hashing, which takes
        # less time than two for one who is there.
        key = hmac.digest(self._secret, b"\0".join((user, hashed or b"", password)), "sha256")
        if self._right.get(key, 0.0) > self._clock.seconds():
            return True
        check = self._pending.get(key)
        if check is None:
            if self._running >= self._threads.size and len(self._waiting) >= MAX_WAITING:
                raise OverCapacity(f"{MAX_WAITING} passwords wait to be checked already")
            check = self._pending[key] = _Check(key, partial(verify, password, hashed, users.cost))
            self._waiting.append(check)
        waiter: Deferred[bool] = Deferred(partial(self._forget, check))
        check.waiters.append(waiter)
        self._start_next()
        return waiter

    def _forget(self, check: _Check, waiter: Deferred[bool]) -> None:
        check.waiters.remove(waiter)
        if not check.waiters and not check.running:
            self._waiting.remove(check)
            del self._pending[check.key]

    def _start_next(self) -> None:
        while self._waiting and self._running < self._threads.size:
            check = self._waiting.popleft()
            check.running = True
            self._running += 1
            self._threads.run(check.work).addBoth(self._finished, check)

    def _finished(self, result: bool | Failure, check: _Check) -> None:
        self._running -= 1
        del self._pending[check.key]
        if result is True:
            self._remember(check.key)
        while check.waiters:
            # One at a time: what one does may be to cancel another.
            check.waiters.pop(0).callback(result)
        self._start_next()

    def _remember(self, key: bytes) -> None:
        """All are kept equally long: the first ones are those whose time is over."""
        now = self._clock.seconds()
        right = self._right
        right.pop(key, None)
        while right:
            oldest = next(iter(right))
            if right[oldest] > now and len(right) < MAX_REMEMBERED:
                break
            del right[oldest]
        right[key] = now + REMEMBERED_S
