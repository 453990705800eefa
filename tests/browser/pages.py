"""The pages in Chromium, with real calls: `make browser`."""

from __future__ import annotations

import pytest
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver.common.keys import Keys

from browser.chromium import PALE, PHONE, Browser
from browser.stage import HOSTILE_NAME, Stories

PAGES = (
    "/",
    "/calls",
    "/calls?q=nobody",
    "{transferred}",
    "{hostile}",
    "{unanswered}",
    "{live}",
    "{message}",
    "/refused",
    "/projects",
    "/projects/proj_0",
    "/projects/proj_clinic",
    "/capacity",
    "/webhooks",
    "{endpoint}",
    "/deliveries",
    "{delivery}",
)

BEYOND = """
return [...document.querySelectorAll("main *, header *")]
  .filter((one) => !one.closest("svg, .scroll, nav, pre, .visually-hidden"))
  .filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
  .map((one) => one.outerHTML.slice(0, 120));
"""
"Returns what reaches past the right edge, though it cannot be scrolled there by itself."


@pytest.fixture
def stories(running) -> Stories:
    return running.stage.stories


def path_of(page: str, stories: Stories) -> str:
    named = {
        name: f"/calls/{getattr(stories, name)}" for name in ("transferred", "hostile", "unanswered", "live")
    }
    return page.format(
        **named,
        message=f"/calls/{stories.hostile}/entries/0",
        endpoint=stories.endpoint,
        delivery=stories.delivery,
    )


def test_the_key_opens_the_page_that_was_asked_for(browser: Browser) -> None:
    browser.one("header form[action='/logout'] button").click()
    browser.until(lambda: browser.path == "/login", "not logged out")
    browser.go("/calls?state=ended")
    assert browser.path.startswith("/login?next=")
    browser.one("#key").send_keys("a wrong key" + Keys.ENTER)
    browser.until(lambda: browser.all("[role=alert]"), "no word about the wrong key")
    assert browser.says("[role=alert]") == "This is not the admin key."
    assert len(browser.complaints()) == 1, "the browser tells of the 403, and of nothing else"
    browser.one("#key").send_keys("ak-offhook-browser-tests" + Keys.ENTER)
    browser.until(lambda: browser.path == "/calls?state=ended", "not where it was to lead")


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_page_can_be_read(browser: Browser, stories: Stories, page: str, dark: bool) -> None:
    browser.look(dark=dark)
    browser.go(path_of(page, stories))
    assert browser.one("h1")
    assert browser.run(PALE) == []
    assert browser.complaints() == []


@pytest.mark.parametrize("page", PAGES)
def test_a_phone_need_not_scroll_sideways(browser: Browser, stories: Stories, page: str) -> None:
    browser.look(PHONE)
    browser.go(path_of(page, stories))
    assert browser.run("return document.documentElement.scrollWidth") <= PHONE[0]
    assert browser.run(BEYOND) == []


def test_what_a_caller_is_called_is_text(browser: Browser, stories: Stories) -> None:
    seen = HOSTILE_NAME.replace("\u202e", "")
    browser.go(f"/calls/{stories.hostile}")
    assert seen[:50] in browser.says("h1")
    browser.go(f"/calls/{stories.hostile}/entries/0")
    assert seen in browser.says(".message")
    assert "\x1b" not in browser.says(".message")
    browser.go("/")
    assert browser.run("return document.querySelectorAll('main script, main img').length") == 0
    with pytest.raises(NoAlertPresentException):
        _ = browser.driver.switch_to.alert


def test_a_call_shows_while_it_rings_and_when_it_is_over(browser: Browser, running, stories: Stories) -> None:
    browser.go("/")
    browser.run(
        "window.here = true; window.row = document.getElementById(arguments[0])", f"row-{stories.live}"
    )
    call_id, call = running.do(running.stage.answered("Ms Newcomer"))
    browser.until(lambda: "Ms Newcomer" in browser.says("#live"), "the call does not show")
    call_link = browser.one(f"#row-{call_id} a")
    browser.run("arguments[0].focus()", call_link)
    running.do(running.stage.end(call))
    browser.until(lambda: "Ms Newcomer" in browser.says("#past"), "the call's end does not show")
    assert browser.run("return window.here"), "the page was not loaded anew"
    assert browser.run("return row.isConnected && row === document.getElementById(row.id)"), (
        "rows stay what they are"
    )


def test_a_failed_transfer_says_why_on_the_first_page(browser: Browser, stories: Stories) -> None:
    browser.go("/")
    row = browser.one(f"#row-{stories.refused_transfer}")
    assert "486 Busy Here" in row.text
    row.find_element("css selector", "a").click()
    browser.until(
        lambda: browser.path == f"/calls/{stories.refused_transfer}", "the row does not lead to its call"
    )
    assert "486 Busy Here" in browser.says("section[aria-labelledby=refers]")


def test_a_call_tells_its_story(browser: Browser, stories: Stories) -> None:
    browser.go(f"/calls/{stories.transferred}")
    assert "The caller was transferred to tel:+14155550123" in browser.says(".verdict")
    browser.one(".verdict .shows a").click()
    assert browser.path.endswith(browser.one(".ladder .evidence").get_attribute("id"))
    steps = [step.text for step in browser.all(".ladder a")]
    for said in ("INVITE", "REFER to tel:+14155550123", "NOTIFY 200 OK", "BYE", "POST accept: 200"):
        assert any(said in step for step in steps), f"no {said} in {steps}"
    talk = browser.says("section[aria-labelledby=transcript]")
    assert (
        talk.index("when are you open?") < talk.index("From nine to five") < talk.index("One moment, please.")
    )
    assert browser.all(".chart canvas"), "the turns are not drawn"
    assert len(browser.all("#turn-table tbody tr")) == 3
    assert "realtime.call.incoming" in browser.says("section[aria-labelledby=webhooks]")


def test_a_recording_is_drawn_and_plays_from_where_a_line_was_said(
    browser: Browser, stories: Stories
) -> None:
    browser.go(f"/calls/{stories.transferred}")
    browser.until(lambda: browser.all(".wave.drawn"), "the waveform is not drawn")
    browser.until(
        lambda: browser.run("return document.querySelector('audio').duration > 2"), "no sound was loaded"
    )
    browser.run("document.querySelector('audio').muted = true")
    browser.one(".talk li.agent [data-play]").click()
    browser.until(
        lambda: browser.run(
            "const a = document.querySelector('audio'); return a.currentTime > 0.2 && !a.error"
        ),
        "it does not play",
    )


def test_the_keyboard_reaches_all(browser: Browser, stories: Stories) -> None:
    browser.go("/calls?state=ended")
    browser.press(Keys.TAB)
    assert browser.focused("class") == "skip"
    browser.press("/")
    assert browser.focused("name") == "q"
    browser.press("j")
    assert browser.focused("value") == "j", "while one types, letters are letters"
    browser.press(Keys.ESCAPE)
    browser.press("j", "j", "k")
    first = browser.one(".rows a[data-item]")
    assert browser.driver.switch_to.active_element == first
    href = first.get_attribute("href")
    browser.press(Keys.ENTER)
    browser.until(lambda: browser.url + browser.path == href, "Enter does not open the call")

    browser.go(f"/calls/{stories.transferred}")
    browser.run("document.querySelector('.ladder a').focus()")
    browser.press("j", Keys.ENTER)
    browser.until(lambda: browser.all("dialog[open] .message"), "no dialog")
    assert browser.says("dialog .message").startswith("SIP/2.0 100 Trying")
    browser.press("k")
    browser.until(lambda: browser.says("dialog .message").startswith("INVITE"), "k does not go back")
    browser.press(Keys.ESCAPE)
    browser.until(lambda: not browser.all("dialog[open]"), "Escape does not close it")
    assert browser.focused("id") == "e1", "the focus is where it was"


def test_a_key_is_made_and_shown_once_by_keyboard_alone(browser: Browser) -> None:
    browser.go("/projects/proj_clinic")
    browser.run("document.getElementById('key-name').focus()")
    browser.press(*"for the test", Keys.ENTER)
    browser.until(lambda: browser.all(".secret pre"), "no key")
    key = browser.says(".secret pre")
    assert key.startswith("sk-offhook-")
    rows = len(browser.all("section[aria-labelledby=keys] tbody tr"))
    browser.driver.refresh()
    browser.until(lambda: "not shown again" in browser.text, "nothing says that it was shown before")
    assert key not in browser.driver.page_source
    assert len(browser.all("section[aria-labelledby=keys] tbody tr")) == rows, "the form is not sent again"
    browser.driver.back()
    assert key not in browser.driver.page_source


def test_who_is_no_longer_logged_in_is_led_to_the_login(browser: Browser, stories: Stories) -> None:
    """A page that asks after the node by itself must not go on showing what it had."""
    browser.go("/")
    browser.driver.delete_all_cookies()
    browser.until(lambda: browser.path.startswith("/login"), "the overview stays as it is")
    browser.log_in()
    browser.go(f"/calls/{stories.transferred}")
    browser.driver.delete_all_cookies()
    browser.one(".ladder a").click()
    browser.until(lambda: browser.path.startswith("/login?next="), "the step opens without a login")
    browser.log_in()


def test_what_one_has_opened_stays_open_while_the_page_goes_on(browser: Browser, stories: Stories) -> None:
    browser.go(f"/calls/{stories.live}")
    browser.run("window.mine = document.querySelector('#call details'); mine.open = true")
    asked = (
        "return performance.getEntriesByType('resource').filter((one) => one.name === location.href).length"
    )
    before = browser.run(asked)
    browser.until(lambda: browser.run(asked) > before + 1, "the page does not go on")
    assert browser.run("return mine.isConnected && mine.open")


@pytest.mark.parametrize("page", ["/", "/projects", "/refused", "/capacity"])
def test_the_open_pages_name_is_in_sight(browser: Browser, page: str) -> None:
    for size in (PHONE, (900, 700), (1120, 700)):
        browser.look(size)
        browser.go(page)
        assert browser.run(
            "const at = document.querySelector('nav [aria-current]').getBoundingClientRect();"
            "return at.left >= 0 && at.right <= innerWidth"
        ), f"{page} at {size}"
        assert browser.one(".brand").size["height"] < 30, f"the name of the node's maker is broken at {size}"


def test_colours_are_as_one_chooses(browser: Browser) -> None:
    browser.go("/")
    back = "return getComputedStyle(document.body).backgroundColor"
    light, switch = browser.run(back), browser.one("[data-switch-theme]")
    switch.click()
    switch.click()
    assert switch.get_attribute("aria-label") == "Colours: dark"
    dark = browser.run(back)
    assert dark != light
    browser.go("/calls")
    assert browser.run(back) == dark
    browser.one("[data-switch-theme]").click()
    assert browser.run(back) == light


def test_all_can_be_read_without_scripts(browser: Browser, stories: Stories) -> None:
    browser.look(script=False)
    browser.go("/")
    assert "UTC" in browser.says("#past")
    browser.go(f"/calls/{stories.transferred}")
    assert "From nine to five" in browser.text
    assert not browser.one("[data-switch-theme]").is_displayed(), "what does nothing is not there"
    browser.one("#e0").click()
    browser.until(lambda: browser.path.endswith("/entries/0"), "the step leads nowhere")
    assert browser.says(".message").startswith("INVITE sip:")
    browser.one("a[rel=next]").click()
    browser.until(lambda: browser.path.endswith("/entries/1"), "no next step")


def test_a_live_calls_page_goes_on(browser: Browser, running) -> None:
    call_id, call = running.do(running.stage.answered("Ms Talkative"))
    browser.go(f"/calls/{call_id}")
    assert "active" in browser.says(".head")
    browser.run("window.here = true")
    running.do(running.stage.say(call))
    browser.until(lambda: "when are you open?" in browser.text, "what was said does not show")
    browser.until(lambda: browser.all(".chart canvas"), "the turn is not drawn")
    running.do(running.stage.end(call))
    browser.until(lambda: "remote hangup" in browser.says(".head"), "its end does not show")
    browser.until(lambda: "BYE" in browser.says(".ladder"), "the BYE does not show")
    assert browser.run("return window.here")
    assert browser.run("return document.getElementById('call').hasAttribute('hx-trigger')") is False
