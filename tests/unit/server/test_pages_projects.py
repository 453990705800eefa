"""The pages of refused sources and of projects: who may see and change them, and that a key is shown once."""

import asyncio
import re
import tomllib

import httpx2
import pytest

from offhook.calls.refused import RefusedSource
from offhook.clock import SystemClock
from offhook.config import Config
from offhook.node_projects import NodeProjects
from offhook.server import AdminKey, ServerServices, create_app
from offhook.store import Database
from offhook.store.projects import StoredTenants
from offhook.store.writer import WriterLimits
from offhook.tenants import Project

from .conftest import FakeCalls

KEY = "ak-offhook-test-0123456789"
MARKUP = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
CONFIG = Config(
    projects=[
        {
            "id": "proj_file",
            "api_keys": ["sk-of-the-file"],
            "numbers": ["+1555"],
            "trunks": [{"name": "t", "digest_user": "ann", "digest_password": "hunter2"}],
        }
    ]
)


@pytest.fixture
def calls():
    return FakeCalls()


@pytest.fixture
async def client(calls, tmp_path):
    store = await Database.open("sqlite", tmp_path, limits=WriterLimits(group_s=0.001))
    projects = NodeProjects(CONFIG)
    services = ServerServices(
        projects=projects.known,
        calls=calls,
        clock=SystemClock(),
        admin_key=AdminKey(KEY),
        project_desk=await projects.open_desk(store, SystemClock()),
        capacity=lambda: {"calls": {"live": 2, "max": 400, "projects": {"proj_file": 2}}},
    )
    transport = httpx2.ASGITransport(app=create_app(services))
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as browser:
        await browser.post("/login", data={"key": KEY})
        browser.known, browser.desk = projects.known, services.project_desk
        yield browser
    await store.close()


async def token(client):
    return re.search(r'name="csrf" value="(\w+)"', (await client.get("/")).text)[1]


async def send(client, path, **fields):
    return await client.post(path, data={"csrf": await token(client), **fields})


async def follow(client, answer):
    """Return the page that a form led to, and its address."""
    assert answer.status_code == 303, answer.text
    at = answer.headers["location"]
    page = await client.get(at)
    assert page.status_code == 200, page.text
    return page, at


async def make(client, **fields):
    """Make a project. Returns its page, which has its first key."""
    page, _ = await follow(client, await send(client, "/projects", **{"id": "proj_new", **fields}))
    return page


def key_in(page):
    return re.search(r"<pre[^>]*>(sk-[^<]+)</pre>", page.text)[1]


FORMS = (
    "/projects",
    "/projects/proj_file",
    "/projects/proj_file/delete",
    "/projects/proj_file/keys",
    "/projects/proj_file/keys/key_1/revoke",
)


@pytest.mark.parametrize("path", ["/refused", "/projects", "/projects/proj_file"])
async def test_pages_ask_for_a_login_and_are_kept_nowhere(client, path):
    page = await client.get(path)
    assert page.status_code == 200
    assert page.headers["cache-control"] == "no-store"
    assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=|javascript:", page.text)
    client.cookies.clear()
    assert (await client.get(path)).headers["location"].startswith("/login?next=")


@pytest.mark.parametrize("path", FORMS)
async def test_forms_want_the_token_of_the_login(client, path):
    before = [project.id for project in client.known.all()]
    assert (await client.post(path, data={"csrf": "0" * 64, "id": "proj_x"})).status_code == 403
    client.cookies.clear()
    assert (await client.post(path, data={"id": "proj_x"})).headers["location"] == "/login"
    assert [project.id for project in client.known.all()] == before


async def test_who_was_refused_stands_there_with_the_lines_that_admit_it(client, calls):
    empty = (await client.get("/refused")).text
    assert "Nobody was turned away" in empty
    calls.refused[:] = [
        RefusedSource("192.0.2.7", 1000.0, 2000.0, "not_listed", {"not_listed": 1234}),
        RefusedSource("2001:db8::7", 1000.0, 2000.0, "unknown_project", {"unknown_project": 1}, "+1555"),
        RefusedSource("192.0.2.8", 1.0, 2.0, "wrong_credentials", {"wrong_credentials": 1}, user="ann"),
        RefusedSource("192.0.2.9", 1.0, 2.0, "too_many_connections", {"too_many_connections": 1}),
    ]
    text = (await client.get("/refused")).text
    assert "1,234" in text
    copied = [line.replace("&#34;", '"') for line in re.findall(r'data-copy="([^"]*)"', text)]
    assert len(copied) == 3
    listed, unknown, wrong = (tomllib.loads(lines) for lines in copied)
    assert listed["projects"]["trunks"] == [{"sources": ["192.0.2.7/32"]}]
    assert unknown == {"numbers": ["+1555"], "projects": {"trunks": [{"sources": ["2001:db8::7/128"]}]}}
    assert wrong["projects"]["trunks"][0]["digest_user"] == "ann"
    assert "the peer must close connections" in text


async def test_what_a_stranger_called_is_text(client, calls):
    calls.refused[:] = [
        RefusedSource("192.0.2.7", 1.0, 2.0, "unknown_project", {"unknown_project": 1}, MARKUP + "\u202e")
    ]
    text = (await client.get("/refused")).text
    assert "<img" not in text
    assert "&lt;script&gt;" in text
    assert "\u202e" not in re.sub(r'data-copy="[^"]*"', "", text)


async def test_a_project_of_the_configuration_is_read_only_and_its_secrets_are_not_shown(client):
    page = (await client.get("/projects/proj_file")).text
    assert "read-only" in page
    assert "/projects/proj_file/delete" not in page
    assert "sk-of-the-file" not in page
    assert "hunter2" not in page
    assert (await send(client, "/projects/proj_file/delete")).status_code == 409
    assert (await send(client, "/projects/proj_file", name="x")).status_code == 409
    assert (await client.get("/projects/proj_none")).status_code == 404


async def test_a_new_project_has_a_key_that_is_shown_once(client):
    page = await make(
        client, name="Clinic", numbers="+14155550100, +14155550101", sources="192.0.2.0/28\n198.51.100.7"
    )
    key = key_in(page)
    project = client.known.by_api_key(key)
    assert project.id == "proj_new"
    assert project.numbers == ("+14155550100", "+14155550101")
    assert [str(source) for source in project.trunks[0].sources] == ["192.0.2.0/28", "198.51.100.7/32"]
    for path in ("/projects/proj_new", "/projects"):
        again = await client.get(path)
        assert key not in again.text, "a key is shown once"
        assert "Clinic" in again.text


async def test_a_key_is_made_shown_once_and_revoked(client):
    page, at = await follow(client, await send(client, "/projects/proj_file/keys", name="for <b>Bob</b>"))
    key = key_in(page)
    keys = len(client.known.keys_of("proj_file"))
    reloaded = await client.get(at)
    assert key not in reloaded.text
    assert "not shown again" in reloaded.text
    assert len(client.known.keys_of("proj_file")) == keys, "loading the page anew makes no second key"
    assert client.known.by_api_key(key).id == "proj_file"
    again = (await client.get("/projects/proj_file")).text
    assert key not in again
    assert "for &lt;b&gt;Bob&lt;/b&gt;" in again
    path = re.search(r'action="(/projects/proj_file/keys/[^"]+/revoke)"', again)[1]
    assert (await send(client, path)).status_code == 303
    assert client.known.by_api_key(key) is None
    assert "revoked" in (await client.get("/projects/proj_file")).text


async def test_the_list_counts_the_keys_that_open_each_project(client):
    async def counted():
        page = (await client.get("/projects")).text
        rows = re.findall(r'href="/projects/(proj_\w+)" data-item.*?<td class="num">(\d+)<', page, re.S)
        return {project: int(count) for project, count in rows}

    await make(client)
    await send(client, "/projects/proj_file/keys", name="n")
    assert await counted() == {"proj_file": 2, "proj_new": 1}
    (made,) = client.known.keys_of("proj_new")
    await send(client, f"/projects/proj_new/keys/{made.id}/revoke")
    assert await counted() == {"proj_file": 2, "proj_new": 0}


async def test_many_projects_are_listed_in_between_packets(client):
    """A thousand of them took 20 ms, and as many again for their keys."""
    client.known.replace([Project(f"proj_{number}", ("sk-1",)) for number in range(100)])
    turns, listed = 0, False

    async def other_work():
        nonlocal turns
        while not listed:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other_work())
    assert len(await client.desk.all()) == 100
    listed = True
    await beside
    assert turns >= 10


async def test_a_key_is_shown_to_nobody_but_the_login_that_made_it(client):
    made = await send(client, "/projects/proj_file/keys", name="n")
    mine = dict(client.cookies)
    client.cookies.clear()
    await client.post("/login", data={"key": KEY})
    assert "<pre" not in (await client.get(made.headers["location"])).text
    client.cookies.clear()
    client.cookies.update(mine)
    page, _ = await follow(client, made)
    assert client.known.by_api_key(key_in(page)).id == "proj_file"


async def test_a_project_whose_first_key_cannot_be_kept_says_what_was_made(client, monkeypatch):
    async def full(store, key):
        return False

    monkeypatch.setattr(StoredTenants, "save_key", full)
    page = await make(client)
    assert "The project was made, a first key for it was not." in page.text
    assert client.known.by_id("proj_new") is not None


async def test_what_is_wrong_with_a_form_is_said_and_what_was_typed_stays(client):
    page = await send(client, "/projects", id="proj_new", name="<i>Clinic", sources="not an address")
    assert page.status_code == 400
    assert "trunks.0.sources" in page.text
    assert 'value="&lt;i&gt;Clinic"' in page.text
    assert client.known.by_id("proj_new") is None
    taken = await send(client, "/projects", id="proj_file")
    assert taken.status_code == 409
    await make(client)
    wrong = await send(client, "/projects/proj_new", name="n", max_calls="many")
    assert wrong.status_code == 400
    assert 'value="many"' in wrong.text


async def test_settings_are_changed_and_a_project_deleted(client):
    key = key_in(await make(client, sources="192.0.2.1"))
    changed = await send(
        client, "/projects/proj_new", name="N", numbers="+1", hosts="", max_calls="3", sources=""
    )
    assert changed.status_code == 303
    project = client.known.by_id("proj_new")
    assert (project.numbers, project.max_calls, project.trunks) == (("+1",), 3, ())
    assert "nobody may call it" in (await client.get("/projects/proj_new")).text
    assert (await send(client, "/projects/proj_new/delete")).headers["location"] == "/projects"
    assert client.known.by_api_key(key) is None
    assert (await client.get("/projects/proj_new")).status_code == 404


async def test_trunks_with_passwords_are_left_alone(client):
    await make(client, sources="192.0.2.1")
    desk_page = await client.get("/projects/proj_new")
    assert 'name="sources"' in desk_page.text
    admin = {"Authorization": f"Bearer {KEY}"}
    trunk = {"name": "t", "digest_user": "bob", "digest_password": "secret-of-bob"}
    made = await client.post("/admin/api/projects/proj_new", json={"trunks": [trunk]}, headers=admin)
    assert made.status_code == 200
    page = (await client.get("/projects/proj_new")).text
    assert 'name="sources"' not in page
    assert "secret-of-bob" not in page
    await send(client, "/projects/proj_new", name="N", sources="")
    assert client.known.by_id("proj_new").trunks[0].digest.password == "secret-of-bob"
