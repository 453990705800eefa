"""Chromium without a window, and what tests ask of a page in it."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

__all__ = ["Browser", "binaries"]

DESKTOP, PHONE = (1280, 900), (390, 844)


def binaries() -> tuple[str, str]:
    """Return where chromium and its driver are; without them the run ends, and says what to install."""
    found = shutil.which("chromium"), shutil.which("chromedriver")
    if not all(found):
        sys.exit("the browser tests need Debian's chromium and chromium-driver: apt-get install them")
    return str(found[0]), str(found[1])


class Browser:
    """One browser window at the node's pages. Use as a context manager."""

    def __init__(self, url: str, key: str) -> None:
        self.url, self._key = url, key
        chromium, driver = binaries()
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--lang=en"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        self.look()

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.quit()

    def look(self, size: tuple[int, int] = DESKTOP, *, dark: bool = False, script: bool = True) -> None:
        """Be a screen of this size, of somebody who likes it dark or not, with or without scripts."""
        width, height = size
        self._tell(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 500,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self._tell("Emulation.setEmulatedMedia", features=[scheme, still])
        self._tell("Emulation.setScriptExecutionDisabled", value=not script)

    def go(self, path: str) -> None:
        self.driver.get(self.url + path)

    def log_in(self, key: str = "") -> None:
        self.go("/login")
        if self.path != "/login":
            return
        self.one("#key").send_keys((key or self._key) + Keys.ENTER)
        self.until(lambda: self.path != "/login" or self.all("[role=alert]"), "no answer to the login")

    @property
    def path(self) -> str:
        return self.driver.current_url.removeprefix(self.url)

    @property
    def text(self) -> str:
        return self.says("body")

    def says(self, selector: str) -> str:
        """Return what stands there now, if anything; in one go, since pages change under one's hands."""
        return str(
            self.run(
                "const one = document.querySelector(arguments[0]); return one?.innerText ?? one?.textContent ?? ''",
                selector,
            )
        )

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def press(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def focused(self, attribute: str) -> str | None:
        return self.driver.switch_to.active_element.get_attribute(attribute)

    def until(self, holds: Callable[[], object], otherwise: str, timeout: float = 15.0) -> None:
        deadline = time.monotonic() + timeout
        while not holds():
            assert time.monotonic() < deadline, (
                f"{otherwise} within {timeout} s; the page says: {self.text[:2000]}"
            )
            time.sleep(0.05)

    def complaints(self) -> list[str]:
        """Return what the console says since the last time that is not mere advice."""
        return [
            f"{line['level']}: {line['message']}"
            for line in self.driver.get_log("browser")
            if line["level"] in ("SEVERE", "WARNING") or "Content Security Policy" in line["message"]
        ]

    def save(self, path: str, *, whole: bool = False) -> None:
        """Keep a picture of what is seen, or of the whole page."""
        if whole:
            width, height = self.run("return [innerWidth, document.documentElement.scrollHeight]")
            self._tell(
                "Emulation.setDeviceMetricsOverride",
                width=width, height=height, deviceScaleFactor=1, mobile=width < 500,
            )  # fmt: skip
        self.driver.save_screenshot(path)

    def _tell(self, command: str, **arguments: Any) -> None:
        self.driver.execute_cdp_cmd(command, arguments)


PALE = """
const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const rgba = (text) => text.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const solid = (color) => color.length < 4 || color[3] === 1;
const behind = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const color = rgba(getComputedStyle(at).backgroundColor);
    if (solid(color)) return color;
  }
  return rgba(getComputedStyle(document.documentElement).backgroundColor);
};
const pale = new Set();
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node = walker.nextNode(); node; node = walker.nextNode()) {
  const element = node.parentElement;
  if (!node.textContent.trim() || !element.getClientRects().length) continue;
  if (element.closest("title, script, option, .visually-hidden, .skip")) continue;
  const style = getComputedStyle(element);
  const inside = element.namespaceURI.endsWith("svg");
  let back = behind(element);
  if (inside) {
    const box = element.parentElement.querySelector("rect.note");
    const fill = box && getComputedStyle(box).fill;
    if (fill && fill !== "none" && solid(rgba(fill))) back = rgba(fill);
  }
  const [first, second] = [light(rgba(inside ? style.fill : style.color)), light(back)].sort((a, b) => b - a);
  const ratio = (first + 0.05) / (second + 0.05);
  const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.6 && style.fontWeight >= 700);
  if (ratio < (large ? 3 : 4.5)) pale.add(`${ratio.toFixed(2)}: ${node.textContent.trim().slice(0, 40)}`);
}
return [...pale];
"""
"Returns the texts whose contrast is under that of WCAG 2.2, 1.4.3 (AA)."
