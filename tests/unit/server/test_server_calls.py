"""`/v1/realtime/calls` by the real openai package and by plain HTTP (API rows R01 to R25, C01 to C15)."""

import asyncio
import json
from hashlib import sha256

import openai
import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")

VERBS = ["accept", "reject", "refer", "hangup"]
NOT_FOUND = {
    "error": {
        "message": "No session found for the provided call_id",
        "type": "invalid_request_error",
        "code": "call_id_not_found",
        "param": "",
    }
}
BODIES = {
    "accept": {"type": "realtime"},
    "reject": {},
    "refer": {"target_uri": "tel:+15551234567"},
    "hangup": None,
}


def path(call_id, verb):
    return f"/v1/realtime/calls/{call_id}/{verb}"


# With the openai package.


async def test_openai_accepts(node):
    call = node.calls.add("rtc_u0_1")
    async with node.openai() as client:
        assert (
            await client.realtime.calls.accept("rtc_u0_1", type="realtime", model="m", instructions="Hi")
            is None
        )
    assert call.asked == [("accept", {"type": "realtime", "model": "m", "instructions": "Hi"})]


async def test_openai_posts_accept_as_its_own_example_does(node):
    node.calls.add("rtc_u0_1")
    async with node.openai() as client:
        await client.post("/realtime/calls/rtc_u0_1/accept", body={"type": "realtime"}, cast_to=dict)


async def test_openai_rejects_refers_and_hangs_up(node):
    call = node.calls.add("rtc_u0_1")
    async with node.openai() as client:
        await client.realtime.calls.reject("rtc_u0_1")
        await client.realtime.calls.reject("rtc_u0_1", status_code=486)
        await client.realtime.calls.refer("rtc_u0_1", target_uri="tel:+15551234567")
        await client.realtime.calls.hangup("rtc_u0_1")
    assert call.asked == [("reject", 603), ("reject", 486), ("refer", "tel:+15551234567"), ("hangup",)]


@pytest.mark.parametrize(
    ("status", "exception"),
    [
        (400, openai.BadRequestError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (502, openai.InternalServerError),
        (504, openai.InternalServerError),
    ],
)
async def test_openai_sends_a_failed_refer_once(node, call_error, status, exception):
    call = node.calls.add("rtc_u0_1")
    call.error = call_error(status, "no", code="some_code", param="p", details={"sip_status": 603})
    async with node.openai() as client:
        with pytest.raises(exception) as caught:
            await client.realtime.calls.refer("rtc_u0_1", target_uri="tel:+1")
    assert len(call.asked) == 1
    assert (caught.value.code, caught.value.param) == ("some_code", "p")
    assert caught.value.body["details"] == {"sip_status": 603}
    assert caught.value.request_id.startswith("req_")


async def test_openai_repeats_what_may_be_repeated(node, call_error):
    call = node.calls.add("rtc_u0_1")
    call.error = call_error(503, "later", code="engine_unavailable", type="server_error", retry=True)
    async with node.openai(max_retries=1) as client:
        with pytest.raises(openai.InternalServerError):
            await client.realtime.calls.accept("rtc_u0_1", type="realtime")
    assert len(call.asked) == 2


async def test_a_fault_of_ours_is_json_and_is_not_repeated(node, caplog):
    call = node.calls.add("rtc_u0_1")
    call.error = ZeroDivisionError()
    async with node.openai() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.realtime.calls.refer("rtc_u0_1", target_uri="tel:+1")
    assert len(call.asked) == 1
    assert caught.value.body["type"] == "server_error"
    assert caught.value.request_id in caught.value.body["message"]
    assert "ZeroDivisionError" in caplog.text
    assert call.timeline.entries()[-1].details["status"] == 500


async def test_openai_escapes_the_call_id_and_it_is_decoded_once(node):
    node.calls.add("rtc_u0_ä %2F")
    async with node.openai() as client:
        await client.realtime.calls.hangup("rtc_u0_ä %2F")
    assert node.calls.calls["rtc_u0_ä %2F"].asked == [("hangup",)]


# What is on the wire.


@pytest.mark.parametrize("verb", VERBS)
async def test_success_is_empty_and_has_no_content_type(node, verb):
    node.calls.add("rtc_u0_1")
    async with node.raw() as http:
        response = await http.post(path("rtc_u0_1", verb), json=BODIES[verb])
    assert response.status_code == 200
    assert response.content == b""
    assert response.headers["content-length"] == "0"
    assert "content-type" not in response.headers


@pytest.mark.parametrize(
    ("method", "url", "key", "status"),
    [
        ("POST", "/v1/realtime/calls/rtc_1/hangup", "sk-a", 200),
        ("POST", "/v1/realtime/calls/rtc_2/hangup", "sk-a", 404),
        ("POST", "/v1/realtime/calls/rtc_1/hangup", None, 401),
        ("POST", "/v1/realtime/calls/rtc_1/dance", "sk-a", 405),
        ("DELETE", "/v1/realtime/calls/rtc_1/hangup", "sk-a", 405),
        ("GET", "/v1/nothing", "sk-a", 404),
        ("GET", "/", None, 404),
        ("POST", "/v1/realtime/calls/", "sk-a", 405),
        ("POST", "/v1/realtime/calls", "sk-a", 501),
        ("POST", "/v1/realtime/client_secrets", "sk-a", 404),
        ("GET", "/v1/realtime?call_id=rtc_1", "sk-a", 426),
        ("GET", "/healthz", None, 200),
    ],
)
async def test_every_response_names_its_request_time_and_version(node, method, url, key, status):
    node.calls.add("rtc_1")
    async with node.raw(key) as http:
        response = await http.request(method, url)
    assert response.status_code == status
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["openai-version"] == "2020-10-01"
    assert int(response.headers["openai-processing-ms"]) >= 0
    if status != 200:
        assert response.headers["content-type"] == "application/json"
        assert response.headers["x-should-retry"] == "false"
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


async def test_a_method_not_allowed_names_the_one_that_is(node):
    async with node.raw() as http:
        response = await http.get("/v1/realtime/calls/rtc_1/hangup")
        assert response.status_code == 404  # a GET asks for the call named "rtc_1/hangup"
        response = await http.put("/v1/realtime/calls/rtc_1/hangup")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("verb", VERBS)
async def test_an_unknown_call_is_404_with_the_hosted_words(node, verb):
    async with node.raw() as http:
        response = await http.post(path("rtc_none", verb), json=BODIES[verb])
    assert (response.status_code, response.json()) == (404, NOT_FOUND)


@pytest.mark.parametrize("verb", VERBS)
async def test_another_projects_call_is_the_same_404(node, verb):
    call = node.calls.add("rtc_u0_1", "proj_a")
    async with node.raw("sk-b") as http:
        response = await http.post(path("rtc_u0_1", verb), json=BODIES[verb])
    assert (response.status_code, response.json()) == (404, NOT_FOUND)
    assert call.asked == []


@pytest.mark.parametrize("call_id", ["a%2Fb", "..%2F..%2Fetc", "%00", "x" * 4000, "%25%32%46"])
async def test_an_odd_call_id_is_a_404(node, call_id):
    async with node.raw() as http:
        response = await http.post(path(call_id, "hangup"))
    assert (response.status_code, response.json()) == (404, NOT_FOUND)


# Who asks.


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer sk-a"},
        {"authorization": "bearer  sk-a2"},
        {"api-key": "sk-a"},
        {"api-key": "sk-a", "authorization": "Bearer an-entra-token"},
        {"authorization": "Bearer sk-a", "openai-project": "proj_a", "openai-organization": "org"},
    ],
)
async def test_keys_that_open(node, headers):
    node.calls.add("rtc_u0_1")
    async with node.raw(None) as http:
        assert (await http.post(path("rtc_u0_1", "hangup"), headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "invalid_api_key"),
        ({"authorization": "Bearer"}, "invalid_api_key"),
        ({"authorization": "Basic c2stYTo="}, "invalid_api_key"),
        ({"authorization": "Bearer sk-wrong"}, "invalid_api_key"),
        ({"api-key": "sk-wrong"}, "invalid_api_key"),
        ({"authorization": b"Bearer \xe4\xff"}, "invalid_api_key"),
        ({"authorization": "Bearer sk-a", "openai-project": "proj_b"}, "mismatched_project"),
    ],
)
async def test_keys_that_do_not(node, headers, code):
    call = node.calls.add("rtc_u0_1")
    async with node.raw(None) as http:
        response = await http.post(path("rtc_u0_1", "hangup"), headers=headers)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == code
    assert "sk-wrong" not in response.text
    assert call.asked == []


async def test_a_client_secret_is_told_what_it_is(node):
    async with node.raw("ek_123") as http:
        response = await http.post(path("rtc_u0_1", "hangup"))
    assert response.status_code == 401
    assert "client secret" in response.json()["error"]["message"]


# Bodies.


@pytest.mark.parametrize("verb", ["accept", "reject", "refer"])
@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b'{"a":1,}', b"[" * 5000, b"not json"])
async def test_what_is_not_json_is_a_400(node, verb, body):
    call = node.calls.add("rtc_u0_1")
    async with node.raw() as http:
        response = await http.post(path("rtc_u0_1", verb), content=body)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert "JSON" in response.json()["error"]["message"]
    assert call.asked == []


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "nonsense"]
)
async def test_the_content_type_does_not_matter(node, content_type):
    call = node.calls.add("rtc_u0_1")
    headers = {"content-type": content_type} if content_type else {}
    async with node.raw() as http:
        response = await http.post(
            path("rtc_u0_1", "refer"), content=b'{"target_uri":"tel:+1"}', headers=headers
        )
    assert response.status_code == 200
    assert call.asked == [("refer", "tel:+1")]


async def test_a_body_over_a_mebibyte_is_413_in_json(node):
    call = node.calls.add("rtc_u0_1")
    body = json.dumps({"type": "realtime", "instructions": "x" * 2_000_000})
    async with node.raw() as http:
        response = await http.post(path("rtc_u0_1", "accept"), content=body)
        assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")
        assert (await http.post(path("rtc_u0_1", "hangup"))).status_code == 200
    assert call.asked == [("hangup",)]


async def test_a_huge_name_is_not_repeated_in_full(node):
    node.calls.add("rtc_u0_1")
    async with node.raw() as http:
        for verb in ("reject", "refer"):
            response = await http.post(path("rtc_u0_1", verb), content=b'{"' + b"x" * 500_000 + b'": 1}')
            assert (response.status_code, response.json()["error"]["code"]) == (400, "unknown_parameter")
            assert len(response.content) < 1000


async def test_a_body_of_just_under_a_mebibyte_is_taken(node):
    call = node.calls.add("rtc_u0_1")
    async with node.raw() as http:
        response = await http.post(path("rtc_u0_1", "accept"), json={"instructions": "x" * 1_000_000})
    assert response.status_code == 200
    assert len(call.asked) == 1


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/json"}])
async def test_reject_and_hangup_need_no_body(node, headers):
    call = node.calls.add("rtc_u0_1")
    async with node.raw() as http:
        for verb in ("reject", "hangup"):
            assert (await http.post(path("rtc_u0_1", verb), headers=headers)).status_code == 200
    assert call.asked == [("reject", 603), ("hangup",)]


async def test_accept_without_a_body_is_judged_as_an_empty_object(node):
    call = node.calls.add("rtc_u0_1")
    async with node.raw() as http:
        await http.post(path("rtc_u0_1", "accept"))
    assert call.asked == [("accept", {})]


@pytest.mark.parametrize(
    ("verb", "body", "code", "param"),
    [
        ("reject", {"status": 486}, "unknown_parameter", "status"),
        ("reject", {"status_code": "486"}, "invalid_type", "status_code"),
        ("reject", {"status_code": True}, "invalid_type", "status_code"),
        ("reject", {"status_code": 486.5}, "invalid_type", "status_code"),
        ("reject", {"status_code": 200}, "invalid_value", "status_code"),
        ("reject", {"status_code": 299}, "invalid_value", "status_code"),
        ("reject", {"status_code": 700}, "invalid_value", "status_code"),
        ("reject", [486], "invalid_type", None),
        ("refer", {}, "missing_required_parameter", "target_uri"),
        ("refer", {"target_uri": None}, "invalid_type", "target_uri"),
        ("refer", {"target_uri": 15551234567}, "invalid_type", "target_uri"),
        ("refer", {"target_uri": "tel:+" + "1" * 100_000}, "invalid_value", "target_uri"),
        ("refer", {"target_uri": "tel:+1", "headers": {}}, "unknown_parameter", "headers"),
        ("refer", "tel:+1", "invalid_type", None),
    ],
)
async def test_a_wrong_body_is_a_400_that_names_the_place(node, verb, body, code, param):
    call = node.calls.add("rtc_u0_1")
    async with node.raw() as http:
        response = await http.post(path("rtc_u0_1", verb), json=body)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, code, param)
    assert call.asked == []


@pytest.mark.parametrize("status", [300, 699])
async def test_the_ends_of_the_range_of_reject(node, status):
    call = node.calls.add("rtc_u0_1")
    async with node.raw() as http:
        assert (await http.post(path("rtc_u0_1", "reject"), json={"status_code": status})).status_code == 200
    assert call.asked == [("reject", status)]


# The timeline, and views.


async def test_requests_and_their_results_are_on_the_calls_timeline(node, call_error):
    call = node.calls.add("rtc_u0_1")
    async with node.raw() as http:
        accepted = await http.post(path("rtc_u0_1", "accept"), json={"type": "realtime"})
        call.error = call_error(409, "already accepted", code="call_already_accepted")
        rejected = await http.post(path("rtc_u0_1", "reject"))
    first, second = call.timeline.entries()
    assert (first.kind, first.title) == ("rest", "POST accept: 200")
    assert first.details["request_id"] == accepted.headers["x-request-id"]
    assert first.details["duration_ms"] >= 0
    assert second.title == "POST reject: 409, already accepted"
    assert second.details["request_id"] == rejected.headers["x-request-id"]


async def test_a_call_and_its_timeline_can_be_seen(node):
    call = node.calls.add("rtc_u0_1")
    call.timeline.record("call", "INVITE")
    async with node.raw() as http:
        assert (await http.get("/v1/realtime/calls/rtc_u0_1")).json() == call.describe()
        shown = (await http.get("/v1/realtime/calls/rtc_u0_1/timeline")).json()
        assert (await http.get("/v1/realtime/calls/rtc_none")).json() == NOT_FOUND
        assert (await http.get("/v1/realtime/calls/rtc_none/timeline")).json() == NOT_FOUND
    assert [entry["title"] for entry in shown["data"]] == ["INVITE"]


async def test_calls_are_listed_newest_first_in_pages(node):
    for number in range(1, 6):
        node.calls.add(f"rtc_{number}")
    node.calls.add("rtc_b", "proj_b")
    async with node.raw() as http:
        first = (await http.get("/v1/realtime/calls", params={"limit": 2})).json()
        rest = (await http.get("/v1/realtime/calls", params={"after": first["last_id"]})).json()
    assert [call["id"] for call in first["data"]] == ["rtc_5", "rtc_4"]
    assert (first["object"], first["first_id"], first["last_id"], first["has_more"]) == (
        "list",
        "rtc_5",
        "rtc_4",
        True,
    )
    assert [call["id"] for call in rest["data"]] == ["rtc_3", "rtc_2", "rtc_1"]
    assert rest["has_more"] is False


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"state": "active"}, ["rtc_2"]),
        ({"sip_call_id": "sip-rtc_1"}, ["rtc_1"]),
        ({"number": "+15552"}, ["rtc_2"]),
        ({"created_after": 1000}, ["rtc_2"]),
        ({"created_before": 2000}, ["rtc_1"]),
        ({"state": "ended"}, []),
    ],
)
async def test_calls_are_found(node, query, found):
    node.calls.add("rtc_1", created_at=1000.0)
    node.calls.add("rtc_2", state="active", created_at=2000.0)
    async with node.raw() as http:
        listed = (await http.get("/v1/realtime/calls", params=query)).json()
    assert [call["id"] for call in listed["data"]] == found


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"limit": "many"}, {"after": "rtc_none"}, {"created_after": "x"}]
)
async def test_a_wrong_query_is_a_400_in_the_apis_shape(node, query):
    async with node.raw() as http:
        response = await http.get("/v1/realtime/calls", params=query)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "invalid_value", next(iter(query)))


@pytest.mark.parametrize(
    "route",
    [
        "/v1/realtime/client_secrets",
        "/v1/realtime/sessions",
        "/v1/realtime/transcription_sessions",
        "/v1/realtime/translations/client_secrets",
        "/v1/live/sessions",
        "/v1/live/sessions/live_1/accept",
        "/v1/webhook_endpoints",
        "/openai/v1/dashboard/webhook_endpoints",
    ],
)
async def test_what_is_not_served_is_a_404_in_json(node, route):
    async with node.raw() as http:
        response = await http.post(route, json={})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["type"]) == (
        404,
        "unknown_url",
        "invalid_request_error",
    )
    assert route in error["message"]


async def test_a_body_that_never_ends_is_408(node, monkeypatch):
    monkeypatch.setattr("offhook.server.body.READ_TIMEOUT", 0.1)
    call = node.calls.add("rtc_u0_1")

    async def dribble():
        yield b'{"type": '
        await asyncio.sleep(0.5)
        yield b'"realtime"}'

    async with node.raw() as http:
        response = await http.post(path("rtc_u0_1", "accept"), content=dribble())
    assert (response.status_code, response.headers["x-should-retry"]) == (408, "false")
    assert call.asked == []


async def test_webrtc_is_refused_in_words_and_once(node):
    async with node.raw() as http:
        response = await http.post(
            "/v1/realtime/calls", content=b"v=0", headers={"content-type": "application/sdp"}
        )
    assert (response.status_code, response.json()["error"]["code"]) == (501, "not_supported")
    assert response.headers["x-should-retry"] == "false"


# Health and description.


async def test_health_and_readiness(node):
    async with node.raw(None) as http:
        assert (await http.get("/healthz")).json() == {"status": "ok"}
        assert (await http.get("/readyz")).json() == {"status": "ready"}
        node.not_ready.append("the engine is not warm")
        response = await http.get("/readyz")
        assert (await http.get("/healthz")).status_code == 200
    assert response.status_code == 503
    assert response.json()["reasons"] == ["the engine is not warm"]


async def test_the_api_describes_itself_with_its_errors(node):
    async with node.raw(None) as http:
        schema = (await http.get("/openapi.json")).json()
    paths = schema["paths"]
    assert set(paths) == {
        *(f"/v1/realtime/calls/{{call_id}}/{verb}" for verb in (*VERBS, "dtmf")),
        "/v1/realtime",
        "/v1/realtime/calls",
        "/v1/realtime/calls/{call_id}",
        "/v1/realtime/calls/{call_id}/timeline",
        "/v1/realtime/calls/{call_id}/verdict",
        "/v1/realtime/calls/{call_id}/pcap",
        "/v1/realtime/calls/{call_id}/recording",
        "/v1/realtime/calls/{call_id}/recording.wav",
        "/v1/realtime/calls/{call_id}/refers",
        "/v1/realtime/calls/{call_id}/refers/{number}",
        "/v1/realtime/refused_sources",
        "/healthz",
        "/readyz",
    }
    refer = paths["/v1/realtime/calls/{call_id}/refer"]["post"]
    assert {"200", "400", "401", "404", "409", "413", "502", "504"} <= set(refer["responses"])
    assert "content" not in refer["responses"]["200"]
    assert refer["requestBody"]["content"]["application/json"]["schema"]["required"] == ["target_uri"]
    assert refer["security"] == [{"bearer": []}, {"api_key": []}]
    assert "422" not in {
        status for path in paths.values() for verb in path.values() for status in verb["responses"]
    }
    assert "ValidationError" not in json.dumps(schema)
    assert set(schema["components"]["securitySchemes"]) == {"bearer", "api_key", "admin"}


# Transfers.


async def test_a_refer_that_waits_past_its_answer_is_202_and_says_where_to_look(node):
    call = node.calls.add("rtc_u0_1", state="active")
    call.keeps_talking = True
    url = path("rtc_u0_1", "refer")
    async with node.raw() as http:
        response = await http.post(f"{url}?wait_for_playout=true", json=BODIES["refer"])
        at_once = await http.post(url, json=BODIES["refer"])
    assert (response.status_code, response.content) == (202, b"")
    assert response.headers["location"] == "/v1/realtime/calls/rtc_u0_1/refers/1"
    assert at_once.status_code == 200
    assert call.request_ids == [response.headers["x-request-id"], at_once.headers["x-request-id"]]
    assert [entry.details["status"] for entry in call.timeline.entries()] == [202, 200]


async def test_a_query_that_is_no_yes_or_no_is_a_400(node):
    call = node.calls.add("rtc_u0_1", state="active")
    async with node.raw() as http:
        response = await http.post(f"{path('rtc_u0_1', 'refer')}?wait_for_playout=soon", json=BODIES["refer"])
    assert (response.status_code, response.json()["error"]["param"]) == (400, "wait_for_playout")
    assert call.asked == []


async def test_transfers_are_listed_and_shown_to_their_own_project_alone(node):
    call = node.calls.add("rtc_u0_1", state="active")
    call.asked = [("refer", "tel:+1"), ("refer", "tel:+2")]
    base = "/v1/realtime/calls/rtc_u0_1/refers"
    async with node.raw() as http, node.raw("sk-b") as other:
        listed = (await http.get(base)).json()
        second = (await http.get(f"{base}/2")).json()
        missing = [await http.get(f"{base}/{number}") for number in (0, 3, 99999999999999999999)]
        wrong = await http.get(f"{base}/x")
        foreign = [await other.get(base), await other.get(f"{base}/1")]
    assert listed["object"] == "list"
    assert [one["target_uri"] for one in listed["data"]] == ["tel:+1", "tel:+2"]
    assert second["target_uri"] == "tel:+2"
    assert {(answer.status_code, answer.json()["error"]["code"]) for answer in missing} == {
        (404, "refer_not_found")
    }
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "number")
    assert {(answer.status_code, answer.json()["error"]["code"]) for answer in foreign} == {
        (404, "call_id_not_found")
    }


async def test_who_sent_a_caller_where_is_logged_without_the_key(node, caplog):
    call = node.calls.add("rtc_u0_1", state="active")
    caplog.set_level("INFO", "offhook.server")
    async with node.raw() as http:
        await http.post(path("rtc_u0_1", "refer"), json={"target_uri": "tel:+1\r\nX: y"})
        allowed = await http.post(path("rtc_u0_1", "refer"), json=BODIES["refer"])
    entries = [record for record in caplog.records if getattr(record, "event", "").startswith("audit.")]
    assert [(entry.event, entry.target_uri, entry.code) for entry in entries] == [
        ("audit.refer.denied", "tel:+1\r\nX: y", "invalid_value"),
        ("audit.refer", BODIES["refer"]["target_uri"], None),
    ]
    assert {entry.key_id for entry in entries} == {"key_" + sha256(b"sk-a").hexdigest()[:12]}
    assert entries[1].request_id == allowed.headers["x-request-id"]
    assert {entry.call_id for entry in entries} == {call.id}
    assert "sk-a" not in " ".join(str(vars(entry)) for entry in entries)
