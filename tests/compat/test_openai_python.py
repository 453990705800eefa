"""openai-python, unmodified: `AsyncOpenAI` with its base URL set to the node."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from testbed import DeveloperApp, Node, Phone, Sideband


class CountingClient(DefaultAsyncHttpxClient):
    """Notes each request that really goes out, and its answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.answers: list[httpx2.Response] = []

    async def send(self, *args: Any, **kwargs: Any) -> httpx2.Response:
        response = await super().send(*args, **kwargs)
        self.answers.append(response)
        return response


def _retrying(app: DeveloperApp) -> tuple[AsyncOpenAI, CountingClient]:
    """A client with the SDK's own default of two retries."""
    http = CountingClient()
    return AsyncOpenAI(api_key=app.seat.api_key, base_url=app.node.base_url, http_client=http), http


async def test_the_webhook_names_the_call_and_its_invite(app: DeveloperApp, phone: Phone) -> None:
    headers = [("X-Account", "42"), ("Diversion", "<sip:+15550100@carrier.example>"), ("X-Account", "Zoë")]
    call = await phone.dial(app.seat.project, headers=[*headers, ("Authorization", 'Digest username="x"')])
    webhook = await app.incoming()

    assert webhook.event.object == "event"
    assert webhook.event.id == webhook.headers["webhook-id"]
    sent = [(header.name, header.value) for header in webhook.event.data.sip_headers]
    invite = call.leg.invite
    assert [pair for pair in sent if pair[0] in ("X-Account", "Diversion")] == headers
    assert ("Call-ID", invite.call_id) in sent
    assert not [name for name, _ in sent if "authorization" in name.lower()]
    assert webhook.event.data.call_id.startswith("rtc_u0_")
    await app.client.realtime.calls.reject(webhook.call_id)


async def test_accept_connect_and_hang_up(app: DeveloperApp, phone: Phone) -> None:
    call = await phone.dial(app.seat.project)
    webhook = await app.incoming()
    assert (
        await app.client.realtime.calls.accept(
            webhook.call_id,
            type="realtime",
            model="gpt-realtime",
            instructions="Be brief.",
            audio={"output": {"voice": "marin"}, "input": {"transcription": {"model": "whisper-1"}}},
            tools=[
                {"type": "function", "name": "look_up", "description": "", "parameters": {"type": "object"}}
            ],
        )
        is None
    )
    await call.answered()

    async with Sideband(app.client, webhook.call_id) as sideband:
        created = await sideband.wait_for("session.created")
        session = created["session"]
        assert session["type"] == "realtime"
        assert session["instructions"] == "Be brief."
        assert session["audio"]["output"]["voice"] == "marin"
        assert session["tools"][0]["name"] == "look_up"
        assert session["audio"]["input"]["turn_detection"]["interrupt_response"] is True
        assert session["audio"]["input"]["turn_detection"]["create_response"] is True

        await sideband.connection.response.create(response={"instructions": "Greet the caller."})
        done = await sideband.wait_for("response.done")
        assert done["response"]["status"] == "completed"
        await sideband.wait_for("output_audio_buffer.stopped")

        await app.client.realtime.calls.hangup(webhook.call_id)
        assert (await call.ended()).cause == "remote_bye"
        assert (await sideband.wait_closed())[0] == 1000


async def test_accept_with_cast_to_dict(app: DeveloperApp, phone: Phone) -> None:
    call = await phone.dial(app.seat.project)
    webhook = await app.incoming()

    await app.client.post(
        f"/realtime/calls/{webhook.call_id}/accept",
        body={"type": "realtime", "model": "gpt-realtime"},
        cast_to=dict,
    )

    await call.answered()


@pytest.mark.parametrize(("asked", "sent"), [(None, 603), (486, 486)])
async def test_reject(app: DeveloperApp, phone: Phone, asked: int | None, sent: int) -> None:
    call = await phone.dial(app.seat.project)
    webhook = await app.incoming()

    await app.client.realtime.calls.reject(webhook.call_id, **({"status_code": asked} if asked else {}))

    assert (await call.refused()).status == sent


async def test_refer(app: DeveloperApp, phone: Phone) -> None:
    call = await phone.dial(app.seat.project)
    webhook = await app.incoming()
    await app.accept(webhook.call_id)
    await call.answered()

    await app.client.realtime.calls.refer(webhook.call_id, target_uri="tel:+14155550123")

    assert call.received("REFER")[0].message.headers.get("Refer-To") == "<tel:+14155550123>"
    assert (await call.ended()).cause == "remote_bye"


async def test_an_unknown_call_is_not_found_on_every_verb(app: DeveloperApp) -> None:
    client, http = _retrying(app)
    calls = client.realtime.calls
    async with client:
        for request in (
            calls.accept("rtc_u0_0", type="realtime"),
            calls.reject("rtc_u0_0"),
            calls.refer("rtc_u0_0", target_uri="tel:+14155550123"),
            calls.hangup("rtc_u0_0"),
        ):
            with pytest.raises(openai.NotFoundError) as raised:
                await request
            assert raised.value.code == "call_id_not_found"
            assert raised.value.body == {
                "message": "No session found for the provided call_id",
                "type": "invalid_request_error",
                "code": "call_id_not_found",
                "param": "",
            }
            assert raised.value.request_id
        assert len(http.answers) == 4


async def test_an_unknown_call_is_not_found_before_the_websocket_opens(app: DeveloperApp) -> None:
    from websockets.exceptions import InvalidStatus

    with pytest.raises(InvalidStatus) as raised:
        async with app.client.realtime.connect(call_id="rtc_u0_0"):
            pass
    assert raised.value.response.status_code == 404
    assert b"call_id_not_found" in raised.value.response.body


async def test_a_wrong_key_is_an_authentication_error(app: DeveloperApp) -> None:
    wrong = app.client.with_options(api_key="sk-wrong")
    with pytest.raises(openai.AuthenticationError) as raised:
        await wrong.realtime.calls.accept("rtc_u0_0", type="realtime")
    assert raised.value.code == "invalid_api_key"


async def test_a_bad_accept_names_its_parameter_and_the_phone_rings_on(
    app: DeveloperApp, phone: Phone
) -> None:
    call = await phone.dial(app.seat.project)
    webhook = await app.incoming()
    bad: list[tuple[dict[str, Any], str, str]] = [
        ({}, "missing_required_parameter", "session.type"),
        ({"type": "realtime", "voice_": "x"}, "unknown_parameter", "session.voice_"),
        ({"type": "realtime", "audio": {"output": {"speed": 9}}}, "", "session.audio.output.speed"),
        ({"type": "realtime", "tools": "all"}, "invalid_type", "session.tools"),
    ]
    for body, code, param in bad:
        with pytest.raises(openai.BadRequestError) as raised:
            await app.client.post(f"/realtime/calls/{webhook.call_id}/accept", body=body, cast_to=dict)
        assert raised.value.param == param, raised.value
        assert not code or raised.value.code == code

    await app.accept(webhook.call_id)
    await call.answered()


async def test_a_conflict_is_not_retried(app: DeveloperApp, phone: Phone) -> None:
    call = await phone.dial(app.seat.project)
    webhook = await app.incoming()
    await app.accept(webhook.call_id)
    await call.answered()
    client, http = _retrying(app)

    async with client:
        with pytest.raises(openai.ConflictError):
            await client.realtime.calls.reject(webhook.call_id)

    assert [answer.status_code for answer in http.answers] == [409]
    assert http.answers[0].headers["x-should-retry"] == "false"
    assert call.alive


async def test_every_answer_has_a_request_id_and_an_empty_one_no_json(
    app: DeveloperApp, phone: Phone
) -> None:
    client, http = _retrying(app)
    call = await phone.dial(app.seat.project)
    webhook = await app.incoming()
    async with client:
        await client.realtime.calls.accept(webhook.call_id, type="realtime")
        await call.answered()
        await client.realtime.calls.hangup(webhook.call_id)
        with pytest.raises(openai.NotFoundError):
            await client.realtime.calls.hangup(webhook.call_id)

    assert [answer.status_code for answer in http.answers] == [200, 200, 404]
    ids = [answer.headers["x-request-id"] for answer in http.answers]
    assert len(set(ids)) == 3
    for answer in http.answers[:2]:
        assert answer.content == b""
        assert "json" not in answer.headers.get("content-type", "")
        assert answer.headers["content-length"] == "0"


async def test_the_same_over_https(node: Node, app: DeveloperApp, phone: Phone) -> None:
    import ssl

    tls = ssl.create_default_context(cafile=node.ca)
    call = await phone.dial(app.seat.project)
    webhook = await app.incoming()
    async with AsyncOpenAI(
        api_key=app.seat.api_key,
        base_url=node.https_base_url,
        http_client=DefaultAsyncHttpxClient(verify=tls),
    ) as client:
        await client.realtime.calls.accept(webhook.call_id, type="realtime")
        await call.answered()
        options: Any = {"ssl": tls}
        async with client.realtime.connect(
            call_id=webhook.call_id, websocket_connection_options=options
        ) as connection:
            assert (await connection.recv()).type == "session.created"
