"""proxyd and its peers: how each is configured and started, one process on the proxies' core."""

from __future__ import annotations

import contextlib
import string
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.lab import HERE, NODE_MODULES, PROXY_CORE, Lab, Server, free_port, running

PROXYD = "proxyd"
BARE = "a bare relay"
"""What proxyd would cost if it did nothing but to hand octets on: shown for information."""

Command = Callable[[Lab, int, int], list[str]]
"""The command of a proxy: its port, and the origin server's."""

_PEERS = HERE / "peers"

_PROXYD = """
listen: {listen}
admin: {{listen: ["tcp:{admin}:interface=127.0.0.1"], metrics: open}}
log: {{access: "{folder}/proxyd-{port}.log"}}
rules:
  - {{name: Users, pattern: '^/api/v(?<version>[0-9]+)/users/(.*)$', target: "http://127.0.0.1:9", rewrite: /users/$2}}
  - {{name: Orders, pattern: '^/api/v[0-9]+/orders(/|$)', target: "http://127.0.0.1:9"}}
  - {{name: Search, pattern: ^/search$, target: "http://127.0.0.1:9", changeOrigin: true}}
  - {{name: Another host, pattern: ^/, hosts: ["*.example.com"], target: "http://127.0.0.1:9"}}
  - {{name: Pictures, pattern: '\\.(?:png|jpe?g|webp)$', target: "http://127.0.0.1:9"}}
  - {{name: Application, pattern: '^/app/(.*)$', target: "http://127.0.0.1:9", rewrite: /$1, base: /app/}}
  - {{name: Chat, pattern: ^/chat$, target: "ws://127.0.0.1:9", origins: ["https://chat.example.com"]}}
  - {{name: Not the inside, pattern: '^/docs/(?!internal/)', target: "http://127.0.0.1:9"}}
  - {{name: A header field, pattern: ^/private/, target: "http://127.0.0.1:9", headers: {{Cookie: null}}}}
  {rules}
"""
"""Nine rules that do not match what is asked, as they are found in use; then those that do."""

_ALL = '- {{name: All, pattern: ^/, target: "http://127.0.0.1:{origin}"}}'

# An access log as Debian has it: the format "combined", in a file.
_NGINX_LOG = "access_log @{folder}/access-@{port}.log combined;"
_NGINX_128K = "proxy_buffer_size 128k; proxy_buffers 8 128k; proxy_busy_buffers_size 256k;"


class _Template(string.Template):
    """As in the standard library, but with @: nginx has variables with $ of its own."""

    delimiter = "@"


def fill(template: Path, folder: Path, **values: object) -> Path:
    """
    Fill a peer's configuration in.

    @return: the file, in the folder.
    """
    text = _Template(template.read_text()).substitute(folder=folder, **values)
    file = folder / f"{values['port']}-{template.name}"
    file.write_text(text)
    return file


def proxyd_command(lab: Lab, port: int, rules: str, tls: bool = False) -> list[str]:
    """
    The command of a proxyd with all that it has on by default, metrics, and an access log in a file.

    @param rules: the rules after the nine that never match, as YAML.
    """
    endpoint = f"tcp:{port}:interface=127.0.0.1:backlog=4096"
    listen = f'[{{endpoint: "{endpoint}", tls: {{certificates: ["{lab.certificate}"]}}}}]' if tls else f'["{endpoint}"]'
    config = lab.folder / f"proxyd-{port}.yaml"
    config.write_text(_PROXYD.format(listen=listen, admin=free_port(), folder=lab.folder, port=port, rules=rules))
    twistd = Path(sys.executable).with_name("twistd")
    return [str(twistd), "-n", "--pidfile=", "proxyd", "--config", str(config)]


def _proxyd(tls: bool = False) -> Command:
    return lambda lab, port, origin: proxyd_command(lab, port, _ALL.format(origin=origin), tls)


def _nginx(log: bool = True, buffers: str = "", tls: bool = False) -> Command:
    def command(lab: Lab, port: int, origin: int) -> list[str]:
        access_log = _Template(_NGINX_LOG if log else "access_log off;").substitute(folder=lab.folder, port=port)
        values = {"log": access_log, "buffers": buffers, "ssl": "ssl" if tls else "", "certificate": lab.certificate}
        conf = fill(_PEERS / "nginx.conf", lab.folder, port=port, origin=origin, **values)
        return ["nginx", "-c", str(conf)]

    return command


def _haproxy(lab: Lab, port: int, origin: int) -> list[str]:
    return ["haproxy", "-db", "-f", str(fill(_PEERS / "haproxy.cfg", lab.folder, port=port, origin=origin))]


def _program(interpreter: str | Path, name: str) -> Command:
    return lambda lab, port, origin: [str(interpreter), str(_PEERS / name), str(port), str(origin)]


COMMANDS: dict[str, Command] = {
    PROXYD: _proxyd(),
    "proxyd-tls": _proxyd(tls=True),
    "nginx": _nginx(),
    "nginx without a log": _nginx(log=False),
    "nginx-128k": _nginx(buffers=_NGINX_128K),
    "nginx-tls": _nginx(tls=True),
    "haproxy": _haproxy,
    "node http-proxy": _program("node", "node_proxy.js"),
    "bun": _program(NODE_MODULES / ".bin" / "bun", "bun_proxy.js"),
    "aiohttp": _program(sys.executable, "aiohttp_proxy.py"),
    "twisted.web.proxy": _program(sys.executable, "twisted_proxy.py"),
    BARE: _program(sys.executable, "bare_relay.py"),
}


@contextlib.contextmanager
def started(lab: Lab, name: str, origin: int) -> Iterator[Server]:
    """Run one of the proxies, in front of the origin server on a port."""
    port = free_port()
    with running(COMMANDS[name](lab, port, origin), port, PROXY_CORE, lab.folder) as server:
        yield server
