"""The configuration file: its values, and everything that can be wrong with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxyd.control.settings import Admin, AdminToken
from proxyd.errors import ConfigError
from proxyd.rules.auth import BasicAuth, BearerAuth, Token
from proxyd.rules.proxy import ProxySettings, ProxyTLS, Way
from proxyd.service.config import Config, Limits, Listener, ListenerTLS, Log, Timeouts, Unreadable, load
from proxyd.service.settings import Outbound

ROOT = Path(__file__).parent.parent.parent
PEM = "-----BEGIN CERTIFICATE-----\n"


class Folder:
    """A folder with a configuration in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, text: str, **environment: str) -> Config:
        file = self.path / "proxyd.yaml"
        file.write_text(text, encoding="utf-8")
        return load(str(file), environment)

    def problems(self, text: str, **environment: str) -> list[str]:
        """Each problem as C{line: path: what}."""
        with pytest.raises(ConfigError) as raised:
            self.load(text, **environment)
        prefix = f"{self.path}/proxyd.yaml:"
        lines = str(raised.value).split("\n")
        assert all(line.startswith(prefix) for line in lines)
        return [line.removeprefix(prefix).replace(f"{self.path}/", "") for line in lines]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "a.pem").write_text(PEM)
    (tmp_path / "b.pem").write_text(PEM)
    (tmp_path / "text.pem").write_text("no key")
    return Folder(tmp_path)


def test_defaults(folder: Folder) -> None:
    """A listener is enough; everything else has the defaults that the reference names."""
    config = folder.load("listen: ['tcp:8080']\n")
    assert config == Config(
        listen=(Listener("tcp:8080"),),
        timeouts=Timeouts(10, 60, 10, 60, 75, 0, 0, 30),
        limits=Limits(10000, 0, 256, 32768, 65536, 8192, 0, 0),
        trusted_proxies=(),
        forwarded=False,
        log=Log("-", "combined", True),
        outbound=Outbound(Way.DIRECT, ProxyTLS()),
        rules=(),
        source=str(folder.path / "proxyd.yaml"),
        base=str(folder.path),
        store="memory:",
        store_folder=str(folder.path),
    )


def test_outbound(folder: Folder) -> None:
    """A proxy for all rules, and TLS to proxies, with file names relative to the file."""
    config = folder.load("""
listen: ['tcp:8080']
outbound:
  proxy: {url: 'https://u:p@proxy.test', noProxy: [a.test], tls: {verify: false}}
  tls: {ca: ca.pem}
""")
    assert config.outbound == Outbound(
        ProxySettings(
            *("https", "proxy.test", 443, b"u", b"p"), no_proxy=("a.test",), tls=ProxyTLS(verify=False)
        ),
        ProxyTLS(ca=str(folder.path / "ca.pem")),
    )
    assert "p@" not in repr(config)


def test_admin(folder: Folder) -> None:
    """Every setting of the control plane; an admin listener makes the rules last."""
    text = """
listen: ['tcp:8080']
admin:
  listen: ["tcp:8081:interface=127.0.0.1", "unix:/run/a.sock", {endpoint: "tcp:8443", tls: {certificates: [a.pem]}}]
  base: /admin
  tokens: [{name: a, role: write, token: 0123456789abcdef}, {name: b, role: read, sha256: %s}]
  hosts: [a.test]
  variables: [APP_*]
  allow: [files, pac]
  metrics: open
traceparent: true
""" % ("a" * 64)
    config = folder.load(text)
    assert [one.endpoint for one in config.admin_listen] == [
        "tcp:8081:interface=127.0.0.1", "unix:/run/a.sock", "tcp:8443",
    ]
    assert config.admin == Admin(
        base="/admin/",
        tokens=(
            AdminToken("a", "0123456789abcdef", None, None, "write"), AdminToken("b", None, "a" * 64, None, "read")
        ),
        hosts=("a.test",), variables=("APP_*",), allow=("files", "pac"), open_metrics=True,
    )
    assert config.traceparent
    assert "0123456789abcdef" not in repr(config)
    assert (config.store, config.store_folder) == ("sqlite:rules.db", str(folder.path))
    kept = folder.load(text + "store: 'postgresql://u:p@h/d'\n", STATE_DIRECTORY="/var/lib/proxyd:/other")
    assert (kept.store, kept.store_folder) == ("postgresql://u:p@h/d", "/var/lib/proxyd")
    listen = "['tcp6:1:interface=\\:\\:1', 'unix:x', 'systemd:domain=INET:index=0']"
    assert len(folder.load(f"listen: ['tcp:1']\nadmin: {{listen: {listen}}}").admin_listen) == 3


def test_every_setting(folder: Folder) -> None:
    """Every setting reaches its place; file names are relative to the file."""
    config = folder.load("""
listen:
  - tcp:8080:interface=127.0.0.1
  - systemd:domain=INET:index=0
  - endpoint: tcp:8443
    tls: {certificates: [a.pem, b.pem], clientCA: a.pem}
  - {endpoint: tcp:8444, tls: {certificates: [a.pem]}}
  - {endpoint: tcp:8081}
timeouts: {header: 1, body: 2.5, connect: 3, response: 4, keepAlive: 5, websocketIdle: 6, websocketPing: 7, drain: 0}
limits: {connections: 1, perClient: 2, perHost: 3, header: 1024, responseHeader: 1025, uri: 64, body: 4, maxMessage: 5}
trustedProxies: [10.0.0.0/8, "::1", unix]
forwarded: true
log: {access: logs/access.log, format: json, query: false}
rules:
  - {name: a, pattern: ^/a, target: "http://a", tls: {ca: a.pem}, endpoint: "tcp:host=a:port=80"}
  - {name: b, pattern: ^/b, target: "http://b", id: two}
""")
    base = str(folder.path)
    both = (f"{base}/a.pem", f"{base}/b.pem")
    assert config.listen == (
        Listener("tcp:8080:interface=127.0.0.1"),
        Listener("systemd:domain=INET:index=0"),
        Listener("tcp:8443", ListenerTLS(both, both[0])),
        Listener("tcp:8444", ListenerTLS(both[:1])),
        Listener("tcp:8081"),
    )
    assert config.timeouts == Timeouts(1, 2.5, 3, 4, 5, 6, 7, 0)
    assert config.limits == Limits(1, 2, 3, 1024, 1025, 64, 4, 5)
    assert config.trusted_proxies == ("10.0.0.0/8", "::1", "unix")
    assert config.forwarded
    assert config.log == Log(f"{base}/logs/access.log", "json", False)
    assert [(rule.id, rule.tls.ca) for rule in config.rules] == [("static-0", f"{base}/a.pem"), ("two", None)]
    assert config.warnings == ()


def test_authentication(folder: Folder) -> None:
    """File names are relative to the file, tokens may be variables, and a rule says it in the same way."""
    (folder.path / "users").write_text(f"ann:$2y$04${'a' * 53}\n")
    config = folder.load(
        """
listen: ["tcp:8080"]
auth: {basic: {htpasswd: "${FILE}"}}
rules:
  - {name: a, pattern: a, target: "http://a", auth: {basic: {htpasswd: users, pass: true}}}
  - {name: b, pattern: a, target: "http://a", auth: none}
""",
        FILE="users",
    )
    assert config.auth == BasicAuth(f"{folder.path}/users")
    assert [rule.auth for rule in config.rules] == [BasicAuth(f"{folder.path}/users", True), "none"]
    config = folder.load("listen: ['tcp:8080']\nauth: {bearer: {tokens: ['${TOKEN}']}}", TOKEN="a-token-from-outside")
    assert config.auth == BearerAuth((Token(token="a-token-from-outside"),))


def test_bad_authentication_files(folder: Folder) -> None:
    """Each bad line of each file is named, and nothing of what is in it."""
    (folder.path / "users").write_text("# users\nann:secret\nbob:{SHA}secret\n")
    (folder.path / "token").write_text("secret")
    assert folder.problems("""
listen: ["tcp:8080"]
auth: {basic: {htpasswd: users}}
rules:
  - name: a
    pattern: a
    target: http://a
    auth: {bearer: {tokens: [{name: t, file: token}]}}
""") == [
        f"3: auth.basic.htpasswd: users, line {number} has no bcrypt hash ($2y$, $2b$ or $2a$); htpasswd -B makes them"
        for number in (2, 3)
    ] + [
        "8: rules.0.auth.bearer.tokens.0.file (rule 'a'): token holds no token: "
        "it must have at least 16 characters, all of them visible ones of ASCII"
    ]


def test_workers(folder: Folder) -> None:
    """A number of processes, from a variable, too; C{auto} is one for each processor that may be used."""
    assert folder.load("listen: ['tcp:8080']\nworkers: 3").workers == 3
    assert folder.load("listen: ['tcp:8080']\nworkers: '${WORKERS}'", WORKERS="2").workers == 2
    assert folder.load("listen: ['tcp:8080']\nworkers: auto").workers == len(os.sched_getaffinity(0))


def test_empty_sections(folder: Folder) -> None:
    """Sections may stand there with their defaults, and may be empty."""
    config = folder.load("""
listen: ["tcp:8080"]
admin: {listen: []}
workers: 1
outbound: {proxy: direct, tls: {}}
auth: none
traceparent: false
limits: {rate: null}
log: {access: null}
store:
timeouts:
rules:
""")
    assert config.log.access is None
    assert config.timeouts == Timeouts()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("admin: {listen: ['tcp:1']}", "admin.listen.0: needs admin.tokens"),
        ("admin: {listen: ['tcp:1:interface=10.0.0.1']}", "admin.listen.0: needs admin.tokens"),
        ("admin: {base: admin}", "admin.base: must be a path such as / or /admin/"),
        ("admin: {allow: [everything]}", "admin.allow.0: must be"),
        ("admin: {variables: ['A B']}", "admin.variables.0: must be the name of a variable, or a glob"),
        ("admin: {tokens: [{name: a, role: write, token: short}]}", "admin.tokens.0.token: must have at least 16"),
        ("admin: {tokens: [{name: a, token: 0123456789abcdef}]}", "admin.tokens.0.role: is required"),
        ("admin: {metrics: closed}", "admin.metrics: must be"),
        ("store: rules.db", "store: must be 'sqlite:FILE', 'postgresql://…' or 'memory:'"),
        ("workers: many", "workers: must be a number of processes from 1 to 256, or auto"),
        ("workers: true", "workers: must be a number of processes from 1 to 256, or auto"),
        ("workers: 0", "workers: must be a number of processes from 1 to 256, or auto"),
        ("outbound: {proxy: socks6://a}", "outbound.proxy: has the scheme 'socks6'; a proxy's is one of"),
        ("outbound: {tls: {ca: 5}}", "outbound.tls.ca: must be a string, not a number"),
        ("auth: {basic: {}}", "auth.basic.htpasswd: is required"),
        ("auth: digest", "auth: must be none, or a mapping with basic, bearer or forward"),
        ("auth: {basic: {htpasswd: missing}}", "auth.basic.htpasswd: "),
        ("auth: {bearer: {tokens: [{name: a, file: missing}]}}", "auth.bearer.tokens.0.file: "),
        ("traceparent: 1", "traceparent: must be true or false, not a number"),
        ("limits: {rate: 5}", "limits.rate: must be a string, not a number"),
        ("limits: {rate: 0/s}", "limits.rate: must be a number of requests and a unit, such as 10/s, 100/m"),
        ("limits: {header: 1023}", "limits.header: must be at least 1024"),
        ("limits: {uri: 63}", "limits.uri: must be at least 64"),
        ("limits: {connections: 0}", "limits.connections: must be at least 1"),
        ("limits: {body: -1}", "limits.body: must be at least 0"),
        ("limits: {body: 1.5}", "limits.body: must be a whole number, not a decimal"),
        ("limits: {perclient: 1}", "limits.perclient: unknown field; did you mean perClient?"),
        ("timeouts: {header: -0.1}", "timeouts.header: must be at least 0"),
        ("timeouts: {header: .inf}", "timeouts.header: must be a finite number"),
        ("timeouts: {header: true}", "timeouts.header: must be a number, not true"),
        ("timeouts: 5", "timeouts: must be a mapping, not a number"),
        ("trustedProxies: [10.0.0.1/8]", "trustedProxies.0: must be an address, a network such as 10.0.0.0/8, or unix"),
        ("trustedProxies: [localhost]", "trustedProxies.0: must be an address, a network such as 10.0.0.0/8, or unix"),
        ("forwarded: maybe", "forwarded: must be true or false, not a string"),
        ("log: {format: xml}", "log.format: must be 'combined' or 'json'"),
        ("log: {access: ''}", "log.access: must be the name of a file"),
        ("lisen: []", "lisen: unknown field; did you mean listen?"),
        ("nothing:", "nothing: unknown field; known are listen, admin"),
        ("rules: {a: b}", "rules: must be a list, not a mapping"),
        ("forwarded: ${X}", "forwarded: the variable X is not set"),
        ("log: {access: '${E}.log'}", "log.access: the variable E is empty"),
        ("log: {access: '${a b}'}", "log.access: ${a b} is no variable"),
        ("limits: {body: '${WORD}'}", "limits.body: must be a whole number, not a string"),
        ("limits: {body: 1, body: 2}", "limits.body: is there twice, first in line 2; keep one"),
    ],
)
def test_bad_settings(folder: Folder, text: str, problem: str) -> None:
    """Each problem says in which line, where, what is wrong and what would be right."""
    [found] = folder.problems(f"listen: ['tcp:8080']\n{text}\n", E="", WORD="x")
    assert found.startswith(f"2: {problem}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("listen: []", "listen: must not be empty"),
        ("listen:", "listen: must be a list, not null"),
        ("listen: tcp:1", "listen: must be a list, not a string"),
        ("listen: [5]", "listen.0: must be a string, not a number"),
        ("listen: ['8080']", "listen.0: is no server endpoint, such as tcp:8080:interface=127.0.0.1: Unknown"),
        ("listen: ['tcp:8080:port=1']", "listen.0: is no server endpoint"),
        ("listen: [{tls: {certificates: [a.pem]}}]", "listen.0.endpoint: is required"),
        ("listen: [{endpoint: 'tcp:1', tls: {}}]", "listen.0.tls.certificates: is required"),
        ("listen: [{endpoint: 'tcp:1', tls: {certificates: []}}]", "listen.0.tls.certificates: must not be empty"),
        ("listen: [{endpoint: 'tcp:1', tsl: {}}]", "listen.0.tsl: unknown field; did you mean tls?"),
        ("listen: [{endpoint: 'tcp:1', tls: {certificates: [no.pem]}}]",
         "listen.0.tls.certificates.0: no.pem cannot be read: No such file or directory"),
        ("listen: [{endpoint: 'tcp:1', tls: {certificates: [a.pem], clientCA: text.pem}}]",
         "listen.0.tls.clientCA: text.pem is no PEM file"),
        ("listen: [{endpoint: 'ssl:1:privateKey=a.pem', tls: {certificates: [a.pem]}}]", "listen.0.endpoint: is no"),
        ("listen: [{endpoint: 'tls:1', tls: {certificates: [a.pem]}}]", "listen.0.tls: the endpoint is TLS already"),
        ("{}", "listen: is required"),
        ("[]", "must be a mapping with at least listen and rules"),
        ("a: [", "no YAML: while parsing a flow node"),
    ],
)  # fmt: skip
def test_bad_listeners_and_files(folder: Folder, text: str, problem: str) -> None:
    """A listener that cannot work, and what is no configuration at all, are refused before anything runs."""
    [found] = folder.problems(f"{text}\n")
    assert found.partition(": ")[2].startswith(problem)


def test_bad_rules(folder: Folder) -> None:
    """Problems of rules name line, rule and field; equal ids, missing files and bad endpoints are among them."""
    assert folder.problems("""\
listen: ["tcp:8080"]
rules:
  - {name: a, pattern: "(", target: "http://a"}
  - name: b
    pattern: ^/b
    target: http://b
    tls:
      ca: no.pem
    endpoint: nope:1
  - {name: c, pattern: ^/c, target: "http://c", id: static-1}
  - 5
timeouts: {header: x}
""") == [
        "3: rules.0.pattern (rule 'a'): is no ECMAScript regular expression: "
        'unterminated group at offset 1 in "("',
        "8: rules.1.tls.ca (rule 'b'): no.pem cannot be read: No such file or directory",
        "9: rules.1.endpoint (rule 'b'): is no client endpoint, such as unix:/run/app.sock: "
        "Unknown endpoint type: 'nope'",
        "10: rules.2.id (rule 'c'): static-1 is the id of rules.1 too; ids must differ",
        "11: rules.3: must be a mapping, not a number",
        "12: timeouts.header: must be a number, not a string",
    ]


def test_variables(folder: Folder) -> None:
    """Outside of rules variables are replaced at once, numbers too; in rules they are left for each request."""
    text = """
listen: ["tcp:${PORT}:interface=$${x}"]
timeouts: {header: "${SECONDS}", body: "${PORT}"}
limits: {connections: "${PORT}"}
trustedProxies: ["${NETWORK}"]
rules: [{name: a, pattern: ^/, target: "http://${BACKEND}"}]
"""
    config = folder.load(text, PORT="8080", SECONDS="2.5", NETWORK="10.0.0.0/8", BACKEND="a")
    assert config.listen[0].endpoint == "tcp:8080:interface=${x}"
    assert (config.timeouts.header, config.timeouts.body, config.limits.connections) == (2.5, 8080, 8080)
    assert config.trusted_proxies == ("10.0.0.0/8",)
    assert config.rules[0].target.source == "http://${BACKEND}"
    assert type(config.listen[0].endpoint) is str


def test_warnings(folder: Folder) -> None:
    """What is allowed but seldom meant is a warning; disabled rules have none."""
    config = folder.load("""\
listen: ["tcp:8080"]
rules:
  - name: a
    pattern: ^/a
    target: http://a
    changeOrigin: true
  - {name: b, pattern: ^/b, target: "http://b", changeOrigin: true, ws: false}
  - {name: c, pattern: ^/c, target: "http://c", changeOrigin: true, origins: ["http://x"]}
  - {name: d, pattern: ^/d, target: "http://d", changeOrigin: true, enabled: false}
  - {name: e, pattern: ^/e, target: "http://${BACKEND}", headers: {X: "${SET}"}}
""", SET="1")
    assert [(one.line, str(one)) for one in config.warnings] == [
        (6, "rules.0.changeOrigin (rule 'a'): with ws and no origins it disarms the target's check of Origin; "
            "list origins, or set ws: false"),
        (10, "rules.4 (rule 'e'): the variable BACKEND is not set; until it is, requests are answered 502"),
    ]  # fmt: skip


def test_unreadable(tmp_path: Path) -> None:
    """A file that is not there is no problem of the configuration; one that is no text is."""
    with pytest.raises(Unreadable, match="nope.yaml: cannot be read: No such file or directory"):
        load(str(tmp_path / "nope.yaml"), {})
    (tmp_path / "binary.yaml").write_bytes(b"listen: \xff")
    with pytest.raises(ConfigError, match="binary.yaml: is not UTF-8"):
        load(str(tmp_path / "binary.yaml"), {})


def test_the_example_is_good() -> None:
    """The example that comes with proxyd is accepted, and what it says are defaults are the defaults."""
    config = load(str(ROOT / "etc" / "proxyd.yaml"), {})
    assert (config.timeouts, config.limits, config.log) == (Timeouts(), Limits(), Log())
    assert (len(config.rules), config.warnings) == (3, ())
