"""Real proxies from Debian, started by the tests on loopback, as ordinary processes."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.certificates import Authority

PATIENCE_S = 20.0

USER, PASSWORD = "us er", "p@ss:w%rd"
"""Credentials that have to be percent-encoded in a URL."""

ENCODED = "us%20er:p%40ss%3Aw%25rd@"

_SQUID = """
http_port 127.0.0.1:{http}
https_port 127.0.0.1:{https} tls-cert={certificate}
auth_param basic program {checker}
auth_param basic realm proxyd's tests
acl known proxy_auth REQUIRED
acl all_methods method CONNECT
{access}
http_access deny all
cache deny all
access_log none
cache_log {folder}/cache.log
pid_filename none
coredump_dir {folder}
shutdown_lifetime 0 seconds
visible_hostname squid.test
forwarded_for delete
"""

_CHECKER = """#!/bin/sh
# Says whether credentials are good, line by line, as squid asks for it.
while read -r line; do
    if [ "$line" = "{wanted}" ]; then echo OK; else echo ERR; fi
done
"""

_TINYPROXY = """
User {user}
Port {port}
Listen 127.0.0.1
Timeout 60
MaxClients 100
Allow 127.0.0.1
{auth}
LogLevel Critical
"""

_DANTE = """
logoutput: {folder}/dante.log
internal: 127.0.0.1 port = {port}
external: 127.0.0.1
clientmethod: none
socksmethod: {method}
user.privileged: root
user.unprivileged: nobody
client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
socks pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
"""


@dataclass(frozen=True)
class Running:
    """
    A proxy that runs.

    @ivar http: its port for plain HTTP; C{https} that for TLS, and C{socks} for SOCKS, 0 for none.
    """

    http: int = 0
    https: int = 0
    socks: int = 0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], port: int, folder: Path) -> Iterator[None]:
    """Run a server until the end of the block; at its beginning it listens."""
    output = folder / f"{Path(command[0]).name}.out"
    with output.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=folder)
    try:
        _wait_for(port, process, output)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes], output: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process.poll() is None, output.read_text()
    raise AssertionError(f"nobody listens on {port}: {output.read_text()}")


def _for_everybody(folder: Path) -> None:
    """Squid and dante give up root: they must still reach their files."""
    for one in (folder, *folder.parents):
        if one != Path("/tmp") and str(one).startswith("/tmp/"):
            one.chmod(one.stat().st_mode | 0o755)


@contextlib.contextmanager
def squid(folder: Path, authority: Authority, *, authenticates: bool) -> Iterator[Running]:
    """Squid, for plain HTTP and for TLS."""
    folder.mkdir(parents=True)
    _for_everybody(folder)
    ports = Running(free_port(), free_port())
    certificate = authority.sign("localhost", "127.0.0.1")
    certificate.chmod(0o644)
    checker = folder / "checker"
    checker.write_text(_CHECKER.format(wanted=f"{USER.replace(' ', '%20')} {PASSWORD.replace('%', '%25')}"))
    checker.chmod(0o755)
    config = folder / "squid.conf"
    access = "http_access allow known all_methods" if authenticates else "http_access allow all_methods"
    config.write_text(
        _SQUID.format(
            http=ports.http, https=ports.https, certificate=certificate, checker=checker, access=access, folder=folder
        )
    )
    folder.chmod(0o777)
    with running(["/usr/sbin/squid", "-N", "-f", str(config)], ports.http, folder):
        yield ports


@contextlib.contextmanager
def tinyproxy(folder: Path, *, authenticates: bool) -> Iterator[Running]:
    """tinyproxy, whose credentials cannot hold a space."""
    folder.mkdir(parents=True)
    port = free_port()
    config = folder / "tinyproxy.conf"
    auth = "BasicAuth user secret" if authenticates else ""
    config.write_text(_TINYPROXY.format(port=port, auth=auth, user=pwd.getpwuid(os.getuid()).pw_name))
    with running(["/usr/bin/tinyproxy", "-d", "-c", str(config)], port, folder):
        yield Running(port)


@contextlib.contextmanager
def microsocks(folder: Path, *, authenticates: bool) -> Iterator[Running]:
    """microsocks, which speaks SOCKS5."""
    folder.mkdir(parents=True)
    port = free_port()
    auth = ["-u", USER, "-P", PASSWORD] if authenticates else []
    with running(["/usr/bin/microsocks", "-i", "127.0.0.1", "-p", str(port), *auth], port, folder):
        yield Running(socks=port)


@contextlib.contextmanager
def dante(folder: Path) -> Iterator[Running]:
    """dante, which speaks SOCKS4 and SOCKS5."""
    folder.mkdir(parents=True)
    _for_everybody(folder)
    folder.chmod(0o777)
    port = free_port()
    config = folder / "dante.conf"
    config.write_text(_DANTE.format(folder=folder, port=port, method="none"))
    with running(["/usr/sbin/danted", "-f", str(config), "-N", "1"], port, folder):
        yield Running(socks=port)


@contextlib.contextmanager
def openssh(folder: Path) -> Iterator[Running]:
    """OpenSSH's dynamic forwarding, which speaks SOCKS4, 4A and 5: a client, and the server that it goes through."""
    folder.mkdir(parents=True, mode=0o700)
    server, port = free_port(), free_port()
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    config = folder / "sshd_config"
    config.write_text(
        f"Port {server}\nListenAddress 127.0.0.1\nHostKey {folder / 'host'}\nPidFile none\nUsePAM no\n"
        f"StrictModes no\nAuthorizedKeysFile {folder / 'user.pub'}\nPasswordAuthentication no\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    client = [
        *("ssh", "-N", "-F", "/dev/null", "-i", str(folder / "user"), "-p", str(server), "-D", f"127.0.0.1:{port}"),
        *("-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={folder / 'known'}", "-o", "LogLevel=ERROR"),
        f"{pwd.getpwuid(os.getuid()).pw_name}@127.0.0.1",
    ]
    with running(["/usr/sbin/sshd", "-D", "-e", "-f", str(config)], server, folder), running(client, port, folder):
        yield Running(socks=port)
