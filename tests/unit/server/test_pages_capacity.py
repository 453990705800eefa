"""The page of capacity, and the figures over time that the admin API gives as well."""

import re

import httpx2
import pytest

from offhook.calls.past import PastUnavailable
from offhook.calls.statistics import CallPeriod, Spread
from offhook.server import AdminKey, ServerServices, create_app
from offhook.tenants import ConfiguredProjects

from .conftest import CLOCK, FakeCalls

KEY = "ak-offhook-test-0123456789"
ADMIN = {"Authorization": f"Bearer {KEY}"}


class Figures:
    """As many periods as are asked for; the last one has calls."""

    def __init__(self):
        self.error = None
        self.asked = []

    async def periods(self, since, width_s, count):
        self.asked.append((since, width_s, count))
        if self.error is not None:
            raise self.error
        idle = [CallPeriod(since + number * width_s) for number in range(count - 1)]
        last = CallPeriod(
            since + (count - 1) * width_s, 10, 8, 1, 2, 5, Spread(0.5, 1.25), Spread(4.4, 3.1), 0.0, None
        )
        return [*idle, last]


def capacity():
    return {
        "calls": {"live": 3, "max": 400, "projects": {"proj_<b>": 3}},
        "ports": {"free": 97, "total": 100},
        "engines": [
            {"kind": "local", "max_sessions": 8, "free": 5, "promised": 1},
            {"kind": "scripted", "free": None, "promised": 0},
        ],
        "store": {"waiting": 7, "lost": 2, "trouble": None},
    }


@pytest.fixture
def figures():
    return Figures()


def client_of(**options):
    services = ServerServices(
        projects=ConfiguredProjects([]), calls=FakeCalls(), clock=CLOCK, admin_key=AdminKey(KEY), **options
    )
    transport = httpx2.ASGITransport(app=create_app(services))
    return httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080")


@pytest.fixture
async def client(figures):
    async with client_of(statistics=figures, capacity=capacity) as client:
        await client.post("/login", data={"key": KEY})
        yield client


async def test_the_page_shows_the_present_and_the_past(client):
    page = await client.get("/capacity")
    assert page.status_code == 200
    assert page.headers["cache-control"] == "no-store"
    for said in (
        "of 400",
        "Engine local",
        "2 lost since the start",
        "proj_&lt;b&gt;",
        "0.50 s",
        "3.10",
        "80 %",
    ):
        assert said in page.text, said
    assert "Engine scripted" not in page.text, "it has no limit"
    assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=|javascript:", page.text)
    client.cookies.clear()
    assert (await client.get("/capacity")).headers["location"].startswith("/login?next=")


@pytest.mark.parametrize(
    ("asked", "hours"), [("1", 1), ("168", 168), ("5", 6), ("²", 6), ("x", 6), ("9" * 5_000, 6)]
)
async def test_it_looks_back_as_far_as_is_asked_for(client, figures, asked, hours):
    assert (await client.get("/capacity", params={"hours": asked})).status_code == 200
    ((since, width_s, count),) = figures.asked
    assert width_s * count == hours * 3600
    assert since % width_s == 0
    assert since + width_s * count > CLOCK.wall() - 1


async def test_the_api_has_the_same_figures(client):
    found = await client.get("/admin/api/capacity/history?hours=1", headers=ADMIN)
    assert found.status_code == 200
    body = found.json()
    assert (body["object"], body["hours"], body["width_s"], len(body["data"])) == (
        "capacity.history",
        1,
        60,
        60,
    )
    assert body["data"][-1]["setup_s"] == {"median": 0.5, "worst": 1.25}
    assert body["data"][-1]["loss_out_percent"] is None
    assert (await client.get("/admin/api/capacity/history?hours=2", headers=ADMIN)).status_code == 400
    assert (await client.get("/admin/api/capacity/history")).status_code == 401


async def test_figures_that_cannot_be_had_leave_the_present(client, figures):
    figures.error = PastUnavailable("the database is <locked>")
    page = await client.get("/capacity")
    assert page.status_code == 200
    assert "&lt;locked&gt;" in page.text
    assert "of 400" in page.text
    assert (await client.get("/admin/api/capacity/history", headers=ADMIN)).status_code == 503


async def test_a_node_that_keeps_nothing_says_so():
    async with client_of(capacity=capacity) as client:
        await client.post("/login", data={"key": KEY})
        assert "keeps nothing" in (await client.get("/capacity")).text
        assert (await client.get("/admin/api/capacity/history", headers=ADMIN)).status_code == 409
    async with client_of() as client:
        await client.post("/login", data={"key": KEY})
        assert (await client.get("/capacity")).status_code == 200
