"""The largest answer there is must not keep the event loop waiting."""

import json
from types import SimpleNamespace

import orjson
import pytest

from offhook.server import timeline_response as module


@pytest.mark.parametrize("entries", [0, 1, 100, 101, 5000])
async def test_it_is_the_whole_timeline_encoded_in_pieces(entries, monkeypatch):
    pieces = []

    def dumps(*args, **options):
        pieces.append(orjson.dumps(*args, **options))
        return pieces[-1]

    monkeypatch.setattr(module, "orjson", SimpleNamespace(dumps=dumps))
    entry = {"kind": "sip", "title": "ü", "message": "x" * 900}
    timeline = {"object": "realtime.call.timeline", "call_id": "rtc_u0_1", "dropped": 0}
    timeline["data"] = [{"number": number, **entry} for number in range(entries)]
    response = await module.timeline_response(timeline, {"cache-control": "no-store"})
    assert json.loads(response.body) == timeline
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    assert max(map(len, pieces)) < 150_000
