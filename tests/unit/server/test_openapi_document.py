"""/openapi.json names all that is served, and every answer has one shape (rows C07, C09)."""

import re

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from offhook import ids
from offhook.clock import SystemClock
from offhook.realtime.client_secrets import ClientSecrets
from offhook.server import ServerServices, create_app
from offhook.server.admin_key import AdminKey
from offhook.server.services import WebhookServices
from offhook.tenants import ConfiguredProjects

CLOCK = SystemClock()
PAGES = (
    "/static",
    "/login",
    "/logout",
    "/calls",
    "/deliveries",
    "/webhooks",
    "/projects",
    "/refused",
    "/capacity",
)
"They are for people; each of their paths is one of these or below it, or `/`."


async def exposition():
    return b""


@pytest.fixture(scope="module")
def app() -> FastAPI:
    """All that a node can serve. Nothing of it is asked here."""
    there = object()
    return create_app(
        ServerServices(
            projects=ConfiguredProjects([]),
            calls=there,
            clock=CLOCK,
            client_secrets=ClientSecrets(wall=CLOCK.wall, new_id=ids.opaque_id, new_value=ids.api_key),
            project_desk=there,
            exposition=exposition,
            admin_key=AdminKey("admin"),
            webhooks=WebhookServices(there, there, there),
        )
    )


@pytest.fixture(scope="module")
def document(app):
    return app.openapi()


def served(app):
    """Return path and method of each route; a WebSocket is a GET."""
    for route in iter_route_contexts(app.routes):
        path = re.sub(r"\{(\w+):path\}", r"{\1}", route.path)
        for method in getattr(route, "methods", None) or {"GET"}:
            yield path, method.lower()


def operations(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_every_route_is_in_the_document(app, document):
    described = {(path, method) for path, method, _ in operations(document)}
    below = [(path, method) for path, method in served(app) if (path, method) not in described]
    assert len(described) > 55
    for path, method in below:
        mirrored = re.sub(r"^/openai(/v1)?(?=/)", "/v1", path)
        azures = (
            path.replace("/openai/", "/openai/v1/", 1) if path.startswith("/openai/") else f"/openai{path}"
        )
        page = path == "/" or path.startswith(PAGES)
        known = (mirrored, method) in described or (azures, method) in described
        assert known or page or path == "/openapi.json", f"{method} {path} is not in the document"


def test_the_document_has_nothing_that_is_not_served(app, document):
    routes = set(served(app))
    assert not [(path, method) for path, method, _ in operations(document) if (path, method) not in routes]


def test_every_operation_says_who_may_and_what_goes_wrong(document):
    open_to_all = {"healthz", "readyz"}
    for path, method, operation in operations(document):
        where = f"{method} {path}"
        assert operation.get("summary"), where
        assert operation.get("description") or operation["operationId"] in {*open_to_all, "metrics"}, where
        if operation["operationId"] not in open_to_all:
            assert "401" in operation["responses"], where
            assert operation.get("security"), where
        for status, response in operation["responses"].items():
            if int(status) >= 400 and operation["operationId"] != "readyz":
                (media,) = response["content"].values()
                assert media["schema"] == {"$ref": "#/components/schemas/ErrorResponse"}, f"{where}: {status}"


def test_every_answer_in_json_has_a_shape(document):
    for path, method, operation in operations(document):
        for media, content in operation["responses"].get("200", {}).get("content", {}).items():
            if media == "application/json":
                assert "$ref" in content["schema"], f"{method} {path}"
    assert len(document["components"]["schemas"]) > 30


def test_every_body_is_an_object_and_may_be_late_or_too_large(document):
    bodies = [(path, one) for path, _, one in operations(document) if "requestBody" in one]
    assert len(bodies) > 15
    for path, operation in bodies:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        assert "object" in schema["type"], path
        assert schema["properties"], path
        assert {"400", "408", "413"} <= operation["responses"].keys(), path


@pytest.mark.parametrize("prefix", ["", "/openai", "/openai/v1"])
async def test_a_method_not_allowed_names_all_that_are(app, prefix):
    """Of `Allow` the framework knows the first route only."""
    base = prefix or "/v1"
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://node") as client:
        for path, allowed in (
            (f"{base}/realtime/calls/rtc_1/recording", "DELETE, GET, POST"),
            (f"{base}/webhook_endpoints", "GET, POST"),
            (f"{base}/dashboard/webhook_endpoints/wh_1", "DELETE, GET, POST"),
            (f"{base}/realtime", "GET"),
            ("/admin/api/projects/proj_1", "DELETE, GET, POST"),
            ("/refused", "GET, HEAD"),
        ):
            answer = await client.options(path)
            said = ", ".join(sorted(answer.headers["allow"].split(", ")))
            assert (answer.status_code, said) == (405, allowed), path
            assert f"Use {answer.headers['allow']}." in answer.json()["error"]["message"]


def test_operation_ids_are_unique(document):
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
