"""A real Chromium that tests drive as people do: by what is seen, clicked and typed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver import ActionChains, Chrome, ChromeOptions, ChromeService
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from tests.support.peers import SCRIPTS
from tests.support.proxy import PATIENCE_S

_ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,900"),
    # Scripts are told the accessible names: asked for one by one, they take most of the time.
    "--enable-blink-features=ComputedAccessibilityInfo",
)

_SEEN = """
return [...document.querySelectorAll(arguments[0])]
  .filter((one) => one.getClientRects().length && one.checkVisibility({visibilityProperty: true}))
"""

_CALLED = _SEEN + ".filter((one) => one.computedName === arguments[1])"

_NAMED = _SEEN + ".filter((one) => one.innerText?.includes(arguments[1]) || one.computedName.includes(arguments[1]))"

_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
"""What axe-core looks at: WCAG 2.2, levels A and AA, and what is good practice beside."""

_AXE = """
const done = arguments[arguments.length - 1];
axe.run(document, {runOnly: arguments[0]}).then(
  (found) => done(found.violations.map((one) => [one.id, one.help, one.nodes.map((node) => node.html)])),
  (error) => done([['failed', String(error), []]]));
"""

Found = TypeVar("Found")


class Browser:
    """One browser, with one tab."""

    def __init__(self) -> None:
        options = ChromeOptions()
        for argument in _ARGUMENTS:
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        options.binary_location = _program("chromium")
        # Both programs are named: otherwise selenium would look for them in the internet.
        self.driver = Chrome(options, ChromeService(_program("chromedriver")))

    def quit(self) -> None:
        """End it."""
        self.driver.quit()

    def forget(self) -> None:
        """Be as new: nothing kept, nothing emulated, nothing logged."""
        # Only a page of that origin can forget what it has kept.
        self.driver.execute_script("try { sessionStorage.clear() } catch {}")
        self.driver.get("about:blank")
        self.looks()
        self.driver.get_log("browser")

    def looks(self, *, scheme: str = "light", width: int = 1280, height: int = 900) -> None:
        """
        How the screen is.

        @param scheme: C{light} or C{dark}, as the user likes it.
        @param width: of the window, CSS pixels; of less than 800 it is a phone's.
        """
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 800}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def shoot(self, file: Path) -> None:
        """Keep a picture of what is seen."""
        self.driver.save_screenshot(str(file))

    # What is there

    def until(self, found: Callable[[], Found], what: str = "") -> Found:
        """
        Wait for what is not false.

        @param what: what is waited for, for the error.
        """
        wait = WebDriverWait(
            self.driver, PATIENCE_S, 0.05, (NoSuchElementException, StaleElementReferenceException, IndexError)
        )
        return wait.until(lambda _: found(), what)

    def all(self, selector: str) -> list[WebElement]:
        """What a selector of CSS finds, and is seen."""
        return list(self.run(_SEEN, selector))

    def one(self, selector: str, text: str = "") -> WebElement:
        """Wait until something is seen, whose text or accessible name holds C{text}."""
        return self.until(lambda: self.run(_NAMED, selector, text)[0], f"{selector} {text}")

    def text(self, selector: str) -> str:
        """The text of the first that is seen, or nothing."""
        found = self.all(selector)
        return found[0].text if found else ""

    def says(self, text: str, selector: str = "#messages") -> None:
        """Wait until something says this."""
        self.until(lambda: text in self.text(selector), f"{selector} says {text!r}, not {self.text(selector)!r}")

    def is_gone(self, selector: str) -> None:
        """Wait until nothing of it is seen."""
        self.until(lambda: not self.all(selector), f"{selector} is gone")

    @property
    def focus(self) -> WebElement:
        """What has the focus."""
        return self.driver.switch_to.active_element

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script of the test returns."""
        return self.driver.execute_script(script, *arguments)

    # What people do

    def click(self, selector: str, text: str = "") -> None:
        """Click on something, once it is there."""
        self.until(lambda: self.one(selector, text).click() or True)

    def fill(self, label: str, text: str) -> WebElement:
        """
        Type into the control of this label, in place of what it holds.

        @return: the control.
        """
        control = self.control(label)
        control.clear()
        control.send_keys(text)
        return control

    def control(self, label: str) -> WebElement:
        """The control that is seen and has exactly this name."""
        return self.until(
            lambda: self.run(_CALLED, "input, textarea, select", label)[0], f"a control called {label}"
        )

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, wherever the focus is."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def drag(self, grip: WebElement, to: WebElement) -> None:
        """Press the mouse button, move beyond the middle of something, and let go."""
        below = to.rect["height"] // 4 * (1 if to.rect["y"] > grip.rect["y"] else -1)
        actions = ActionChains(self.driver).click_and_hold(grip)
        actions.move_to_element_with_offset(to, 0, below // 2).move_to_element_with_offset(to, 0, below)
        actions.release().perform()

    def swipe(self, grip: WebElement, to: WebElement) -> None:
        """Touch something, and take it to the lower end of something else with the finger."""
        x, y = self._middle(grip)
        end = to.rect["y"] + to.rect["height"] - 4 - self.run("return scrollY")
        self._touch("touchStart", x, y)
        for step in range(1, 6):
            self._touch("touchMove", x, y + (end - y) * step / 5)
        self._touch("touchEnd")

    def _middle(self, one: WebElement) -> tuple[float, float]:
        box = self.run("return arguments[0].getBoundingClientRect().toJSON()", one)
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def _touch(self, kind: str, *place: float) -> None:
        points = [dict(zip("xy", place, strict=True))] if place else []
        self.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    # What must not be

    def complaints(self) -> list[str]:
        """What is in the console: errors of scripts, and what the Content-Security-Policy has stopped."""
        # Answers of 400 and above are told of as well: the page asks for them.
        lines = [one for one in self.driver.get_log("browser") if one["source"] != "network"]
        return [one["message"] for one in lines]

    def barriers(self) -> list[Any]:
        """What axe-core finds that bars people."""
        if not self.run("return typeof axe === 'object'"):
            self.run((SCRIPTS / "node_modules/axe-core/axe.min.js").read_text())
        return list(self.driver.execute_async_script(_AXE, _RULES))


def _program(name: str) -> str:
    found = shutil.which(name)
    assert found is not None, f"{name} is not installed"
    return found
