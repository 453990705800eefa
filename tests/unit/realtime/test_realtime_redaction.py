"""What an upstream repeats of its key, and what is left of that."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest

from offhook.realtime.engines.upstream.redaction import Redaction

KEY = 'sk-a/7Q"p+Z\\k3w=='
BASE64 = [base64.b64encode(b"x" * shift + KEY.encode() + b"y" * 3).decode() for shift in range(3)]


@pytest.mark.parametrize(
    "written",
    [
        json.dumps(KEY)[1:-1],
        json.dumps(KEY)[1:-1].replace("/", "\\/"),
        "".join(f"\\u{ord(char):04x}" for char in KEY),
        "".join(f"\\u{ord(char):04X}" for char in KEY),
        quote(KEY, safe=""),
        KEY.encode().hex(),
        *BASE64,
        *(base64.urlsafe_b64encode(base64.b64decode(one)).decode() for one in BASE64),
    ],
)
def test_a_key_is_taken_out_however_it_is_written(written):
    frame = json.dumps({"type": "error", "n": [1]}).replace("[1]", f'["{written}", "é \\n ü"]')
    hidden = Redaction(KEY).hide(frame.encode())
    assert b"[key]" in hidden
    event = json.loads(hidden)
    assert event["n"][1] == "é \n ü"
    # At most two characters of a key can hide in base64's first and last place.
    assert len(event["n"][0]) <= len("[key]") + 12
    assert written not in hidden.decode()


def test_what_holds_no_key_is_left_as_it_is():
    frame = json.dumps({"type": "response.output_text.delta", "delta": 'sk-a/7Q, "p+Z\\k3w='}).encode()
    assert Redaction(KEY).hide(frame) == frame


@pytest.mark.parametrize("key", ["", "test", "dev-key"])
def test_no_key_and_a_word_too_short_to_be_one_are_not_looked_for(key):
    frame = b'{"type":"response.output_text.delta","delta":"this is a test of dev-key"}'
    assert Redaction(key).hide(frame) == frame


def test_a_plain_key_is_taken_out_of_sound_too():
    frame = b'{"type":"response.output_audio.delta","event_id":"sk-0123456789","delta":"AAAA"}'
    assert b"sk-0123456789" not in Redaction("sk-0123456789").hide(frame)
