"""Webhook endpoints and deliveries by API, asked for by the openai package and by commands."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from openai import BadRequestError, ConflictError, NotFoundError, OpenAI

from testbed import DeveloperApp, Node, Phone
from testbed.node import Seat
from testbed.script import SCRIPT
from testbed.waiting import eventually, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENDED = "realtime.call.ended"
INCOMING = "realtime.call.incoming"
LOOPBACK = "[webhooks]\nallow_loopback = true"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(
        tmp_path_factory.mktemp("node"), script=SCRIPT, seats=14, calls=LOOPBACK, ring_timeout_s=3
    ) as running:
        yield running


class Receiver:
    """An endpoint of its own, whose secret is told later."""

    def __init__(self) -> None:
        self.status = 200
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.url = ""
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
                self.requests.append((headers, await reader.readexactly(int(headers["content-length"]))))
                writer.write(f"HTTP/1.1 {self.status} X\r\ncontent-length: 0\r\n\r\n".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@pytest_asyncio.fixture(loop_scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    one = Receiver()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    yield one
    server.close()
    for writer in one.writers:
        writer.transport.abort()
    await asyncio.sleep(0)


async def ask(node: Node, seat: Seat, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    headers = {"api-key": seat.api_key}
    async with httpx2.AsyncClient(timeout=20, headers=headers) as client:
        answer = await client.request(
            method,
            node.base_url.removesuffix("/v1") + path,
            content=None if body is None else json.dumps(body),
        )
    return answer.status_code, answer.json()


def verify(request: tuple[dict[str, str], bytes], secret: str) -> Any:
    headers, body = request
    with OpenAI(api_key="sk-test", webhook_secret=secret) as client:
        return client.webhooks.unwrap(body, headers)


async def a_call_that_nobody_takes(node: Node, seat: Seat) -> None:
    async with Phone(node) as phone:
        call = await phone.dial(seat.project)
        await call.refused(30)


async def test_the_sdk_makes_changes_rotates_tests_and_deletes_an_endpoint(
    node: Node, receiver: Receiver
) -> None:
    async with DeveloperApp(node) as app:
        hooks = app.client.webhooks
        made = await hooks.create(name="Mine", url=receiver.url, event_types=[INCOMING])
        assert made.object == "webhook_endpoint"
        assert made.signing_secret.startswith("whsec_")
        assert made.signing_secret_hint == f"whsec_...{made.signing_secret[-4:]}"
        assert (made.name, made.url, made.event_types) == ("Mine", receiver.url, [INCOMING])

        found = await hooks.retrieve(made.id)
        assert found.created_at == made.created_at
        assert not hasattr(found, "signing_secret")

        changed = await hooks.update(made.id, name="Yours")
        assert (changed.name, changed.url) == ("Yours", receiver.url)

        result = await hooks.test(made.id, event_type=INCOMING)
        assert (result.object, result.status_code, result.success) == ("webhook_endpoint.test", 200, True)
        assert verify(receiver.requests[-1], made.signing_secret).type == INCOMING
        receiver.status = 503
        assert (await hooks.test(made.id, event_type=INCOMING)).status_code == 503
        receiver.status = 200

        rotated = await hooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True)
        assert rotated.signing_secret != made.signing_secret
        await hooks.test(made.id, event_type=INCOMING)
        for secret in (made.signing_secret, rotated.signing_secret):
            verify(receiver.requests[-1], secret)
        last = await hooks.rotate_secret(made.id)
        await hooks.test(made.id, event_type=INCOMING)
        verify(receiver.requests[-1], last.signing_secret)
        assert " " not in receiver.requests[-1][0]["webhook-signature"]

        gone = await hooks.delete(made.id)
        assert (gone.id, gone.deleted, gone.object) == (made.id, True, "webhook_endpoint.deleted")
        with pytest.raises(NotFoundError):
            await hooks.retrieve(made.id)
        assert INCOMING in (await hooks.event_types.list()).data


async def test_a_call_is_told_to_each_endpoint(node: Node, receiver: Receiver) -> None:
    async with DeveloperApp(node) as app:
        made = await app.client.webhooks.create(
            name="second",
            url=receiver.url,
            event_types=[INCOMING],
            extra_body={"event_types": [INCOMING, ENDED]},
        )
        await a_call_that_nobody_takes(node, app.seat)
        await until(lambda: len(receiver.requests) == 2)
        events = [verify(request, made.signing_secret) for request in receiver.requests]
        assert {event.type for event in events} == {INCOMING, ENDED}
        incoming = await app.incoming()
        assert incoming.body == next(body for _, body in receiver.requests if b"incoming" in body)


async def test_the_configurations_endpoints_are_listed_and_read_only(node: Node) -> None:
    async with DeveloperApp(node) as app:
        hooks = app.client.webhooks
        (configured,) = (await hooks.list()).data
        assert configured.url == app.seat.url
        assert configured.model_extra == {"managed_by": "config"}
        assert configured.created_at > 1_600_000_000
        for refused in (
            hooks.update(configured.id, name="x"),
            hooks.rotate_secret(configured.id),
            hooks.delete(configured.id),
        ):
            with pytest.raises(ConflictError) as error:
                await refused
            assert error.value.code == "managed_by_config"
        assert (await hooks.test(configured.id, event_type=INCOMING)).status_code == 200


async def test_lists_are_newest_first_and_paged(node: Node) -> None:
    async with DeveloperApp(node) as app:
        hooks = app.client.webhooks
        names = [f"e{number}" for number in range(5)]
        for name in names:
            await hooks.create(name=name, url="https://app.example.com/", event_types=[INCOMING])
        listed = [endpoint.name async for endpoint in hooks.list(limit=2)]
        assert listed == [*reversed(names), app.seat.url]
        status, body = await ask(node, app.seat, "GET", "/v1/webhook_endpoints?limit=2&after=wh_none")
        assert (status, body["error"]["param"]) == (400, "after")


async def test_another_projects_endpoints_are_unknown(node: Node) -> None:
    async with DeveloperApp(node) as app, DeveloperApp(node) as other:
        made = await app.client.webhooks.create(
            name="x", url="https://app.example.com/", event_types=[INCOMING]
        )
        with pytest.raises(NotFoundError) as error:
            await other.client.webhooks.delete(made.id)
        assert error.value.code == "webhook_endpoint_not_found"
        assert len((await other.client.webhooks.list()).data) == 1


GOOD = {"name": "x", "url": "https://app.example.com/hook", "event_types": [INCOMING]}


async def test_a_body_that_is_wrong_says_where(node: Node) -> None:
    seat = node.seat()
    for change, param in (
        ({"name": ""}, "name"),
        ({"name": "x" * 257}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": 1}, "name"),
        ({"url": "ftp://app.example.com/"}, "url"),
        ({"url": "https://app.example.com/" + "x" * 2048}, "url"),
        ({"url": "https://"}, "url"),
        ({"event_types": []}, "event_types"),
        ({"event_types": "realtime.call.incoming"}, "event_types"),
        ({"event_types": [INCOMING, "batch.completed"]}, "event_types[1]"),
        ({"event_types": [None]}, "event_types[0]"),
        ({"secret": "whsec_AAAA"}, "secret"),
    ):
        status, body = await ask(node, seat, "POST", "/v1/webhook_endpoints", GOOD | change)
        assert (status, body["error"]["param"]) == (400, param)
    for name in GOOD:
        status, body = await ask(
            node, seat, "POST", "/v1/webhook_endpoints", {key: GOOD[key] for key in GOOD if key != name}
        )
        assert (status, body["error"]["code"]) == (400, "missing_required_parameter")
    status, body = await ask(node, seat, "GET", "/v1/webhook_endpoints")
    assert len(body["data"]) == 1


async def test_where_endpoints_may_point(node: Node) -> None:
    seat = node.seat()
    for url, taken in (
        ("https://app.example.com/", True),
        ("http://app.example.com/", False),
        ("http://127.0.0.1:9/", True),  # this node's operator allows it
        ("http://localhost:9/", True),
        ("https://10.0.0.5/", False),
        ("https://192.168.1.1/", False),
        ("https://169.254.169.254/latest/meta-data", False),
        ("https://[fd00::1]/", False),
        ("https://[::ffff:10.0.0.1]/", False),
        ("https://0.0.0.0/", False),
        ("https://[ff02::1]/", False),
    ):
        status, body = await ask(node, seat, "POST", "/v1/webhook_endpoints", GOOD | {"url": url})
        assert (status == 200) is taken, (url, body)
        if not taken:
            assert body["error"]["param"] == "url"
            assert "https" in body["error"]["message"]


async def test_by_default_this_machine_is_refused_and_so_is_a_name_that_leads_here(tmp_path: Path) -> None:
    with Node(tmp_path, script=SCRIPT) as node:
        seat = node.seat()
        for url in ("http://127.0.0.1:9/", "https://127.0.0.1:9/", "https://localhost:9/", "https://[::1]/"):
            status, body = await ask(node, seat, "POST", "/v1/webhook_endpoints", GOOD | {"url": url})
            assert (status, body["error"]["param"]) == (400, "url"), url
        # A name is judged by what it leads to, at each connection.
        status, made = await ask(
            node, seat, "POST", "/v1/webhook_endpoints", GOOD | {"url": "https://ip6-localhost:9/"}
        )
        assert status == 200
        status, body = await ask(
            node, seat, "POST", f"/v1/webhook_endpoints/{made['id']}/test", {"event_type": INCOMING}
        )
        assert (status, body["error"]["code"]) == (502, "webhook_endpoint_unreachable")


async def test_an_endpoint_that_does_not_answer_its_test(node: Node) -> None:
    async with DeveloperApp(node, listening=False) as app:
        made = await app.client.webhooks.create(name="x", url="http://127.0.0.1:9/", event_types=[INCOMING])
        status, body = await ask(
            node, app.seat, "POST", f"/v1/webhook_endpoints/{made.id}/test", {"event_type": INCOMING}
        )
        assert (status, body["error"]["code"]) == (502, "webhook_endpoint_unreachable")
        assert "refused" in body["error"]["message"]
        with pytest.raises(BadRequestError):
            await app.client.webhooks.test(made.id, event_type="batch.completed")


async def command(node: Node, seat: Seat, *words: str) -> tuple[int, str]:
    environment = os.environ | {
        "OFFHOOK_URL": node.base_url.removesuffix("/v1"),
        "OFFHOOK_API_KEY": seat.api_key,
        "COLUMNS": "300",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "offhook", "webhooks", *words, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def test_deliveries_are_listed_shown_and_sent_again(node: Node, receiver: Receiver) -> None:
    async with DeveloperApp(node) as app:
        receiver.status = 500
        made = await app.client.webhooks.create(name="x", url=receiver.url, event_types=[INCOMING])
        await a_call_that_nobody_takes(node, app.seat)
        call_id = (await app.incoming()).call_id
        path = f"/v1/webhook_deliveries?call_id={call_id}&event_type={INCOMING}"

        async def states() -> dict[str, str]:
            _, page = await ask(node, app.seat, "GET", path)
            return {one["webhook_endpoint_id"]: one["state"] for one in page["data"]}

        (configured,) = [one.id for one in (await app.client.webhooks.list()).data if one.id != made.id]
        wanted = {made.id: "expired", configured: "delivered"}
        assert await eventually(states, wanted) == wanted

        _, page = await ask(node, app.seat, "GET", f"{path}&webhook_endpoint_id={made.id}")
        (delivery,) = page["data"]
        _, shown = await ask(node, app.seat, "GET", f"/v1/webhook_deliveries/{delivery['id']}")
        assert len(shown["attempts"]) == shown["attempt_count"] >= 2
        assert {attempt["status"] for attempt in shown["attempts"]} == {500}

        receiver.status = 200
        count = len(receiver.requests)
        status, again = await ask(
            node, app.seat, "POST", f"/v1/webhook_deliveries/{delivery['id']}/redeliver"
        )
        assert (status, again["event_id"]) == (200, delivery["event_id"])
        await until(lambda: len(receiver.requests) > count)
        assert verify(receiver.requests[-1], made.signing_secret).id == delivery["event_id"]
        assert receiver.requests[-1][1] == receiver.requests[0][1]

        status, body = await ask(node, app.seat, "GET", "/v1/webhook_deliveries?state=lost")
        assert (status, body["error"]["param"]) == (400, "state")
        other = node.seat()
        status, body = await ask(node, other, "POST", f"/v1/webhook_deliveries/{delivery['id']}/redeliver")
        assert (status, body["error"]["code"]) == (404, "webhook_delivery_not_found")

        code, out = await command(node, app.seat, "list")
        assert code == 0
        assert made.id in out
        code, out = await command(node, app.seat, "deliveries", "--call", call_id, "--json")
        assert delivery["id"] in [one["id"] for one in json.loads(out)]
        code, out = await command(node, app.seat, "deliveries", "--state", "expired")
        assert delivery["id"] in out
        count = len(receiver.requests)
        code, out = await command(node, app.seat, "redeliver", delivery["id"])
        assert code == 0, out
        await until(lambda: len(receiver.requests) > count)
        code, out = await command(node, app.seat, "test", made.id)
        assert (code, "HTTP 200" in out) == (0, True)
        receiver.status = 404
        code, out = await command(node, app.seat, "test", made.id)
        assert (code, "HTTP 404" in out) == (1, True)
        code, out = await command(node, app.seat, "redeliver", "whd_none")
        assert (code, "No delivery" in out) == (1, True)


async def test_what_is_made_by_api_outlives_the_node(tmp_path: Path, receiver: Receiver) -> None:
    with Node(tmp_path, script=SCRIPT, calls=LOOPBACK) as node:
        seat = node.seat()
        _, made = await ask(node, seat, "POST", "/v1/webhook_endpoints", GOOD | {"url": receiver.url})
        node.kill()
        with node:
            status, found = await ask(node, seat, "GET", f"/v1/webhook_endpoints/{made['id']}")
            assert (status, found["url"]) == (200, receiver.url)
            await ask(
                node, seat, "POST", f"/v1/webhook_endpoints/{made['id']}/test", {"event_type": INCOMING}
            )
            verify(receiver.requests[-1], made["signing_secret"])
            node.kill()
