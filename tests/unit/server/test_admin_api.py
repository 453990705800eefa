"""`/admin/api`: opened by the admin key alone; projects and keys are made, changed and taken back."""

from __future__ import annotations

import contextlib

import httpx2
import pytest

from offhook.clock import SystemClock
from offhook.config import Config
from offhook.node_projects import NodeProjects
from offhook.server import AdminKey, HttpServer, ServerServices, create_app
from offhook.store import Database
from offhook.store.writer import WriterLimits

ADMIN = "ak-test-0123456789"
CONFIG = Config(
    projects=[
        {
            "id": "proj_file",
            "api_keys": ["sk-file"],
            "numbers": ["+1555"],
            "trunks": [{"name": "t", "digest_user": "ann", "digest_password": "hunter2"}],
        }
    ]
)


class Calls:
    def find(self, project_id, call_id):
        from offhook.calls.errors import call_not_found

        raise call_not_found()

    def list(self, project_id):
        return []

    def refused_sources(self, project_id):
        assert project_id is None
        return []


@contextlib.asynccontextmanager
async def admin_of(folder, *, database="sqlite"):
    """A node's projects behind HTTP. Yields a client with the admin key, and what answers for the projects."""
    store = None
    if database != "none":
        store = await Database.open(database, folder, limits=WriterLimits(group_s=0.001))
    projects = NodeProjects(CONFIG)
    desk = await projects.open_desk(store, SystemClock())
    services = ServerServices(
        projects=projects.known,
        calls=Calls(),
        clock=SystemClock(),
        admin_key=AdminKey(ADMIN),
        project_desk=desk,
        capacity=lambda: {"calls": {"live": 0, "max": 400}},
    )
    server = HttpServer(create_app(services), host="127.0.0.1", port=0)
    await server.start()
    try:
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{server.address[1]}",
            headers={"authorization": f"Bearer {ADMIN}"},
            trust_env=False,
            timeout=20,
        ) as http:
            http.projects, http.store = projects, store
            yield http
    finally:
        await server.close()
        if store is not None:
            await store.close()


@pytest.fixture
async def http(tmp_path):
    async with admin_of(tmp_path) as client:
        yield client


def refusal(response):
    error = response.json()["error"]
    return response.status_code, error["code"], error["param"]


PATHS = (
    ("GET", "/projects"),
    ("POST", "/projects"),
    ("GET", "/projects/proj_file"),
    ("POST", "/projects/proj_file"),
    ("DELETE", "/projects/proj_file"),
    ("GET", "/projects/proj_file/keys"),
    ("POST", "/projects/proj_file/keys"),
    ("DELETE", "/projects/proj_file/keys/key_1"),
    ("GET", "/refused_sources"),
    ("GET", "/capacity"),
    ("GET", "/capacity/history"),
    ("GET", "/calls"),
    ("GET", "/calls/rtc_1"),
    ("GET", "/calls/rtc_1/timeline"),
    ("GET", "/calls/rtc_1/verdict"),
    ("GET", "/calls/rtc_1/pcap"),
    ("GET", "/calls/rtc_1/refers"),
    ("GET", "/calls/rtc_1/refers/1"),
)


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_only_the_admin_key_opens_it(http, method, path):
    for authorization in ("", "Bearer sk-file", f"Basic {ADMIN}", "Bearer", f"Bearer {ADMIN}x"):
        response = await http.request(
            method, f"/admin/api{path}", headers={"authorization": authorization, "api-key": ADMIN}
        )
        assert refusal(response) == (401, "invalid_admin_key", None)
    assert (await http.request(method, f"/admin/api{path}", json={})).status_code != 401


async def test_the_table_above_has_every_route(http):
    paths = (await http.get("/openapi.json")).json()["paths"]
    served = {
        (method.upper(), path.removeprefix("/admin/api").format(
            project_id="proj_file", key_id="key_1", call_id="rtc_1", number=1
        ))
        for path, methods in paths.items()
        if path.startswith("/admin/api")
        for method in methods
    }  # fmt: skip
    assert served <= set(PATHS)
    assert len(served) == len(PATHS)


async def test_the_admin_key_is_no_projects_key(http):
    response = await http.get("/v1/realtime/calls")
    assert refusal(response) == (401, "invalid_api_key", None)


async def test_a_project_is_made_changed_and_deleted(http):
    made = (
        await http.post(
            "/admin/api/projects",
            json={"name": "Front desk", "numbers": ["+1777"], "trunks": [{"sources": ["192.0.2.0/24"]}]},
        )
    ).json()
    project_id = made["id"]
    assert project_id.startswith("proj_")
    assert made["managed_by"] == "api"
    assert (made["name"], made["numbers"]) == ("Front desk", ["+1777"])
    assert made["trunks"][0]["sources"] == ["192.0.2.0/24"]
    known = http.projects.known
    assert known.by_request_uri("+1777", "x").id == project_id
    assert known.lists_source("192.0.2.5")

    url = f"/admin/api/projects/{project_id}"
    changed = (await http.post(url, json={"numbers": ["+1888"], "max_calls": 3, "name": "Desk"})).json()
    assert (changed["numbers"], changed["max_calls"], changed["name"]) == (["+1888"], 3, "Desk")
    assert changed["trunks"] == made["trunks"]
    assert (await http.post(url, json={"max_calls": None})).json()["max_calls"] == 0
    assert (await http.get(url)).json()["name"] == "Desk"
    listed = (await http.get("/admin/api/projects")).json()["data"]
    assert [one["id"] for one in listed] == ["proj_file", project_id]

    assert (await http.delete(url)).json() == {"object": "project.deleted", "id": project_id, "deleted": True}
    assert refusal(await http.get(url)) == (404, "project_not_found", None)
    assert known.by_id(project_id) is None


async def test_keys_are_shown_once_kept_hashed_and_revoked_at_once(http, tmp_path):
    project_id = (await http.post("/admin/api/projects", json={})).json()["id"]
    url = f"/admin/api/projects/{project_id}/keys"
    made = (await http.post(url, json={"name": "ci"})).json()
    key = made.pop("key")
    assert key.startswith("sk-offhook-")
    asked = {"authorization": f"Bearer {key}"}
    assert (await http.get("/v1/realtime/calls", headers=asked)).status_code == 200
    assert (await http.get(url)).json()["data"] == [made]
    await http.store.write(lambda connection: None)
    for file in tmp_path.iterdir():
        assert key.encode() not in file.read_bytes()

    revoked = (await http.delete(f"{url}/{made['id']}")).json()
    assert revoked["revoked_at"] is not None
    assert (await http.get("/v1/realtime/calls", headers=asked)).status_code == 401
    assert (await http.delete(f"{url}/{made['id']}")).json() == revoked
    assert refusal(await http.delete(f"{url}/key_none")) == (404, "key_not_found", None)


async def test_projects_and_keys_are_there_after_a_restart(tmp_path):
    async with admin_of(tmp_path) as http:
        made = (await http.post("/admin/api/projects", json={"id": "proj_made", "numbers": ["+1777"]})).json()
        keys = [
            (await http.post(f"/admin/api/projects/{owner}/keys", json={})).json()
            for owner in ("proj_made", "proj_file", "proj_made")
        ]
        await http.delete(f"/admin/api/projects/proj_made/keys/{keys[2]['id']}")
    async with admin_of(tmp_path) as http:
        assert (await http.get("/admin/api/projects/proj_made")).json() == made
        opened = [http.projects.known.by_api_key(key["key"]) for key in keys]
        assert [project and project.id for project in opened] == ["proj_made", "proj_file", None]
        await http.delete("/admin/api/projects/proj_made")
    async with admin_of(tmp_path) as http:
        assert http.projects.known.by_api_key(keys[0]["key"]) is None
        assert [project.id for project in http.projects.known.all()] == ["proj_file"]


async def test_what_the_configuration_names_is_changed_there(http):
    for response in (
        await http.post("/admin/api/projects/proj_file", json={"max_calls": 1}),
        await http.delete("/admin/api/projects/proj_file"),
        await http.delete(
            "/admin/api/projects/proj_file/keys/"
            + (await http.get("/admin/api/projects/proj_file/keys")).json()["data"][0]["id"]
        ),
    ):
        assert refusal(response) == (409, "managed_by_config", None)
    assert http.projects.known.by_api_key("sk-file").id == "proj_file"


async def test_no_password_is_shown(http):
    body = {"trunks": [{"digest_user": "bob", "digest_password": "correct horse"}]}
    made = await http.post("/admin/api/projects", json=body)
    assert made.json()["trunks"][0]["digest_user"] == "bob"
    listed = await http.get("/admin/api/projects")
    for text in (made.text, listed.text):
        assert "hunter2" not in text
        assert "correct horse" not in text


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ([], 400, "invalid_type", None),
        ({"id": "no spaces"}, 400, "invalid_value", "id"),
        ({"id": 7}, 400, "invalid_type", "id"),
        ({"id": "proj_file"}, 409, "project_exists", "id"),
        ({"name": "a\nb"}, 400, "invalid_value", "name"),
        ({"colour": "red"}, 400, "invalid_value", "colour"),
        ({"numbers": ["1 555"]}, 400, "invalid_value", "numbers"),
        ({"numbers": ["1555"]}, 409, "project_clashes", None),
        ({"max_calls": -1}, 400, "invalid_value", "max_calls"),
        ({"trunks": [{"name": "t"}]}, 400, "invalid_value", "trunks.0"),
        ({"trunks": [{"digest_user": "ann", "digest_password": "x"}]}, 409, "project_clashes", None),
        (
            {"trunks": [{"digest_user": "eve", "digest_password_file": "/etc/shadow"}]},
            400, "invalid_value", "trunks.0.digest_password_file",
        ),
        (
            {"trunks": [{"digest_user": "eve", "digest_password_env": "HOME"}]},
            400, "invalid_value", "trunks.0.digest_password_env",
        ),
        (
            {"trunks": [{"register": {"registrar": "sip:x", "user": "u", "password_file": "/etc/shadow"}}]},
            400, "invalid_value", "trunks.0.register",
        ),
        ({"api_keys": ["sk-mine"]}, 400, "invalid_value", "api_keys"),
        ({"webhooks": []}, 400, "invalid_value", "webhooks"),
        ({"passthrough": "nobody"}, 400, "invalid_value", None),
        ({"fallback": {"accept": {"type": "realtime", "colour": 1}}}, 400, "invalid_value", None),
    ],
)  # fmt: skip
async def test_what_makes_no_project_is_said(http, body, status, code, param):
    assert refusal(await http.post("/admin/api/projects", json=body)) == (status, code, param)
    assert [project.id for project in http.projects.known.all()] == ["proj_file"]


@pytest.mark.parametrize("name", ["scopes", "", " "])
async def test_a_key_has_a_name_and_nothing_else(http, name):
    response = await http.post("/admin/api/projects/proj_file/keys", json={"name": "desk", name: 1})
    assert refusal(response) == (400, "unknown_parameter", name)


async def test_what_cannot_be_kept_changes_nothing(http, monkeypatch):
    async def never(self, work):
        return False

    made = (await http.post("/admin/api/projects", json={"id": "proj_made"})).json()
    key = (await http.post("/admin/api/projects/proj_made/keys", json={})).json()
    monkeypatch.setattr(Database, "keep", never)
    for response in (
        await http.post("/admin/api/projects", json={"id": "proj_other"}),
        await http.post("/admin/api/projects/proj_made", json={"max_calls": 9}),
        await http.delete("/admin/api/projects/proj_made"),
        await http.post("/admin/api/projects/proj_made/keys", json={}),
        await http.delete(f"/admin/api/projects/proj_made/keys/{key['id']}"),
    ):
        assert refusal(response) == (503, "store_unavailable", None)
    assert (await http.get("/admin/api/projects/proj_made")).json() == made
    assert http.projects.known.by_api_key(key["key"]) is not None
    assert http.projects.known.by_id("proj_other") is None


async def test_without_a_database_projects_are_shown_but_not_made(tmp_path):
    async with admin_of(tmp_path, database="none") as http:
        assert [one["id"] for one in (await http.get("/admin/api/projects")).json()["data"]] == ["proj_file"]
        assert refusal(await http.post("/admin/api/projects", json={})) == (409, "no_database", None)


async def test_the_operator_sees_the_node(http):
    assert (await http.get("/admin/api/capacity")).json()["calls"] == {"live": 0, "max": 400}
    assert (await http.get("/admin/api/refused_sources")).json()["data"] == []
    assert (await http.get("/admin/api/calls")).json()["data"] == []
    assert refusal(await http.get("/admin/api/calls/rtc_1")) == (404, "call_id_not_found", "")
