"""
CPU per request, side by side with nginx, of one process and of two workers: C{make bench}.

One proxy at a time on the first core; the origin (nginx) and the load (wrk) on
the second; rounds interleave.  CPU per request hardly moves with the machine's
load, requests per second do: read the ratio, of one run.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import psutil

ROUNDS = 5
SECONDS = 3
ORIGIN, NGINX, PROXYD, WORKERS = 9061, 9062, 9063, 9064

BROWSER = [
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Accept-Language: en-US,en;q=0.9",
    "Accept-Encoding: gzip, deflate, br",
    "Cache-Control: no-cache",
    "Pragma: no-cache",
    "Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; tracking=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "Referer: http://127.0.0.1/index.html",
    "Sec-Fetch-Dest: document",
    "Sec-Fetch-Mode: navigate",
    "Upgrade-Insecure-Requests: 1",
]

_NGINX = """
worker_processes 1; daemon off; pid {folder}/{name}.pid; error_log {folder}/{name}.err crit;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 100000000; keepalive_timeout 600s; tcp_nodelay on;
    client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    upstream origin {{ server 127.0.0.1:{origin}; keepalive 512; keepalive_requests 100000000; }}
    server {{ listen 127.0.0.1:{port} backlog=4096; root {folder}; {body} }}
}}
"""
_PASS = """location / { proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection "";
    proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }"""

_PROXYD = """
listen: ["tcp:{port}:interface=127.0.0.1:backlog=4096"]
log: {{access: null}}
workers: {workers}
rules: [{{name: all, pattern: "^/", target: "http://127.0.0.1:{origin}"}}]
"""


def start(stack: ExitStack, core: int, *command: str) -> psutil.Process:
    """Start a server on one core."""
    process = stack.enter_context(subprocess.Popen(["taskset", "-c", str(core), *command], stdout=subprocess.DEVNULL))
    stack.callback(process.terminate)
    return psutil.Process(process.pid)


def start_proxyd(stack: ExitStack, folder: Path, port: int, workers: int) -> psutil.Process:
    """Start proxyd on the first core."""
    file = folder / f"proxyd-{workers}.yaml"
    file.write_text(_PROXYD.format(port=port, origin=ORIGIN, workers=workers))
    twistd = "from twisted.scripts.twistd import run; run()"
    arguments = ("-n", "--pidfile=", "--logfile=/dev/null", "proxyd", "--config", str(file))
    return start(stack, 0, sys.executable, "-c", twistd, *arguments)


def cpu(process: psutil.Process) -> float:
    """Seconds of CPU that a process and its children have used."""
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return float(sum(one.user + one.system for one in times))


def load(port: int, fields: list[str]) -> int:
    """
    Ask as fast as answers come.

    @return: how many requests were answered.
    """
    headers = [part for field in fields for part in ("-H", field)]
    url = f"http://127.0.0.1:{port}/1k"
    command = ["taskset", "-c", "1", "wrk", "-t1", "-c32", f"-d{SECONDS}s", *headers, url]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+) requests in", shown)
    if found is None or "Non-2xx" in shown:
        raise SystemExit(f"wrk did not get its answers:\n{shown}")
    return int(found[1])


def main() -> None:
    """Print µs of CPU per request for each proxy, and the ratio."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)  # nginx reads it as another user
        (folder / "1k").write_bytes(b"x" * 1024)
        for conf, port, body in (("origin", ORIGIN, ""), ("proxy", NGINX, _PASS)):
            text = _NGINX.format(folder=folder, name=conf, port=port, origin=ORIGIN, body=body)
            (folder / f"{conf}.conf").write_text(text)
        start(stack, 1, "nginx", "-c", str(folder / "origin.conf"))
        proxies = {
            "nginx": (NGINX, start(stack, 0, "nginx", "-c", str(folder / "proxy.conf"))),
            "proxyd": (PROXYD, start_proxyd(stack, folder, PROXYD, 1)),
            "workers": (WORKERS, start_proxyd(stack, folder, WORKERS, 2)),
        }
        for port, _ in proxies.values():
            retry = ["--retry", "50", "--retry-delay", "0", "--retry-connrefused"]
            subprocess.run(["curl", "-s", "-o", "/dev/null", *retry, f"http://127.0.0.1:{port}/1k"], check=True)
        for title, fields in (("plain", []), ("a browser's fields", BROWSER)):
            used: dict[str, list[float]] = {who: [] for who in proxies}
            for _ in range(ROUNDS):
                for who, (port, process) in proxies.items():
                    before = cpu(process)
                    count = load(port, fields)
                    used[who].append((cpu(process) - before) * 1e6 / count)
            nginx, ours, two = (statistics.median(used[who]) for who in proxies)
            sys.stdout.write(f"1 KB, {title}: nginx {nginx:.1f} µs, proxyd {ours:.1f} µs, {ours / nginx:.2f} times\n")
            sys.stdout.write(f"    two workers {two:.1f} µs, {two / ours:.2f} times one process\n")
        shares = [cpu(worker) for worker in proxies["workers"][1].children()]
        sys.stdout.write(f"    of their work: {', '.join(f'{share / sum(shares):.0%}' for share in shares)}\n")


if __name__ == "__main__":
    main()
