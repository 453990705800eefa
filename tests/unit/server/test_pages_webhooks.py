"""The pages of webhook endpoints and deliveries: a secret is shown once, and a delivery is made again by a button."""

import re

import httpx2
import pytest

from offhook.calls.errors import CallError
from offhook.clock import SystemClock
from offhook.config import Config
from offhook.node_projects import NodeProjects
from offhook.outbound import OutboundPolicy
from offhook.server import AdminKey, EndpointDesk, ServerServices, WebhookServices, create_app
from offhook.store import Database
from offhook.store.endpoints import StoredEndpoints
from offhook.store.outbox import StoreOutbox
from offhook.store.writer import WriterLimits
from offhook.tenants import AttemptRecord, DeliveryRecord, Endpoints, EventRecord

from .conftest import FakeCalls

KEY = "ak-offhook-test-0123456789"
MARKUP = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
SECRET = "whsec_" + "b2Zmb29rLXRlc3Qtc2VjcmV0LTAxMjM0NTY3ODlhYmM="
CONFIG = Config(
    projects=[
        {
            "id": "proj_file",
            "api_keys": ["sk-file"],
            "webhooks": [{"url": "https://app.example.com/webhook", "secret": SECRET}],
        }
    ]
)
INCOMING, ENDED = "realtime.call.incoming", "realtime.call.ended"
URL = "https://93.184.215.14/hook"


class Wire:
    """What was sent and delivered again, and how that went."""

    def __init__(self):
        self.sent, self.again = [], []
        self.answer = (200, None)
        self.error = None

    async def send(self, endpoint, event):
        self.sent.append((endpoint.id, event.type))
        return self.answer

    def redeliver(self, event, delivery):
        if self.error is not None:
            raise self.error
        self.again.append((event.body, delivery.id))
        return delivery


@pytest.fixture
def wire():
    return Wire()


@pytest.fixture
async def client(wire, tmp_path):
    store = await Database.open("sqlite", tmp_path, limits=WriterLimits(group_s=0.001))
    projects, clock = NodeProjects(CONFIG), SystemClock()
    endpoints, outbox = Endpoints(projects.known, StoredEndpoints(store)), StoreOutbox(store, "u0")
    desk = EndpointDesk(endpoints, send=wire.send, policy=OutboundPolicy(), clock=clock, node="u0")
    services = ServerServices(
        projects=projects.known,
        calls=FakeCalls(),
        clock=clock,
        admin_key=AdminKey(KEY),
        project_desk=await projects.open_desk(store, clock),
        webhooks=WebhookServices(desk, outbox, wire.redeliver),
    )
    app = create_app(services)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as browser:
        await browser.post("/login", data={"key": KEY})
        browser.endpoints, browser.outbox = endpoints, outbox
        browser.store, browser.app, browser.known = store, app, projects.known
        browser.written = lambda: store.write(lambda connection: None)
        yield browser
    await store.close()


async def send(client, path, **fields):
    csrf = re.search(r'name="csrf" value="(\w+)"', (await client.get("/")).text)[1]
    return await client.post(path, data={"csrf": csrf, **fields})


async def follow(client, answer):
    """Return the page that a form led to."""
    assert answer.status_code == 303, answer.text
    page = await client.get(answer.headers["location"])
    assert page.status_code == 200, page.text
    return page


async def make(client, **fields):
    """Make an endpoint. Returns its path, its secret and the page that has it."""
    given = {"project": "proj_file", "url": URL, "name": "Wallboard", f"event:{INCOMING}": "on", **fields}
    page = await follow(client, await send(client, "/webhooks", **given))
    path = re.search(r'action="(/webhooks/proj_file/wh_[^"/]+)/test"', page.text)[1]
    return path, secret_in(page), page


def secret_in(page):
    return re.search(r"<pre[^>]*>(whsec_[^<]+)</pre>", page.text)[1]


def configured(client):
    return f"/webhooks/proj_file/{client.endpoints.of('proj_file')[0].id}"


async def keep(client, number, state="exhausted", body=b"{}", **changed):
    """Keep a delivery with one attempt. Returns its id."""
    event = EventRecord(f"evt_{number}", "proj_file", f"rtc_u0_{number}", ENDED, 1000.0 + number, body, False)
    about = {"url": URL, "last_status": 503, "last_error": None, **changed}
    delivery = DeliveryRecord(
        id=f"whd_{number}", event_id=event.id, project_id="proj_file", endpoint_id="wh_1", state=state,
        attempts=1, due_at=None, created_at=1000.0 + number, finished_at=1010.0, **about,
    )  # fmt: skip
    await client.outbox.add(event, [delivery])
    client.outbox.save(delivery, AttemptRecord(1, 1001.0, 250.0, about["last_status"], about["last_error"]))
    await client.written()
    return delivery.id


@pytest.mark.parametrize("path", ["/webhooks", "/deliveries", "/deliveries?state=waiting"])
async def test_pages_ask_for_a_login_and_are_kept_nowhere(client, path):
    for where in (path, configured(client)):
        page = await client.get(where)
        assert page.status_code == 200
        assert page.headers["cache-control"] == "no-store"
        assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=|javascript:", page.text)
    client.cookies.clear()
    assert (await client.get(path)).headers["location"].startswith("/login?next=")


@pytest.mark.parametrize("what", ["", "/rotate_secret", "/test", "/delete"])
async def test_forms_want_the_token_of_the_login(client, wire, what):
    path, _, _ = await make(client)
    before = client.endpoints.of("proj_file")
    assert (await client.post(path + what, data={"csrf": "0" * 64})).status_code == 403
    assert (await client.post("/webhooks", data={"project": "proj_file", "url": URL})).status_code == 403
    assert (await client.post("/deliveries/whd_1/redeliver", data={})).status_code == 403
    client.cookies.clear()
    assert (await client.post(path + what, data={})).headers["location"] == "/login"
    assert client.endpoints.of("proj_file") == before
    assert wire.sent == []


def forms_of(app):
    """Return the paths of all forms: what takes POST and is no part of the API."""
    return [
        route.path
        for route in app.routes
        if "POST" in (getattr(route, "methods", None) or ()) and not getattr(route, "include_in_schema", True)
    ]


async def test_no_form_does_anything_without_its_token(client, wire):
    """Whatever forms there are, and will be."""
    forms = [path for path in forms_of(client.app) if path != "/login"]
    assert {"/logout", "/projects", "/webhooks", "/deliveries/{delivery_id}/redeliver"} <= set(forms)
    delivery_id = await keep(client, 1)
    path, _, _ = await make(client)
    before = (client.endpoints.of("proj_file"), [one.id for one in client.known.all()])
    names = {
        "delivery_id": delivery_id, "endpoint_id": path.rpartition("/")[2], "project_id": "proj_file", "key_id": "k",
    }  # fmt: skip
    for form in forms:
        for token in ({}, {"csrf": "0" * 64}):
            refused = await client.post(
                form.format(**names), data={"id": "proj_x", "project": "proj_file", **token}
            )
            assert refused.status_code == 403, form
            assert "not of your present login" in refused.text
    assert (client.endpoints.of("proj_file"), [one.id for one in client.known.all()]) == before
    assert (wire.sent, wire.again) == ([], [])


async def test_a_secret_is_shown_once(client):
    path, secret, _ = await make(client)
    made = client.endpoints.of("proj_file")[-1]
    assert made.secrets == (secret,)
    assert made.events == {INCOMING}
    for where in (path, "/webhooks", "/projects/proj_file"):
        page = await client.get(where)
        assert secret not in page.text
        assert "Wallboard" in page.text
    answer = await send(client, f"{path}/rotate_secret", keep="on")
    rotated = await follow(client, answer)
    assert secret_in(rotated) != secret
    assert client.endpoints.of("proj_file")[-1].secrets == (secret_in(rotated), secret)
    again = (await client.get(path)).text
    assert secret_in(rotated) not in again
    reloaded = (await client.get(answer.headers["location"])).text
    assert secret_in(rotated) not in reloaded
    assert client.endpoints.of("proj_file")[-1].secrets == (secret_in(rotated), secret), "nothing is repeated"
    assert "signs, too, until" in again
    await send(client, f"{path}/rotate_secret")
    assert len(client.endpoints.of("proj_file")[-1].secrets) == 1


async def test_an_endpoint_of_the_configuration_is_read_only_and_its_secret_is_not_shown(client, wire):
    path = configured(client)
    page = (await client.get(path)).text
    assert "read-only" in page
    assert SECRET not in page
    assert "rotate_secret" not in page
    for what in ("/rotate_secret", "/delete"):
        refused = await send(client, path + what)
        assert refused.status_code == 409
        assert SECRET not in refused.text
    assert "It answered" in (await follow(client, await send(client, f"{path}/test", event_type=ENDED))).text
    assert len(wire.sent) == 1


async def test_a_sample_is_sent_and_its_answer_said(client, wire):
    path, _, _ = await make(client)

    async def try_it():
        return await follow(client, await send(client, f"{path}/test", event_type=ENDED))

    assert "It answered 200" in (await try_it()).text
    wire.answer = (500, None)
    assert "It answered 500" in (await try_it()).text
    wire.answer = (None, "connection <refused>")
    failed = await try_it()
    assert "connection &lt;refused&gt;" in failed.text
    assert (await send(client, f"{path}/test", event_type="x")).status_code == 400


async def test_what_is_wrong_with_a_form_is_said_and_what_was_typed_stays(client):
    given = {"project": "proj_file", "url": "http://127.0.0.1/<b>", "name": MARKUP}
    page = await send(client, "/webhooks", **given, **{f"event:{ENDED}": "on"})
    assert page.status_code == 400
    assert 'role="alert"' in page.text
    assert 'value="http://127.0.0.1/&lt;b&gt;"' in page.text
    assert "<img" not in page.text
    assert re.search(rf'name="event:{ENDED}" checked', page.text)
    assert not re.search(rf'name="event:{INCOMING}" checked', page.text)
    assert (await send(client, "/webhooks", **{**given, "url": URL})).status_code == 400, "no event type"
    assert (await send(client, "/webhooks", project="proj_none", url=URL)).status_code == 404


async def test_an_endpoint_is_changed_and_deleted(client):
    path, _, _ = await make(client)
    changed = await send(client, path, name=MARKUP, url=URL, **{f"event:{ENDED}": "on"})
    assert changed.status_code == 303
    assert client.endpoints.of("proj_file")[-1].events == {ENDED}
    for where in (path, "/webhooks", "/projects/proj_file"):
        assert "<img" not in (await client.get(where)).text
    wrong = await send(client, path, name="n", url="ftp://x")
    assert wrong.status_code == 400
    assert (await send(client, f"{path}/delete")).headers["location"] == "/webhooks"
    assert (await client.get(path)).status_code == 404


async def test_deliveries_are_listed_filtered_and_escaped(client):
    assert "No deliveries yet" in (await client.get("/deliveries")).text
    await keep(client, 1, last_error=MARKUP, url="https://x.example/<b>")
    await keep(client, 2, "delivered", last_status=200)
    every = (await client.get("/deliveries")).text
    assert every.index("rtc_u0_2") < every.index("rtc_u0_1"), "the newest first"
    assert "<img" not in every
    for query, found in (("state=delivered", 2), ("call=rtc_u0_1", 1), ("state=exhausted", 1)):
        text = (await client.get(f"/deliveries?{query}")).text
        assert re.findall(r"/deliveries/whd_(\d)\"", text) == [str(found)], query
    for query in ("state=none", "type=realtime.call.incoming", "project=proj_x", "endpoint=wh_2"):
        assert "No delivery is like this" in (await client.get(f"/deliveries?{query}")).text
    assert (await client.get("/deliveries?after=whd_none")).status_code == 200


async def test_a_long_list_has_pages(client):
    for number in range(53):
        await keep(client, number)
    first = (await client.get("/deliveries?state=exhausted")).text
    older = re.search(r'href="([^"]+)" rel="next"', first)[1].replace("&amp;", "&")
    assert older == "/deliveries?state=exhausted&after=whd_3"
    second = (await client.get(older)).text
    assert re.findall(r"/deliveries/whd_(\d+)\"", second) == ["2", "1", "0"]
    assert 'rel="next"' not in second


async def test_a_delivery_shows_its_attempts_and_is_made_again(client, wire):
    delivery_id = await keep(client, 1, body=MARKUP.encode() + b"\xff")
    page = (await client.get(f"/deliveries/{delivery_id}")).text
    assert "250 ms" in page
    assert "503" in page
    assert "<img" not in page
    again = await send(client, f"/deliveries/{delivery_id}/redeliver")
    assert (again.status_code, again.headers["location"]) == (303, f"/deliveries/{delivery_id}")
    assert wire.again == [(MARKUP.encode() + b"\xff", delivery_id)]
    wire.error = CallError(409, "The endpoint of this delivery is gone.", code="webhook_endpoint_gone")
    gone = await send(client, f"/deliveries/{delivery_id}/redeliver")
    assert gone.status_code == 409
    assert "is gone" in gone.text
    assert (await client.get("/deliveries/whd_none")).status_code == 404
    assert (await send(client, "/deliveries/whd_none/redeliver")).status_code == 404


async def test_deliveries_that_cannot_be_read_are_not_shown_as_none(client):
    delivery_id = await keep(client, 1)
    path, _, _ = await make(client)
    await client.store.write(
        lambda connection: connection.exec_driver_sql("ALTER TABLE deliveries RENAME TO gone")
    )
    for where in ("/deliveries", f"/deliveries/{delivery_id}"):
        page = await client.get(where)
        assert (page.status_code, page.headers["content-type"]) == (503, "text/html; charset=utf-8")
        assert "the database cannot be read" in page.text
    endpoint = await client.get(path)
    assert endpoint.status_code == 200, "its settings can be seen and changed"
    assert "the database cannot be read" in endpoint.text
    api = await client.get("/v1/webhook_deliveries", headers={"Authorization": "Bearer sk-file"})
    assert (api.status_code, api.json()["error"]["code"]) == (503, "store_unavailable")
