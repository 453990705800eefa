"""Makes the pictures of docs/howto/dashboard.md: python tests/browser/screenshots.py [folder]"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from selenium.webdriver.common.keys import Keys

from browser.chromium import PHONE, Browser
from browser.stage import ADMIN_KEY, Stage, Stories

MAX_BYTES = 150_000


def shoot(url: str, stories: Stories, folder: Path) -> None:
    def keep(name: str) -> None:
        path = folder / f"pages-{name}.png"
        browser.save(str(path))
        print(f"{path}: {path.stat().st_size:,} bytes")
        assert path.stat().st_size < MAX_BYTES, "too large for the documentation"

    with Browser(url, ADMIN_KEY) as browser:
        browser.log_in()
        browser.look((1120, 640))
        browser.go("/")
        browser.until(lambda: "UTC" not in browser.says("#past"), "the times are not of here")
        keep("overview")
        browser.look((1120, 900))
        browser.go(f"/calls/{stories.refused_transfer}")
        keep("call")
        browser.look((1120, 760))
        browser.run("document.querySelector('.ladder a').focus()")
        browser.press(Keys.ENTER)
        browser.until(lambda: browser.all("dialog[open] .message"), "no dialog")
        keep("message")
        browser.look((1120, 620), dark=True)
        browser.go(f"/calls/{stories.transferred}")
        browser.until(lambda: browser.all(".wave.drawn") and browser.all(".chart canvas"), "nothing is drawn")
        browser.run("document.getElementById('recording').scrollIntoView()")
        keep("talk")
        browser.look(PHONE, dark=True)
        browser.go("/")
        keep("phone")


async def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as data:
        async with Stage(Path(data)) as stage:
            stories = await stage.play()
            await asyncio.to_thread(shoot, stage.url, stories, folder)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images")))
