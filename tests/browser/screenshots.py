"""Makes the pictures of docs/howto/dashboard.md: python tests/browser/screenshots.py [folder]"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sqlite3
import sys
import tempfile
import time
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

    def show(name: str, path: str, height: int, *, dark: bool = False) -> None:
        browser.look((1120, height), dark=dark)
        browser.go(path)
        browser.until(lambda: "UTC" not in browser.says("main time"), "the times are not of here")
        keep(name)

    with Browser(url, ADMIN_KEY) as browser:
        browser.look((1120, 440))
        browser.go("/login")
        keep("login")
        browser.log_in()
        show("overview", "/", 760)
        show("calls", "/calls?q=anna+miller&state=ended", 470)
        show("call", f"/calls/{stories.refused_transfer}", 900)
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
        show("refused", "/refused", 480)
        show("deliveries", "/deliveries", 720)
        show("delivery", stories.delivery, 720)
        show("webhooks", "/webhooks", 900)
        show("endpoint", stories.endpoint, 700)
        show("projects", "/projects", 620)
        show("project", "/projects/proj_clinic", 800)
        show("capacity", "/capacity?hours=24", 1000, dark=True)
        browser.look(PHONE, dark=True)
        browser.go("/")
        keep("phone")


def live_through_a_day(database: Path) -> None:
    """Put calls of a made-up day into the database, each like one that was placed, to have something to plot."""
    chance, now = random.Random(1), time.time()
    with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection:
        connection.row_factory = sqlite3.Row
        query = "SELECT * FROM calls WHERE state = 'ended' AND answered_at IS NOT NULL"
        answered = [dict(row) for row in connection.execute(query)]
        for number in range(700):
            ago = 3600 * chance.triangular(2.5, 22, 9)
            if 13 < ago / 3600 < 14.5:
                continue  # a quiet while, in which there is nothing to measure
            row = {**chance.choice(answered), "id": f"rtc_u0_{number:032x}", "created_at": now - ago}
            row["answered_at"] = row["created_at"] + chance.triangular(0.4, 4, 0.9)
            row["ended_at"] = row["answered_at"] + chance.triangular(20, 900, 90)
            described = json.loads(row["described"])
            for way in ("inbound", "outbound"):
                lost = max(0.0, chance.gauss(-0.5, 1))
                described["media"][way] |= {"loss_percent": lost, "mos": round(4.39 - lost / 4, 2)}
                described["media"][way]["lost"] = int(described["media"][way]["packets"] * lost / 100)
            fate = chance.random()
            if fate < 0.06:
                row |= {"answered_at": None, "result": "client_error", "reason": "unanswered"}
            elif fate < 0.09:
                row |= {"result": "server_error", "reason": "failed"}
            row["described"] = json.dumps(
                described | {name: row[name] for name in ("id", "created_at", "answered_at", "ended_at")}
            )
            marks = ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO calls ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))
        connection.commit()


async def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as data:
        async with Stage(Path(data)) as stage:
            stories = await stage.play()
            await asyncio.to_thread(live_through_a_day, stage.node.data_dir / "offhook.db")
            await asyncio.to_thread(shoot, stage.url, stories, folder)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images")))
