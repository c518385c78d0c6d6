"""The page of the admin API, in a real Chromium that is driven as people do it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.support.admin import READER, TOKENS, WRITER
from tests.support.browser import Browser
from tests.support.frames import TEXT
from tests.support.proxy import Proxy
from tests.support.websocket import UPGRADE, Pair, pair, switching
from tests.support.wire import Origin, Wire

ADMIN = {"listen": ["tcp:0:interface=127.0.0.1"], "tokens": TOKENS}

HOSTILE = "<img src=x onerror=alert(1)>"

VIEWS = ("Rules", "Explain", "Connections", "History")

_SPY = """
window.sent = [];
const real = window.fetch;
window.fetch = (path, how) => {
  const body = how.body && JSON.parse(how.body);
  if (how.method !== 'GET') window.sent.push([how.method, path, body, how.headers['If-Match']]);
  return real(path, how);
};
"""

_NAMES = """
return [...document.querySelectorAll('#rules tbody tr:not([hidden]) strong')].map((one) => one.textContent);
"""

_ROW = """
return [...document.querySelectorAll('#rules tbody tr:not([hidden])')]
  .filter((one) => one.querySelector('strong').textContent === arguments[0]);
"""

_FREEZE = """
const real = window.fetch;
window.fetch = (path, how) => path === 'api/status'
  ? new Promise(() => { window.isFrozen = true; }) : real(path, how);
"""

_REFUSE = """
window.fetch = async () => new Response('{"error": "x is wrong", "field": "later"}', {status: 400});
"""

_GOT = "return performance.getEntriesByName(location.origin + arguments[0]).length"

_FOREIGN = """
return performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))
  .map((one) => one.name).filter((name) => !name.startsWith(location.origin + '/'));
"""

_TABBABLE = """
for (const one of document.querySelectorAll('[data-seen]')) delete one.dataset.seen;
const within = document.querySelector('dialog[open]') ?? document;
return [...within.querySelectorAll('a[href], button, input, select, textarea, summary, [tabindex="0"]')]
  .filter((one) => one.checkVisibility({visibilityProperty: true}) && !one.disabled).length;
"""

_SHOWN = """
const one = document.activeElement, look = getComputedStyle(one), box = one.getBoundingClientRect();
const hit = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
one.dataset.seen = one.dataset.seen ? 'again' : 'once';
return [one.outerHTML.slice(0, 200), one.dataset.seen, look.outlineStyle, parseFloat(look.outlineWidth),
  box.width, box.height, one === hit || one.contains(hit) || (hit !== null && hit.contains(one))];
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The one browser of these tests."""
    one = Browser()
    yield one
    one.quit()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """A browser that knows nothing; whatever a test does, its console stays empty, and it asks nobody else."""
    chromium.forget()
    yield chromium
    assert chromium.complaints() == []
    assert chromium.run(_FOREIGN) == []


class Page:
    """
    The page of one proxy.

    @ivar proxy: with two rules in its file.
    @ivar origin: where its rules lead.
    """

    def __init__(self, browser: Browser, proxy: Proxy, origin: Origin, base: str = "/") -> None:
        self.browser = browser
        self.proxy = proxy
        self.origin = origin
        self.admin = proxy.admin
        self.wires: list[Wire] = []
        browser.driver.get(f"http://127.0.0.1:{proxy.admin_ports[0]}{base}")

    @property
    def target(self) -> str:
        """The URL of the origin server."""
        return f"http://127.0.0.1:{self.origin.port}"

    def add(self, name: str, **rule: Any) -> str:
        """
        Add a rule over the API, and see it come.

        @return: its id.
        """
        made = self.admin.add(**{"name": name, "pattern": "^/never", "target": self.target, **rule})
        # As who comes back to this tab: otherwise the page asks every two seconds.
        self.browser.run("document.dispatchEvent(new Event('visibilitychange'))")
        self.browser.until(lambda: name in self.names(), f"the rule {name} is listed")
        return str(made["id"])

    def sign_in(self, token: str = WRITER) -> None:
        """Give the token that is asked for."""
        self.browser.fill("Token", token)
        self.browser.click("#sign-in button")
        self.browser.until(lambda: self.names(), "rules are listed")

    def names(self) -> list[str]:
        """The names of the rules that are seen, in their order."""
        return list(self.browser.run(_NAMES))

    def row(self, name: str) -> WebElement:
        """The row of a rule."""
        return self.browser.run(_ROW, name)[0]

    def within(self, name: str, selector: str) -> WebElement:
        """What a selector finds in the row of a rule."""
        return self.browser.until(lambda: self.row(name).find_element("css selector", selector), f"{name}: {selector}")

    def do(self, name: str, action: str) -> None:
        """Press one of the buttons of a rule."""
        self.browser.until(lambda: self.within(name, f"[data-action={action}]").click() or True)

    def go(self, view: str) -> None:
        """Open a section."""
        self.browser.click("nav a", view)
        self.browser.one(f"#view-{view.lower()}")

    def freeze(self) -> None:
        """Have the page ask no more by itself: it shows what it has seen."""
        self.browser.run(_FREEZE)
        self.browser.until(lambda: self.browser.run("return window.isFrozen"), "the page asks for the status")

    def ask(self, path: str) -> str:
        """
        Send a request through the proxy.

        @return: the request line that the origin server gets; or the status of proxyd's own answer.
        """
        with self.proxy.connect() as client:
            client.request("GET", path)
            if not any(rule["enabled"] and rule["pattern"] in path for rule in self.patterns()):
                return str(client.read_message().status)
            with self.origin.accept() as server:
                line = server.read_message().line
                server.respond("ok")
                client.read_message()
                return line

    def patterns(self) -> list[dict[str, Any]]:
        """All rules; the patterns of these tests are plain text but for the caret."""
        rules = self.admin.call("GET", "/api/rules").json
        return [{**rule, "pattern": rule["pattern"].lstrip("^").partition("(")[0]} for rule in rules]

    def websocket(self, path: str) -> Pair:
        """Open a WebSocket through the proxy."""
        client = self.proxy.connect()
        client.request("GET", path, *UPGRADE)
        server = self.origin.accept()
        server.send(switching(server.read_message()))
        assert client.read_head().status == 101
        self.wires += client, server
        return pair(client, server)


@pytest.fixture
def locked(browser: Browser, start: Callable[..., Proxy], own_origin: Origin) -> Iterator[Page]:
    """The page before anybody has signed in."""
    target = f"http://127.0.0.1:{own_origin.port}"
    rules = [
        {"name": "From the file", "id": "file", "pattern": "^/static", "target": target, "headers": {"X-Key": "hush"}},
        {"name": "Second", "id": "second", "pattern": "^/second", "target": target, "ws": False, "hosts": ["a.test"]},
    ]
    one = Page(browser, start(admin=ADMIN, rules=rules), own_origin)
    yield one
    for wire in one.wires:
        wire.close()


@pytest.fixture
def page(locked: Page) -> Page:
    """The page of someone who may write."""
    locked.sign_in()
    return locked


# Who may


def test_sign_in(locked: Page) -> None:
    """A wrong token is refused; the right one lets in, is kept by this tab only, and can be forgotten."""
    browser = locked.browser
    token = browser.fill("Token", "wrong-token-0123456789")
    assert (token.get_attribute("type"), token.get_attribute("autocomplete")) == ("password", "off")
    browser.press(Keys.ENTER)
    browser.says("This token is not known here.", "#sign-in .problem")
    assert browser.focus == token and token.get_attribute("aria-invalid") == "true"
    browser.fill("Token", "wörter")
    browser.press(Keys.ENTER)
    assert locked.names() == [] and not browser.all("#content")
    locked.sign_in()
    assert locked.names() == ["From the file", "Second"]
    assert browser.run("return [localStorage.length, document.cookie, sessionStorage.length]") == [0, "", 1]
    browser.driver.refresh()
    browser.until(lambda: locked.names())
    browser.click("#forget")
    browser.one("#sign-in")
    assert browser.run("return sessionStorage.length") == 0
    # Escape is no way in, but it is no trap either.
    browser.press(Keys.ESCAPE)
    browser.is_gone("#sign-in")
    browser.click("#show-sign-in")
    locked.sign_in()


def test_reader(locked: Page) -> None:
    """Who may only read sees everything, without secrets, and nothing that would change something."""
    browser = locked.browser
    locked.admin.add(name="Dynamic", pattern="^/x", target=locked.target)
    locked.websocket("/static")
    locked.sign_in(READER)
    browser.says("You may read everything here, and change nothing.", "#banners")
    assert locked.names() == ["From the file", "Second", "Dynamic"]
    labels = {button.text for button in browser.all("#view-rules button")}
    assert labels == {"Show"}
    locked.do("From the file", "show")
    assert browser.control("Value").get_attribute("value") == "********"
    assert not browser.all("#rule-save")
    for control in browser.all("#rule input, #rule textarea"):
        assert control.get_attribute("readonly") or not control.is_enabled()
    browser.press(Keys.ESCAPE)
    browser.is_gone("#rule")
    locked.go("Connections")
    browser.one("#connections tbody tr", "/static")
    locked.go("History")
    browser.one("#history li", "Dynamic")
    assert not browser.all("#view-connections button, #view-history button, #reload")


def test_without_tokens(browser: Browser, start: Callable[..., Proxy], own_origin: Origin) -> None:
    """Where no token is asked for, none is: a loopback listener shows everything to read."""
    rule = {"name": "Only", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}
    page = Page(browser, start(admin={"listen": ADMIN["listen"]}, rules=[rule]), own_origin)
    browser.until(lambda: page.names() == ["Only"])
    assert not browser.all("#sign-in") and not browser.all("#forget")


def test_below_a_base(browser: Browser, start: Callable[..., Proxy], own_origin: Origin) -> None:
    """The page asks for everything by relative URLs."""
    rule = {"name": "Only", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}
    page = Page(browser, start(admin={**ADMIN, "base": "/admin/"}, rules=[rule]), own_origin, "/admin/")
    page.sign_in()
    assert page.names() == ["Only"]


# Rules


def test_rules_of_the_file(page: Page) -> None:
    """They come first, say that they are read-only, and have no controls that change them."""
    page.add("Mine")
    assert page.names() == ["From the file", "Second", "Mine"]
    for name in ("From the file", "Second"):
        assert "file, read-only" in page.row(name).text
        assert {one.text for one in page.row(name).find_elements("css selector", "button")} == {"Show", "Duplicate"}
    assert "no WebSockets" in page.row("Second").text and "host a.test" in page.row("Second").text


def test_add(page: Page) -> None:
    """What is wrong with a new rule, the server says at the very fields; once it is right, it acts."""
    browser = page.browser
    browser.click("#add")
    browser.fill("Name", "New")
    browser.fill("Pattern", "^/new/(.*")
    browser.fill("Target", "nowhere")
    browser.fill("Hosts", "a.test\n/")
    browser.click("summary", "Headers")
    browser.click("button", "Add a header")
    browser.until(lambda: "header-name" in (browser.focus.get_attribute("class") or ""), "the new header has the focus")
    browser.press("X Key", Keys.TAB, "v")
    browser.click("#rule-save")
    browser.says("4 things are wrong.", "#rule .problem")
    pattern = browser.control("Pattern")
    assert browser.focus == pattern
    told = {one.get_attribute("name") or one.get_attribute("class"): description(browser, one)
            for one in browser.all("#rule [aria-invalid]")}
    assert set(told) == {"pattern", "target", "hosts", "code header-name"}
    assert "unterminated group" in told["pattern"] and "is no URL" in told["target"]
    assert "line 2: must be a host or a glob of hosts" in told["hosts"]
    assert told["code header-name"] == "is no name of a header field"
    browser.fill("Pattern", "^/new/(.*)$")
    browser.fill("Target", page.target)
    browser.fill("Hosts", "")
    browser.fill("Rewrite", "/to/$1")
    name = browser.all(".header-name")[0]
    name.clear()
    name.send_keys("X-Key")
    browser.click("#rule-save")
    browser.says("New was saved.")
    browser.until(lambda: "New" in page.names())
    assert page.ask("/new/x") == "GET /to/x HTTP/1.1"
    [made] = [rule for rule in page.admin.call("GET", "/api/rules").json if rule["name"] == "New"]
    assert made["headers"] == {"X-Key": "v"} and made["hosts"] is None


def description(browser: Browser, control: WebElement) -> str:
    """What a screen reader says of a control beyond its name."""
    ids = (control.get_attribute("aria-describedby") or "").split()
    return " ".join(browser.one(f"[id='{one}']").text for one in ids)


def test_required(page: Page) -> None:
    """Fields that must be there are asked for."""
    browser = page.browser
    browser.click("#add")
    browser.click("#rule-save")
    browser.says("3 things are wrong.", "#rule .problem")
    assert browser.focus == browser.control("Name")


def test_problem_without_a_field(page: Page) -> None:
    """What is wrong beyond the fields of the form is told on top."""
    browser = page.browser
    browser.click("#add")
    for label, text in (("Name", "New"), ("Pattern", "^/"), ("Target", page.target)):
        browser.fill(label, text)
    browser.run(_REFUSE)
    browser.click("#rule-save")
    browser.says("later: x is wrong", "#rule .problem")


def test_edit_sends_changes_only(page: Page) -> None:
    """A change says what is changed, null for what is emptied, and which rule it was made of."""
    browser = page.browser
    rule = page.add("Mine", rewrite="/y", headers={"A": "b"}, timeouts={"connect": 5.0})
    tag = page.admin.call("GET", f"/api/rules/{rule}").fields["ETag"]
    browser.run(_SPY)
    page.do("Mine", "edit")
    browser.fill("Name", "Yours")
    browser.fill("Rewrite", "x").clear()
    browser.click("summary", "Time-outs")
    browser.fill("Response, seconds", "7.5")
    browser.click("#rule-save")
    browser.says("Yours was saved.")
    timeouts = {"connect": 5, "response": 7.5, "body": None, "websocketIdle": None}
    changes = {"name": "Yours", "rewrite": None, "timeouts": timeouts}
    assert browser.run("return window.sent") == [["PUT", f"api/rules/{rule}", changes, tag]]
    browser.until(lambda: "Yours" in page.names())
    assert browser.focus == page.within("Yours", "[data-action=edit]")


def test_every_field(page: Page) -> None:
    """A rule with everything in it comes through the form as it is, and its copy is the same."""
    browser = page.browser
    rule = {
        "hosts": ["a.test", "*.b.test"], "rewrite": "/x", "changeOrigin": True, "origins": ["https://a.test"],
        "secure": False, "ws": False, "headers": {"A": "1", "B": None}, "publicRoutes": {"GET": ["/a", "/b/**"]},
        "auth": {"bearer": {"tokens": [{"name": "n", "token": "0123456789abcdefgh"}]}}, "enabled": False, "base": "/b",
        "relativePaths": True, "proxy": "http://me:secret@127.0.0.1:3128", "tls": {"serverName": "x.test"},
        "timeouts": {"connect": 1.5}, "limits": {"body": 1000},
    }
    page.add("All", **rule)
    browser.run(_SPY)
    page.do("All", "edit")
    browser.one("#rule")
    browser.click("#rule-save")
    browser.says("All was saved.")
    assert browser.run("return window.sent") == []
    page.do("All", "duplicate")
    browser.click("#rule-save")
    browser.says("All (copy) was saved.")
    one, copy = page.admin.call("GET", "/api/rules").json[2:]
    told_apart = {"id": copy["id"], "name": copy["name"], "order": copy["order"]}
    assert {**one, **told_apart} == copy and one["id"] != copy["id"]


def test_discard(page: Page) -> None:
    """What was typed is not lost without a question."""
    browser = page.browser
    browser.click("#add")
    browser.press(Keys.ESCAPE)
    browser.is_gone("#rule")
    browser.click("#add")
    browser.fill("Name", "Half")
    browser.press(Keys.ESCAPE)
    browser.says("Discard your changes?", "#ask")
    browser.press(Keys.ESCAPE)
    browser.is_gone("#ask")
    assert browser.control("Name").get_attribute("value") == "Half"
    browser.click("#rule-cancel")
    browser.click("#ask-yes")
    browser.is_gone("#rule")
    assert browser.focus == browser.one("#add")


def test_conflict_in_the_form(page: Page) -> None:
    """What others change meanwhile is not overwritten: it is told, and what was typed is kept."""
    browser = page.browser
    rule = page.add("Mine", rewrite="/old")
    page.do("Mine", "edit")
    browser.fill("Name", "Typed")
    browser.fill("Rewrite", "/typed")
    # What the form shows is what it got when it was opened, not what comes now.
    browser.until(lambda: browser.run(_GOT, f"/api/rules/{rule}"))
    page.admin.call("PUT", f"/api/rules/{rule}", {"rewrite": "/theirs", "pattern": "^/theirs"})
    browser.click("#rule-save")
    browser.says("Somebody else has changed this rule meanwhile", "#rule .problem")
    assert "in spite of a new value, in: rewrite." in browser.text("#rule .problem")
    now = page.admin.call("GET", f"/api/rules/{rule}").json
    assert (now["name"], now["rewrite"], now["pattern"]) == ("Mine", "/theirs", "^/theirs")
    values = {one: browser.control(one).get_attribute("value") for one in ("Name", "Rewrite", "Pattern")}
    assert values == {"Name": "Typed", "Rewrite": "/typed", "Pattern": "^/theirs"}
    browser.click("#rule-save")
    browser.says("Typed was saved.")
    now = page.admin.call("GET", f"/api/rules/{rule}").json
    assert (now["name"], now["rewrite"], now["pattern"]) == ("Typed", "/typed", "^/theirs")


def test_deleted_under_the_form(page: Page) -> None:
    """A rule that others delete meanwhile can be saved as a new one."""
    browser = page.browser
    rule = page.add("Mine")
    page.do("Mine", "edit")
    browser.fill("Name", "Again")
    page.admin.call("DELETE", f"/api/rules/{rule}")
    browser.click("#rule-save")
    browser.says("Saving adds it as a new one.", "#rule .problem")
    browser.click("#rule-save")
    browser.says("Again was saved.")
    assert page.admin.ids() == ["file", "second", rule]


def test_switch(page: Page) -> None:
    """A rule is switched off and on, in force at once."""
    page.add("Mine", pattern="^/mine")
    assert page.ask("/mine") == "GET /mine HTTP/1.1"
    for state in ("off", "on"):
        page.do("Mine", "toggle")
        page.browser.says(f"Mine is {state}.")
        # The list may be drawn anew under what was just found.
        page.within("Mine", f"[role=switch][aria-checked={str(state == 'on').lower()}]")
        page.browser.until(lambda: page.browser.focus == page.within("Mine", "[role=switch]"))
        assert page.ask("/mine") == ("404" if state == "off" else "GET /mine HTTP/1.1")


@pytest.mark.parametrize("action", ["toggle", "delete"])
def test_conflict_in_the_list(page: Page, action: str) -> None:
    """Nothing is done to a rule that is not what is shown."""
    browser = page.browser
    rule = page.add("Mine")
    page.freeze()
    page.admin.call("PUT", f"/api/rules/{rule}", {"name": "Theirs"})
    page.do("Mine", action)
    if action == "delete":
        browser.click("#ask-yes")
    browser.says("Somebody else has changed it.")
    assert page.names()[2:] == ["Theirs"]
    assert page.admin.call("GET", f"/api/rules/{rule}").json["enabled"] is True


def test_delete(page: Page) -> None:
    """A rule is deleted after a question that names it, and only after a yes."""
    browser = page.browser
    page.add("Mine", pattern="^/mine")
    page.do("Mine", "delete")
    browser.says("“Mine” is deleted at once.", "#ask")
    assert browser.focus == browser.one("#ask-no")
    browser.press(Keys.ENTER)
    browser.is_gone("#ask")
    assert browser.focus == page.within("Mine", "[data-action=delete]")
    assert page.ask("/mine") == "GET /mine HTTP/1.1"
    page.do("Mine", "delete")
    browser.click("#ask-yes")
    browser.says("Mine was deleted.")
    assert page.names() == ["From the file", "Second"]
    assert page.ask("/mine") == "404"


def test_others_changes_are_shown(page: Page) -> None:
    """What others do is seen without asking, and the focus stays where it is."""
    rule = page.add("Mine")
    page.add("Yours")
    page.browser.run("arguments[0].focus()", page.within("Mine", "[data-action=edit]"))
    page.admin.call("PUT", f"/api/rules/{rule}", {"name": "Other"})
    page.browser.until(lambda: page.names()[2:] == ["Other", "Yours"])
    assert page.browser.focus == page.within("Other", "[data-action=edit]")


# Order


@pytest.fixture
def ordered(page: Page) -> Page:
    """The page with rules A, B, C and D that may be moved."""
    for name in "ABC":
        page.admin.add(name=name, id=name, pattern="^/never", target=page.target)
    page.add("D", id="D")
    return page


def test_order_by_keys(ordered: Page) -> None:
    """Space lifts, arrows move, Escape takes back, Space puts down; each step is said."""
    browser = ordered.browser
    handle = ordered.within("A", ".move")
    assert handle.accessible_name == "Move: A"
    browser.run("arguments[0].focus()", handle)
    browser.press(Keys.SPACE)
    browser.says("A is lifted, place 1 of 4.")
    browser.press(Keys.ARROW_UP)
    browser.says("A: place 1 of 4.")
    browser.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    browser.says("A: place 3 of 4.")
    assert ordered.names()[2:] == ["B", "C", "A", "D"]
    browser.press(Keys.ESCAPE)
    browser.says("A is back where it was.")
    assert ordered.names()[2:] == ["A", "B", "C", "D"] and browser.focus == handle
    browser.press(Keys.SPACE, Keys.END)
    browser.says("A: place 4 of 4.")
    browser.press(Keys.ARROW_UP, Keys.SPACE)
    browser.says("The rules are in their new order.")
    assert ordered.admin.ids()[2:] == ["B", "C", "A", "D"]
    browser.until(lambda: browser.focus == ordered.within("A", ".move"))
    browser.press(Keys.SPACE, Keys.TAB)
    browser.says("A is back where it was.")


def test_order_by_buttons(ordered: Page) -> None:
    """Each click is one place, but not beyond the ends."""
    browser = ordered.browser
    ordered.do("C", "up")
    browser.says("The rules are in their new order.")
    assert ordered.admin.ids()[2:] == ["A", "C", "B", "D"]
    assert browser.focus == ordered.within("C", ".up")
    ordered.do("D", "down")
    browser.says("D is last already.")


def test_order_by_dragging(ordered: Page) -> None:
    """The mouse takes a rule where it is let go; Escape takes it back."""
    browser = ordered.browser
    browser.drag(ordered.within("A", ".move"), ordered.row("C"))
    browser.says("The rules are in their new order.")
    assert ordered.admin.ids()[2:] == ["B", "C", "A", "D"] == ordered.names()[2:]
    # Rules of the file stay first, wherever the mouse is.
    browser.drag(ordered.within("D", ".move"), ordered.row("Second"))
    browser.until(lambda: ordered.admin.ids() == ["file", "second", "D", "B", "C", "A"])
    browser.until(lambda: ordered.within("D", ".number").text == "3")
    held = ActionChains(browser.driver).click_and_hold(ordered.within("D", ".move"))
    held.move_to_element(ordered.row("A")).send_keys(Keys.ESCAPE).release().perform()
    browser.says("D is back where it was.")
    assert ordered.names()[2:] == ["D", "B", "C", "A"]


def test_order_by_touch(ordered: Page) -> None:
    """So does a finger, on a phone."""
    browser = ordered.browser
    browser.looks(width=360, height=1600)
    browser.run("scrollTo(0, 0)")
    browser.swipe(ordered.within("A", ".move"), ordered.row("C"))
    browser.says("The rules are in their new order.")
    assert ordered.admin.ids()[2:] == ["B", "C", "A", "D"] == ordered.names()[2:]


def test_conflict_in_the_order(ordered: Page) -> None:
    """An order that was made of other rules than there are is not sent through."""
    ordered.freeze()
    ordered.admin.add(id="E", name="E", pattern="^/e", target=ordered.target)
    ordered.do("A", "down")
    ordered.browser.says("Somebody else has changed it.")
    assert ordered.names()[2:] == list("ABCDE") == ordered.admin.ids()[2:]


def test_many_rules(browser: Browser, start: Callable[..., Proxy], own_origin: Origin) -> None:
    """A thousand rules are listed, found by words, and moved among those that are found."""
    target = f"http://127.0.0.1:{own_origin.port}"
    rules = [{"name": f"Rule {number}", "pattern": f"^/r{number}$", "target": target} for number in range(1000)]
    page = Page(browser, start(admin=ADMIN, rules=rules), own_origin)
    for name in ("left", "hidden", "right"):
        page.admin.add(id=name, name=name, pattern="^/" if name == "hidden" else "^/found", target=target)
    page.sign_in()
    browser.says("1003 rules", "#rules-count")
    browser.fill("Filter", "rule 99 r99")
    browser.says("11 of 1003 rules", "#rules-count")
    browser.fill("Filter", "/found")
    assert page.names() == ["left", "right"]
    page.do("left", "down")
    browser.says("The rules are in their new order.")
    assert page.admin.ids()[-3:] == ["hidden", "right", "left"]
    browser.fill("Filter", "none of them")
    assert browser.text("#rules-none").startswith("No rule has this")


# What would happen


def test_explain(page: Page) -> None:
    """The rules tried, the one that matched and its captures, the request that would be sent, and how."""
    browser = page.browser
    page.add("Api", pattern="^/api/(?<rest>.*)$", rewrite="/v1/$<rest>", headers={"X-Key": "k", "Cookie": None})
    page.go("Explain")
    browser.fill("URL or path", "http://shop.test/api/cart?x=1")
    browser.fill("Headers", "Cookie: a=b\nAccept: text/plain")
    browser.click("#explain button")
    browser.says(f"Api sends it to {page.target}/v1/cart?x=1", "#explanation")
    told = browser.text("#explanation")
    for text in (
        "From the file: the pattern ^/static is not in the path", "Second: the host shop.test is none of a.test",
        "$&\n/api/cart", "$1\ncart", "$<rest>\ncart", f"GET {page.target}/v1/cart?x=1", "X-Key: k\nadded",
        "Cookie: a=b\nremoved", "Accept: text/plain", "direct: outbound.proxy is direct", "Authentication\nnone",
    ):
        assert text in told, told
    assert browser.focus == browser.one("#explanation .banner")
    browser.fill("URL or path", "/nowhere")
    browser.press(Keys.ENTER)
    browser.says("proxyd itself answers 404: no rule matches /nowhere", "#explanation")
    browser.fill("URL or path", "")
    browser.click("#explain button")
    browser.says("The URL is required.", "#explain .problem")
    browser.fill("URL or path", "/")
    browser.fill("Method", "X" * 30)
    browser.press(Keys.ENTER)
    browser.says("method: ", "#explain .problem")
    assert browser.focus == browser.control("Method")


# What is


def test_history(page: Page) -> None:
    """Changes are told field by field, the latest first, and taken back after a question."""
    browser = page.browser
    rule = page.add("Mine", rewrite="/old")
    page.admin.call("PUT", f"/api/rules/{rule}", {"rewrite": "/new"})
    page.go("History")
    browser.until(lambda: len(browser.all("#history li")) == 2)
    latest, first = browser.all("#history li")
    assert latest.find_element("css selector", "h3").text == "changed Mine" and "Change 2 by ops" in latest.text
    assert [one.text for one in latest.find_elements("css selector", "tbody tr")] == ["rewrite /old /new"]
    assert first.find_element("css selector", "h3").text == "added Mine"
    browser.click("#history button", "Roll back change 2")
    browser.says("“Mine” becomes what it was before change 2.", "#ask")
    browser.click("#ask-no")
    assert page.admin.call("GET", f"/api/rules/{rule}").json["rewrite"] == "/new"
    browser.click("#history button", "Roll back change 2")
    browser.click("#ask-yes")
    browser.says("Change 2 was rolled back.")
    assert page.admin.call("GET", f"/api/rules/{rule}").json["rewrite"] == "/old"
    browser.one("#history li", "rolled back Mine")
    browser.click("#history button", "Roll back change 2")
    browser.click("#ask-yes")
    browser.says("is as it was before that change already")
    browser.click("#history button", "Roll back change 1")
    browser.says("“Mine” is deleted: it did not exist before change 1.", "#ask")
    browser.click("#ask-yes")
    browser.says("Change 1 was rolled back.")
    assert page.admin.ids() == ["file", "second"]


def test_history_of_orders(ordered: Page) -> None:
    """A new order is told by the places of the rules that moved, and taken back likewise."""
    browser = ordered.browser
    ordered.admin.call("PUT", "/api/rules/reorder", {"ids": ["B", "A", "C", "D"]})
    ordered.go("History")
    latest = browser.one("#history li", "reordered the rules")
    rows = [one.text for one in latest.find_elements("css selector", "tbody tr")]
    assert rows == ["B 2 1", "A 1 2"]
    browser.click("#history button", "Roll back change 5")
    browser.click("#ask-yes")
    browser.says("Change 5 was rolled back.")
    assert ordered.admin.ids()[2:] == list("ABCD")


def test_older_changes(page: Page) -> None:
    """Fifty changes are shown, and more when asked for."""
    browser = page.browser
    rule = page.add("Mine")
    for _ in range(54):
        page.admin.call("PATCH", f"/api/rules/{rule}/toggle")
    page.go("History")
    browser.until(lambda: len(browser.all("#history li")) == 50)
    browser.click("#older")
    browser.until(lambda: len(browser.all("#history li")) == 55)
    browser.is_gone("#older")
    page.admin.call("PATCH", f"/api/rules/{rule}/toggle")
    browser.until(lambda: len(browser.all("#history li")) == 56)
    assert not browser.all("#older")


def test_connections(page: Page) -> None:
    """WebSockets are seen with what they carry, and closed one by one, or all of a rule."""
    browser = page.browser
    one, two = page.websocket("/static/one"), page.websocket("/static/two")
    one.client.sends(TEXT, b"hello")
    one.origin.gets(TEXT, b"hello")
    page.go("Connections")
    row = browser.one("#connections tr", "/static/one")
    browser.until(lambda: "11 B, 1 message" in row.text)
    for text in ("WebSocket, open", "127.0.0.1", "From the file → 127.0.0.1:"):
        assert text in row.text
    row.find_element("css selector", "button").click()
    browser.says("GET /static/one of 127.0.0.1 is closed.", "#ask")
    browser.run("document.querySelector('#close-code').value = '1001'")
    browser.click("#ask-yes")
    browser.says("One connection is closed.")
    one.client.is_closed(1001)
    one.origin.is_closed(1001)
    browser.until(lambda: len(browser.all("#connections tbody tr")) == 1)
    browser.click("#close-rule")
    assert browser.control("Rule").text == "From the file"
    browser.fill("Spread, seconds", "x")
    browser.click("#ask-yes")
    browser.one("#messages .bad")
    browser.click("#close-rule")
    browser.click("#ask-yes")
    browser.says("One connection is closed.")
    two.client.is_closed(1012)
    two.origin.is_closed(1012)
    browser.says("0 under way", "#connections-count")


def test_live_numbers(page: Page) -> None:
    """Requests, errors and latencies of the last seconds are seen as numbers, curves and text for who cannot see."""
    browser = page.browser
    page.websocket("/static/ws")
    for _ in range(5):
        page.ask("/static")
    page.origin.close()
    with page.proxy.connect() as client:
        client.request("GET", "/static")
        assert client.read_message().status == 502

    def label(title: str) -> str:
        labels = [one.get_attribute("aria-label") for one in browser.all("#charts svg")]
        return str(next(one for one in labels if one.startswith(title)))

    browser.until(lambda: " 0.0" not in label("Requests per second: now").partition(",")[0])
    browser.until(lambda: " 0.0" not in label("Errors per second: now").partition(",")[0])
    browser.until(lambda: "ms, p99 " in label("Latency: now p50 "))
    assert label("Open WebSockets") == "Open WebSockets: now 1, highest 1"
    assert browser.one("#charts figure", "Open WebSockets").text.split("\n")[-1] == "1"
    for curve in browser.run("return [...document.querySelectorAll('.curve')].map((one) => one.getAttribute('d'))"):
        assert curve.startswith("M") and "NaN" not in curve


def test_state_of_the_service(page: Page) -> None:
    """What a reload could not do is said, at once and as long as it holds."""
    browser = page.browser
    target = {"target": page.target}
    rules = [{"name": "Reloaded", "pattern": "^/", **target}]
    page.proxy.write({"admin": {**ADMIN, "hosts": ["admin.test"]}, "rules": rules})
    browser.click("#reload")
    browser.says("The configuration was reloaded: 1 rules. A restart is needed.")
    browser.until(lambda: page.names() == ["Reloaded"])
    browser.says("only in force after a restart: admin", "#banners")
    page.proxy.write({"admin": ADMIN, "rules": [{"name": "Bad", "pattern": "(", **target}]})
    browser.click("#reload")
    browser.says("The configuration was not reloaded")
    browser.one("#banners [role=alert]", "The configuration was not reloaded, the old one is in force")
    assert page.names() == ["Reloaded"]


def test_unreachable(browser: Browser, start: Callable[..., Proxy], own_origin: Origin) -> None:
    """When the API is gone the page says so, and goes on trying."""
    rule = {"name": "Only", "pattern": "^/", "target": f"http://127.0.0.1:{own_origin.port}"}
    page = Page(browser, start(admin=ADMIN, rules=[rule]), own_origin)
    page.sign_in()
    page.proxy.stop()
    browser.says("proxyd cannot be reached. Trying again every two seconds.", "#banners [role=alert]")
    admin = {**ADMIN, "listen": [f"tcp:{page.proxy.admin_ports[0]}:interface=127.0.0.1"]}
    start(admin=admin, rules=[{**rule, "name": "Back"}])
    browser.is_gone("#banners [role=alert]")
    browser.until(lambda: page.names() == ["Back"])


# For everybody, and against some


def test_hostile_text(page: Page) -> None:
    """Whatever rules, paths and answers hold is text."""
    browser = page.browser
    rule = page.add(HOSTILE, pattern=HOSTILE, headers={"X": HOSTILE}, rewrite="/%3Cb>")
    page.websocket("/static/<script>alert(1)</script>")
    page.go("Connections")
    browser.one("#connections tr", "<script>alert(1)</script>")
    page.go("History")
    browser.one("#history li", f"added {HOSTILE}")
    page.go("Explain")
    browser.fill("URL or path", "/<img/src=x>")
    browser.press(Keys.ENTER)
    browser.one("#explanation", HOSTILE)
    page.go("Rules")
    page.do(HOSTILE, "delete")
    browser.says(f"“{HOSTILE}” is deleted at once.", "#ask")
    browser.click("#ask-yes")
    browser.says(f"{HOSTILE} was deleted.")
    assert rule not in page.admin.ids()
    assert browser.run("return document.querySelectorAll('img, script:not([src])').length") == 1


def test_policy(page: Page) -> None:
    """What the policy of the page stops is told in the console: an empty one says something."""
    browser = page.browser
    for script, directive in (
        ("document.body.setAttribute('style', 'color: red')", "style-src"),
        ("document.body.append(Object.assign(document.createElement('img'), {src: 'data:image/png,x'}))", "img-src"),
        ("try { document.body.innerHTML = '<b>' } catch {}", "TrustedHTML"),
    ):
        browser.run(script)
        browser.until(lambda said=directive: any(said in one for one in browser.complaints()), directive)
    # What was stopped is listed with what was asked for.
    browser.run("performance.clearResourceTimings()")


def dialogs(page: Page) -> Iterator[str]:
    """Open each dialog, one after the other."""
    browser = page.browser
    page.go("Rules")
    browser.click("#add")
    browser.run("for (const one of document.querySelectorAll('#rule details')) one.open = true")
    browser.click("button", "Add a header")
    browser.click("#rule-save")
    browser.says("things are wrong.", "#rule .problem")
    yield "the form"
    browser.click("#rule-cancel")
    browser.one("#ask")
    yield "the question"
    browser.click("#ask-yes")
    browser.is_gone("#rule")


def full(page: Page) -> None:
    """Put something into each section."""
    browser = page.browser
    page.add("Mine", enabled=False, auth="none", rewrite="/a")
    page.add("A rather long name, without which no page breaks" * 4, pattern="^/" + "x" * 300)
    page.websocket("/static/" + "y" * 200)
    page.go("Explain")
    browser.fill("URL or path", "/static")
    browser.press(Keys.ENTER)
    browser.one("#explanation h3")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_barriers(locked: Page, scheme: str) -> None:
    """axe-core finds nothing against WCAG 2.2 AA: names, labels, order of headings, contrast, sizes of targets."""
    browser = locked.browser
    browser.looks(scheme=scheme)
    browser.one("#sign-in")
    assert browser.barriers() == []
    locked.sign_in()
    full(locked)
    for view in VIEWS:
        locked.go(view)
        browser.until(lambda view=view: browser.all(f"#view-{view.lower()} tr, #view-{view.lower()} li"))
        assert browser.barriers() == [], view
    for dialog in dialogs(locked):
        assert browser.barriers() == [], dialog


def test_barriers_are_found(page: Page) -> None:
    """axe-core looks at all: a button without a name, and text that is hard to read."""
    page.browser.run("document.querySelector('#add').textContent = ''")
    page.browser.run("document.querySelector('#forget').style.color = '#bbb'")
    assert {"button-name", "color-contrast"} <= {one[0] for one in page.browser.barriers()}


@pytest.mark.parametrize("width", [320, 360])
def test_phone(page: Page, width: int) -> None:
    """On a phone nothing is wider than the screen, but what scrolls by itself; 320 is 1280 at 400 %."""
    browser = page.browser
    browser.looks(width=width, height=700)
    full(page)
    wide = "return [document.scrollingElement.scrollWidth, window.innerWidth, window.visualViewport.width]"
    for view in VIEWS:
        page.go(view)
        browser.until(lambda view=view: browser.all(f"#view-{view.lower()} tr, #view-{view.lower()} li"))
        assert browser.run(wide) == [width] * 3, view
        assert browser.barriers() == [], view
    for dialog in dialogs(page):
        assert browser.run(wide) == [width] * 3, dialog
        inner = "const one = document.querySelector('#fields'); return one.scrollWidth <= one.clientWidth"
        assert browser.run(inner), dialog


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_tab(page: Page, scheme: str) -> None:
    """Tab comes to all that can be used, each is seen where the focus is, and none is too small to be hit."""
    browser = page.browser
    browser.looks(scheme=scheme)
    full(page)
    for view in VIEWS:
        page.go(view)
        browser.until(lambda view=view: browser.all(f"#view-{view.lower()} tr, #view-{view.lower()} li"))
        walk(browser)
    browser.click("nav a", "Rules")
    browser.click("#add")
    walk(browser)


def walk(browser: Browser) -> None:
    """Press Tab until it has come round."""
    wanted = browser.run(_TABBABLE)
    seen = 0
    while True:
        browser.press(Keys.TAB)
        html, turn, style, outline, width, height, is_on_top = browser.run(_SHOWN)
        # Between the last one and the first one, the browser has the focus itself.
        if html.startswith("<body"):
            continue
        if turn == "again":
            assert seen == wanted
            return
        seen += 1
        assert style != "none" and outline >= 2, html
        # A box to tick is as large as its label.
        assert "checkbox" in html or min(width, height) >= 24, html
        assert is_on_top, html
