"""Signatures, judged by the openai package and by hand (API rows W06 to W12)."""

import base64
import hashlib
import hmac
import json
import time

import pytest
from openai import InvalidWebhookSignatureError, OpenAI

from offhook.calls.ports import WebhookEvent
from offhook.webhooks.payload import encode
from offhook.webhooks.signature import SecretError, sign, signing_key

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
OLD_SECRET = "whsec_" + base64.b64encode(b"another secret of thirty-2 bytes").decode()


def incoming(headers):
    return WebhookEvent(
        "evt_1", "realtime.call.incoming", 1_760_000_000, {"call_id": "rtc_u0_1", "sip_headers": headers}
    )


def request(body, *, secrets=(SECRET,), timestamp=None):
    timestamp = int(time.time()) if timestamp is None else timestamp
    return {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secrets, webhook_id="evt_1", timestamp=timestamp, body=body),
    }


@pytest.fixture
def client():
    with OpenAI(api_key="sk-test", webhook_secret=SECRET) as client:
        yield client


def test_the_vector_of_the_rule():
    expected = hmac.new(b"0123456789abcdef0123456789abcdef", b'evt_1.1700000000.{"a":1}', hashlib.sha256)
    assert sign([SECRET], webhook_id="evt_1", timestamp=1_700_000_000, body=b'{"a":1}') == (
        "v1," + base64.b64encode(expected.digest()).decode()
    )


def test_a_secret_without_prefix_is_its_own_bytes():
    assert signing_key("plain secret") == b"plain secret"


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_YWJj*", "whsec_YWJjZA", "whsec_Y-Jj_A=="])
def test_a_secret_that_receivers_cannot_use_is_refused_without_being_shown(secret):
    with pytest.raises(SecretError) as caught:
        signing_key(secret)
    assert len(secret) < 7 or secret not in str(caught.value)


def test_unwrap_takes_a_signed_body(client):
    body = encode(incoming([{"name": "From", "value": "<sip:+15550001111@carrier>"}]))
    event = client.webhooks.unwrap(body, request(body))
    assert event.type == "realtime.call.incoming"
    assert event.data.call_id == "rtc_u0_1"
    assert event.data.sip_headers[0].value == "<sip:+15550001111@carrier>"


def test_unwrap_takes_a_name_that_is_not_ascii(client):
    body = encode(incoming([{"name": "From", "value": '"Zoë Ångström 李" <sip:zoe@carrier>'}]))
    assert "李" in client.webhooks.unwrap(body, request(body)).data.sip_headers[0].value


@pytest.mark.parametrize("age", [301, -301])
def test_unwrap_refuses_a_time_stamp_five_minutes_off(client, age):
    body = encode(incoming([]))
    with pytest.raises(InvalidWebhookSignatureError):
        client.webhooks.unwrap(body, request(body, timestamp=int(time.time()) - age))


def test_unwrap_refuses_a_changed_body(client):
    body = encode(incoming([]))
    with pytest.raises(InvalidWebhookSignatureError):
        client.webhooks.unwrap(body.replace(b"rtc_u0_1", b"rtc_u0_2"), request(body))


@pytest.mark.parametrize("known", [SECRET, OLD_SECRET])
def test_two_signatures_verify_with_either_secret(known):
    body = encode(incoming([]))
    with OpenAI(api_key="sk-test", webhook_secret=known) as client:
        client.webhooks.unwrap(body, request(body, secrets=(SECRET, OLD_SECRET)))


def test_an_event_type_of_ours_unwraps(client):
    body = encode(
        WebhookEvent("evt_1", "realtime.call.ended", 1, {"call_id": "rtc_u0_1", "reason": "hangup"})
    )
    event = client.webhooks.unwrap(body, request(body))
    assert (event.type, event.data.reason) == ("realtime.call.ended", "hangup")


def test_the_body_is_exactly_the_documented_object():
    headers = [
        {"name": "Via", "value": "SIP/2.0/UDP 192.0.2.1"},
        {"name": "X-Note", "value": "1"},
        {"name": "Via", "value": "SIP/2.0/UDP 192.0.2.2"},
    ]
    body = encode(incoming(headers))
    assert json.loads(body) == {
        "object": "event",
        "id": "evt_1",
        "type": "realtime.call.incoming",
        "created_at": 1_760_000_000,
        "data": {"call_id": "rtc_u0_1", "sip_headers": headers},
    }
    assert list(json.loads(body)) == ["object", "id", "type", "created_at", "data"]


def test_bytes_that_are_no_text_do_not_lose_the_event():
    body = encode(incoming(({"name": "Subject", "value": "caf\udce9"},)))
    assert json.loads(body)["data"]["sip_headers"][0]["value"] == "caf?"
