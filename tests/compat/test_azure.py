"""Apps written for Azure: its clients of the openai package, its paths and its webhook service (API section 8)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, DefaultAsyncHttpxClient
from websockets.exceptions import InvalidStatus

from testbed import DeveloperApp, Node, Phone, PhoneCall, Sideband
from testbed.model_session import ModelSession

VERSION = "2025-04-01-preview"
TARGET = "tel:+14155550123"
Make = Callable[..., AsyncOpenAI]


def root(node: Node) -> str:
    return node.base_url.removesuffix("/v1")


def sockets(node: Node) -> str:
    """What `websocket_base_url` is set to where there is no TLS: without it the SDK insists on `wss:` (row X04)."""
    return root(node).replace("http:", "ws:") + "/openai"


def azure_client(node: Node, **options: Any) -> AsyncOpenAI:
    """`AsyncAzureOpenAI`, which asks below `/openai` with `api-version` (rows A01, A02)."""
    return AsyncAzureOpenAI(api_version=VERSION, websocket_base_url=sockets(node), max_retries=0, **options)


def by_endpoint(node: Node, key: str) -> AsyncOpenAI:
    return azure_client(node, api_key=key, azure_endpoint=root(node))


def by_base_url(node: Node, key: str) -> AsyncOpenAI:
    return azure_client(node, api_key=key, base_url=f"{root(node)}/openai")


def with_deployment(node: Node, key: str) -> AsyncOpenAI:
    """The client's own deployment stands in its base URL, and REST about calls leaves it out again."""
    return azure_client(node, api_key=key, azure_endpoint=root(node), azure_deployment="our-deployment")


def with_token(node: Node, key: str) -> AsyncOpenAI:
    """An Entra token is sent as `Authorization: Bearer` (row A03)."""
    return azure_client(node, azure_ad_token=key, azure_endpoint=root(node))


def since_v1(node: Node, key: str) -> AsyncOpenAI:
    """The way of today: the plain client below `/openai/v1/`."""
    return AsyncOpenAI(api_key=key, base_url=f"{root(node)}/openai/v1/", max_retries=0)


def since_v1_by_header(node: Node, key: str) -> AsyncOpenAI:
    """The same with the key as `api-key` alone, and `api-version` on every request (row A05)."""
    return AsyncOpenAI(
        api_key="unused",
        base_url=f"{root(node)}/openai/v1/",
        default_headers={"api-key": key},
        default_query={"api-version": "preview"},
        max_retries=0,
    )


WAYS: list[Make] = [by_endpoint, by_base_url, with_deployment, with_token, since_v1, since_v1_by_header]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
async def azure(request: pytest.FixtureRequest, app: DeveloperApp) -> AsyncIterator[AsyncOpenAI]:
    async with request.param(app.node, app.seat.api_key) as client:
        yield client


async def ringing(app: DeveloperApp, phone: Phone) -> tuple[PhoneCall, str]:
    call = await phone.dial(app.seat.project)
    return call, (await app.incoming()).call_id


# Calls.


async def test_a_call_is_accepted_heard_transferred_and_over(
    azure: AsyncOpenAI, app: DeveloperApp, phone: Phone
) -> None:
    """Rows A01, A02, A03, X04, X05: each client, unmodified, from the webhook to the transfer."""
    call, call_id = await ringing(app, phone)
    await azure.realtime.calls.accept(call_id, type="realtime", model="our-deployment")
    await call.answered()
    async with Sideband(azure, call_id, model="our-deployment") as sideband:
        created = await sideband.wait_for("session.created")
        assert created["session"]["model"] == "our-deployment"
        await sideband.connection.response.create()
        assert (await sideband.wait_for("response.done"))["response"]["status"] == "completed"

        await azure.realtime.calls.refer(call_id, target_uri=TARGET)
        assert (await call.ended()).cause == "remote_bye"
        assert (await sideband.wait_closed())[0] == 1000
    assert call.received("REFER")[0].message.headers.get("Refer-To") == f"<{TARGET}>"
    with pytest.raises(openai.NotFoundError) as caught:
        await azure.realtime.calls.hangup(call_id)
    assert (caught.value.code, bool(caught.value.request_id)) == ("call_id_not_found", True)


async def test_a_call_is_hung_up(azure: AsyncOpenAI, app: DeveloperApp, phone: Phone) -> None:
    call, call_id = await ringing(app, phone)
    await azure.realtime.calls.accept(call_id, type="realtime")
    await call.answered()
    await azure.realtime.calls.hangup(call_id)
    assert (await call.ended()).cause == "remote_bye"


@pytest.mark.parametrize("way", [by_endpoint, since_v1])
@pytest.mark.parametrize(("asked", "sent"), [(None, 603), (486, 486), (408, 408)])
async def test_a_declined_call_gets_azures_sip_codes(
    app: DeveloperApp, phone: Phone, way: Make, asked: int | None, sent: int
) -> None:
    """Row A08: declined is 603; what else Azure's papers name is sent when the app says so."""
    call, call_id = await ringing(app, phone)
    async with way(app.node, app.seat.api_key) as azure:
        await azure.realtime.calls.reject(call_id, **({} if asked is None else {"status_code": asked}))
    assert (await call.refused()).status == sent


async def test_the_blocking_client(app: DeveloperApp, phone: Phone) -> None:
    """Rows X04, X05 with `AzureOpenAI`: no `await` in the app."""
    call, call_id = await ringing(app, phone)

    def run() -> list[str]:
        with AzureOpenAI(
            api_key=app.seat.api_key,
            api_version=VERSION,
            azure_endpoint=root(app.node),
            websocket_base_url=sockets(app.node),
        ) as azure:
            azure.realtime.calls.accept(call_id, type="realtime", model="our-deployment")
            with azure.realtime.connect(model="our-deployment", call_id=call_id) as connection:
                connection.response.create()
                types = [connection.recv().type for _ in range(2)]
            azure.realtime.calls.hangup(call_id)
            return types

    assert await asyncio.to_thread(run) == ["session.created", "response.created"]
    await call.ended()


async def test_the_wss_that_the_client_insists_on(app: DeveloperApp, phone: Phone) -> None:
    """Row X04: without `websocket_base_url` the client always asks by TLS, on the port of its REST requests."""
    tls = ssl.create_default_context(cafile=app.node.ca)
    call, call_id = await ringing(app, phone)
    async with AsyncAzureOpenAI(
        api_key=app.seat.api_key,
        api_version=VERSION,
        azure_endpoint=app.node.https_base_url.removesuffix("/v1"),
        http_client=DefaultAsyncHttpxClient(verify=tls),
    ) as azure:
        await azure.realtime.calls.accept(call_id, type="realtime")
        await call.answered()
        options: Any = {"ssl": tls}
        async with azure.realtime.connect(
            model="our-deployment", call_id=call_id, websocket_connection_options=options
        ) as connection:
            assert (await connection.recv()).type == "session.created"


async def test_transcription_that_is_asked_for_at_accept_counts(app: DeveloperApp, phone: Phone) -> None:
    """Row A09: no `session.update` is needed for the caller's words."""
    call, call_id = await ringing(app, phone)
    async with by_endpoint(app.node, app.seat.api_key) as azure:
        await azure.realtime.calls.accept(
            call_id,
            type="realtime",
            audio={"input": {"transcription": {"model": "whisper-1", "language": "en"}}},
        )
        await call.answered()
        async with Sideband(azure, call_id, model="our-deployment") as sideband:
            created = await sideband.wait_for("session.created")
            assert created["session"]["audio"]["input"]["transcription"] == {
                "model": "whisper-1",
                "language": "en",
            }
            call.speak(500)
            heard = await sideband.wait_for("conversation.item.input_audio_transcription.completed")
            assert heard["transcript"] == "Good morning."


@pytest.mark.parametrize("way", WAYS)
async def test_a_key_that_is_none_is_refused_on_rest_and_websocket(node: Node, way: Make) -> None:
    """Rows A03, C01."""
    async with way(node, "wrong") as azure:
        with pytest.raises(openai.AuthenticationError) as refused:
            await azure.realtime.calls.hangup("rtc_u0_0")
        assert refused.value.code == "invalid_api_key"
        with pytest.raises(InvalidStatus) as closed:
            async with azure.realtime.connect(model="our-deployment"):
                pass
    assert closed.value.response.status_code == 401
    assert b"invalid_api_key" in closed.value.response.body


# Sessions without a call.


async def test_a_deployment_is_the_name_of_the_model(azure: AsyncOpenAI) -> None:
    """Rows A02, A04, S03: whatever the deployment is called, it is the session's model."""
    async with ModelSession(azure, "our-deployment") as session:
        assert session.events[0]["session"]["model"] == "our-deployment"
        await session.connection.response.create()
        assert (await session.wait_for("response.done"))["response"]["status"] == "completed"


@pytest.mark.parametrize(
    ("path", "query", "model"),
    [
        ("/openai", {"deployment": "dep"}, "dep"),
        ("/openai", {"deployment": "dep", "model": "other"}, "dep"),
        ("/openai", {"model": "only"}, "only"),
        ("/openai/v1", {"model": "dep", "deployment": "other", "api-version": VERSION}, "dep"),
        ("/openai/v1", {"deployment": "only"}, "only"),
        ("/v1", {"model": "dep", "deployment": "other"}, "dep"),
    ],
)
async def test_the_word_that_the_path_is_for_names_the_model(
    node: Node, path: str, query: dict[str, str], model: str
) -> None:
    """Row A04: `deployment` below `/openai`, `model` elsewhere; the other one only where that is missing."""
    async with (
        AsyncOpenAI(api_key=node.seats[0].api_key, base_url=root(node) + path) as client,
        client.realtime.connect(extra_query=dict(query)) as connection,
    ):
        created: Any = await connection.recv()
    assert created.session.model == model


# The webhook service.

WEBHOOKS = "/openai/v1/dashboard/webhook_endpoints"
INCOMING = "realtime.call.incoming"


@pytest.fixture
async def service(node: Node) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"api-key": node.seat().api_key}
    async with httpx2.AsyncClient(base_url=root(node), headers=headers, timeout=15) as client:
        yield client


async def test_webhook_endpoints_of_azures_service(service: httpx2.AsyncClient) -> None:
    """Rows A07, W27: made, listed, changed and deleted by REST, with Azure's `object` and the secret told once."""
    wish = {"name": "calls", "url": "https://hooks.example.com/a", "event_types": [INCOMING]}
    made = (await service.post(WEBHOOKS, json=wish)).json()
    assert made["object"] == "webhook.endpoint"
    assert {name: made[name] for name in wish} == wish
    secret = made["signing_secret"]
    hint = f"whsec_...{secret[-4:]}"
    assert (secret.startswith("whsec_"), made["signing_secret_hint"]) == (True, hint)

    listed = (await service.get(WEBHOOKS)).json()
    assert listed["object"] == "list"
    assert {one["object"] for one in listed["data"]} == {"webhook.endpoint"}
    assert not [one for one in listed["data"] if "signing_secret" in one]
    (found,) = [one for one in listed["data"] if one["id"] == made["id"]]

    changed = (
        await service.post(f"{WEBHOOKS}/{made['id']}", json={"url": "https://hooks.example.com/b"})
    ).json()
    assert changed | {"updated_at": 0} == found | {"url": "https://hooks.example.com/b", "updated_at": 0}

    gone = (await service.delete(f"{WEBHOOKS}/{made['id']}")).json()
    assert gone == {"id": made["id"], "object": "webhook.endpoint.deleted", "deleted": True}
    refused = await service.post(f"{WEBHOOKS}/{made['id']}", json={"name": "x"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "webhook_endpoint_not_found")


@pytest.mark.parametrize("name", ["signing_secret", "secret", "signing_secret_hint"])
async def test_an_update_cannot_change_the_secret(service: httpx2.AsyncClient, name: str) -> None:
    """Row W27. To have a new one made there is `/rotate_secret`, as on the other paths."""
    wish = {"name": "calls", "url": "https://hooks.example.com/a", "event_types": [INCOMING]}
    made = (await service.post(WEBHOOKS, json=wish)).json()
    refused = await service.post(f"{WEBHOOKS}/{made['id']}", json={name: "whsec_AAAA", "name": "new"})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (400, "unknown_parameter", name)
    kept = (await service.get(f"{WEBHOOKS}/{made['id']}")).json()
    assert (kept["name"], kept["signing_secret_hint"]) == ("calls", made["signing_secret_hint"])


async def test_the_webhook_service_needs_a_key(node: Node) -> None:
    async with httpx2.AsyncClient(base_url=root(node)) as client:
        for answer in (
            await client.get(WEBHOOKS),
            await client.post(WEBHOOKS, json={}),
            await client.delete(f"{WEBHOOKS}/wh_1"),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
