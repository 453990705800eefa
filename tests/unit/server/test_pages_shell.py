"""The pages' shell: who gets in, what a response forbids, forms that only our own pages can send."""

import re
import threading

import httpx2
import pytest

from offhook.server import AdminKey, ServerServices, create_app
from offhook.server.pages.logins import LASTS_S, Logins, Throttle
from offhook.tenants import ConfiguredProjects

from .conftest import CLOCK, FakeCalls

KEY = "ak-offhook-test-0123456789"


@pytest.fixture
def app():
    services = ServerServices(
        projects=ConfiguredProjects([]),
        calls=FakeCalls(),
        clock=CLOCK,
        admin_key=AdminKey(KEY),
        not_ready=lambda: ["the engine is not <b>warm</b>"],
    )
    return create_app(services)


def browser(app, url="http://127.0.0.1:8080"):
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=url)


async def log_in(client, key=KEY, **fields):
    return await client.post("/login", data={"key": key, **fields})


async def test_nobody_sees_a_page_without_the_key(app):
    async with browser(app) as client:
        response = await client.get("/?x=1")
        assert response.status_code == 303
        assert response.headers["location"] == "/login?next=/%3Fx%3D1"
        login = await client.get(response.headers["location"])
        assert login.status_code == 200
        assert 'value="/?x=1"' in login.text
        wrong = await log_in(client, "ak-offhook-test-0123456780")
        assert wrong.status_code == 403
        assert "This is not the admin key." in wrong.text
        assert KEY not in wrong.text
        assert (await client.get("/")).status_code == 303


async def test_a_projects_key_opens_nothing(app):
    async with browser(app) as client:
        response = await client.get("/", headers={"Authorization": f"Bearer {KEY}"})
        assert response.status_code == 303


async def test_a_login_leads_back_and_out_again(app):
    async with browser(app) as client:
        response = await log_in(client, f" {KEY}\n", next="/?x=1")
        assert (response.status_code, response.headers["location"]) == (303, "/?x=1")
        page = await client.get("/")
        assert page.status_code == 200
        cookie = dict(client.cookies)
        csrf = re.search(r'name="csrf" value="(\w+)"', page.text)[1]
        assert (await client.post("/logout", data={"csrf": csrf})).headers["location"] == "/login"
        assert (await client.get("/")).status_code == 303
    async with browser(app) as thief:
        thief.cookies.update(cookie)
        assert (await thief.get("/")).status_code == 303, "a cookie is worth nothing once it was logged out"


async def test_the_cookie_is_for_this_site_alone(app):
    async with browser(app) as client:
        said = (await log_in(client)).headers["set-cookie"]
        assert "HttpOnly" in said
        assert "SameSite=strict" in said
        assert f"Max-Age={LASTS_S}" in said
        assert "Secure" not in said
    async with browser(app, "https://127.0.0.1:8443") as client:
        assert "Secure" in (await log_in(client)).headers["set-cookie"]
    async with browser(app) as client:
        client.headers["x-forwarded-proto"] = "https"
        assert "Secure" in (await log_in(client)).headers["set-cookie"]


@pytest.mark.parametrize(
    "target",
    ["//evil.example/", "/\\evil.example", "https://evil.example", "javascript:1", "/x\r\nSet-Cookie: a"],
)
async def test_a_login_leads_nowhere_else(app, target):
    async with browser(app) as client:
        assert (await log_in(client, next=target)).headers["location"] == "/"


async def test_wrong_keys_are_slowed_down(app):
    async with browser(app) as client:
        for _ in range(5):
            assert (await log_in(client, "wrong")).status_code == 403
        refused = await log_in(client)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]
)
async def test_forms_of_other_sites_are_refused(app, headers):
    async with browser(app) as client:
        assert (await client.post("/login", data={"key": KEY}, headers=headers)).status_code == 403
        await log_in(client)
        csrf = re.search(r'name="csrf" value="(\w+)"', (await client.get("/")).text)[1]
        assert (await client.post("/logout", data={"csrf": csrf}, headers=headers)).status_code == 403
        assert (await client.get("/")).status_code == 200


@pytest.mark.parametrize("token", ["", "0" * 64, "é"])
async def test_a_form_without_its_token_does_nothing(app, token):
    async with browser(app) as client:
        await log_in(client)
        assert (await client.post("/logout", data={"csrf": token})).status_code == 403
        assert (await client.get("/")).status_code == 200


async def test_pages_run_nothing_that_is_not_ours(app):
    async with browser(app) as client:
        await log_in(client)
        for path in ("/", "/login?next=/"):
            page = await client.get(path)
            policy = page.headers.get("content-security-policy")
            if page.status_code == 303:
                continue
            assert policy.startswith("default-src 'self';")
            assert "unsafe" not in policy
            assert page.headers["x-frame-options"] == "DENY"
            assert page.headers["cache-control"] == "no-store"
            assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=|javascript:", page.text)
            for link in re.findall(r'(?:src|href)="([^"]+)"', page.text):
                assert link.startswith(("/", "#")), f"{link} is not ours"
        assert "not &lt;b&gt;warm&lt;/b&gt;" in (await client.get("/")).text


@pytest.mark.parametrize(
    ("body", "status"),
    [("a=" + "%41" * 300_000, 413), ("a&" * 500_000, 413), ("&".join(f"a{i}=1" for i in range(300)), 400)],
    ids=["escapes", "fields", "a few fields too many"],
)
async def test_a_form_that_would_take_long_to_read_is_refused_unread(app, body, status):
    """Anybody may send the login's form: half a second of reading it would be heard in every call."""
    async with browser(app) as client:
        refused = await client.post("/login", content=body)
        assert refused.status_code == status
        assert "The form" in refused.text
        assert (await log_in(client)).status_code == 303


async def test_pages_are_written_beside_the_loop():
    written_in = []

    class Witness:
        def __str__(self):
            written_in.append(threading.current_thread())
            return "busy"

    services = ServerServices(
        projects=ConfiguredProjects([]),
        calls=FakeCalls(),
        clock=CLOCK,
        admin_key=AdminKey(KEY),
        not_ready=lambda: [Witness()],
    )
    async with browser(create_app(services)) as client:
        await log_in(client)
        assert "busy" in (await client.get("/")).text
    assert written_in
    assert threading.current_thread() not in written_in


async def test_static_files_are_found_by_name_only(app):
    async with browser(app) as client:
        page = (await client.get("/login")).text
        for link in re.findall(r'(?:src|href)="(/static/[^"]+)"', page):
            response = await client.get(link)
            assert response.status_code == 200, link
            assert "immutable" in response.headers["cache-control"]
            assert response.headers["x-content-type-options"] == "nosniff"
        for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/static/none.js"):
            assert (await client.get(path)).status_code == 404


async def test_pages_are_not_part_of_the_api(app):
    assert not [
        path
        for path in app.openapi()["paths"]
        if not path.startswith(("/v1", "/admin/api/", "/healthz", "/readyz"))
    ]


async def test_without_an_admin_key_there_are_no_pages():
    app = create_app(ServerServices(projects=ConfiguredProjects([]), calls=FakeCalls(), clock=CLOCK))
    async with browser(app) as client:
        assert (await client.get("/")).status_code == 404
        assert (await client.get("/login")).status_code == 404


def logins(key=KEY):
    numbers = iter(range(100))
    return Logins(AdminKey(key), lambda: f"nonce{next(numbers)}")


def test_a_cookie_is_over_when_its_time_is_or_the_key_is_another():
    made = logins()
    cookie = made.begin(1000.0)
    assert made.read(cookie, 1000.0 + LASTS_S - 1).nonce == "nonce0"
    assert made.read(cookie, 1000.0 + LASTS_S) is None
    assert logins().read(cookie, 1001.0) is not None, "a restart logs nobody out"
    assert logins("another-admin-key-0").read(cookie, 1001.0) is None


@pytest.mark.parametrize("forge", [lambda c: "", lambda c: "9" + c, lambda c: c[:-1], lambda c: c + "\ud800"])
def test_a_changed_cookie_is_none(forge):
    made = logins()
    assert made.read(forge(made.begin(1000.0)), 1001.0) is None


def test_each_login_has_a_token_of_its_own():
    made = logins()
    one, two = (made.read(made.begin(0.0), 1.0) for _ in range(2))
    assert one.owns(one.csrf)
    assert not one.owns(two.csrf)


def test_a_wait_grows_to_half_a_minute_and_hits_nobody_else():
    throttle = Throttle()
    waits = []
    for _ in range(12):
        throttle.wrong("192.0.2.1", 100.0)
        waits.append(throttle.wait_s("192.0.2.1", 100.0))
    assert waits == [0, 0, 0, 0, 1, 2, 4, 8, 16, 30, 30, 30]
    assert throttle.wait_s("192.0.2.1", 130.0) == 0
    assert throttle.wait_s("192.0.2.2", 100.0) == 0
    throttle.right("192.0.2.1")
    throttle.wrong("192.0.2.1", 200.0)
    assert throttle.wait_s("192.0.2.1", 200.0) == 0


def test_an_ipv6_host_is_one_source_with_all_its_addresses():
    throttle = Throttle()
    for number in range(5):
        throttle.wrong(f"2001:db8::{number}", 0.0)
    assert throttle.wait_s("2001:db8::ffff", 0.0) == 1
    assert throttle.wait_s("2001:db8:0:1::1", 0.0) == 0
