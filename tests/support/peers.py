"""Servers and clients that others wrote, as processes on loopback."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.support.proxy import PATIENCE_S, Output

SCRIPTS = Path(__file__).parent.parent / "peers"
"""Where the scripts for node are, and the packages that they need."""

_NGINX = """
daemon off;
worker_processes 1;
user {user} {group};
pid {folder}/nginx.pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    default_type application/octet-stream;
    types {{ text/html html; text/plain txt; }}
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {server}
}}
"""

_FILES = """
    server {{
        listen 127.0.0.1:{port};
        root {root};
        add_header X-Requests $connection_requests;
        location /packed/ {{ alias {root}/; gzip on; gzip_proxied any; gzip_min_length 1; gzip_types text/plain; }}
        location /nothing/ {{ return 444; }}
        location /one/ {{ alias {root}/; keepalive_timeout 0; }}
    }}
"""


class Peer:
    """
    A process that serves, or asks.

    @ivar output: what it prints.
    """

    def __init__(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        environment: Mapping[str, str] | None = None,
        descriptors: Sequence[int] = (),
    ) -> None:
        """
        @param descriptors: which ones it inherits.
        """
        self._command = command
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            pass_fds=descriptors,
        )
        self.output = Output(self._process)

    def listens(self) -> int:
        """
        Wait until it says where it listens.

        @return: the port.
        """
        return int(self.output.wait_for(r"(?m)^listens on (\d+)$")[0][1])

    def stop(self) -> None:
        """End it.  What it printed is shown if the test has failed."""
        # Not kill: some have children, which they end themselves.
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        sys.stdout.write(f"{self._command[0]} printed:\n{self.output.join()}\n")
        if self._process.stdout is not None:
            self._process.stdout.close()


def node(start: Callable[..., Peer], script: str, *arguments: str) -> Peer:
    """Start one of our scripts."""
    return start(["node", SCRIPTS / script, *arguments])


def nginx(start: Callable[..., Peer], folder: Path, root: Path) -> int:
    """
    Start nginx as an origin server of files.

    @param folder: for what it writes.
    @param root: what it serves.
    @return: its port.
    """
    return nginx_with(start, folder, _FILES, root=root)


def nginx_with(start: Callable[..., Peer], folder: Path, server: str, **names: object) -> int:
    """
    Start nginx.

    @param folder: for what it writes.
    @param server: what is particular to it, with C{{port}} and such names in it.
    @return: its port.
    """
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    assert program is not None, "nginx is not installed"
    # It takes over a socket that listens already: no port can be lost to others, and nobody has to wait for it.
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        port = int(listening.getsockname()[1])
        folder.mkdir()
        file = folder / "nginx.conf"
        # Its worker reads files as we do, whoever we are.
        user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
        server = server.format(port=port, **names)
        file.write_text(_NGINX.format(folder=folder, server=server, user=user, group=group))
        start(
            [program, "-e", "stderr", "-p", folder, "-c", file],
            environment={"NGINX": f"{listening.fileno()};"},
            descriptors=[listening.fileno()],
        )
    return port
