"""Requests about calls that are not ours, by the openai package, against a hosted service of the tests' own."""

import asyncio
import contextlib
import json
import logging
import socket

import openai
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from offhook.calls.hosted import HostedCalls, HostedSideband
from offhook.clock import SystemClock
from offhook.realtime.engines.upstream.target import Upstream
from offhook.server import Destination, Passthrough
from offhook.server.sideband_limits import SidebandLimits
from offhook.tenants import Project
from testbed.hosted import HostedApi

KEY = "sk-upstream-5Qz81"
PROJECTS = [
    Project("proj_a", api_keys=("sk-a",)),
    Project("proj_b", api_keys=("sk-b",)),
    Project("proj_off", api_keys=("sk-off",), passthrough=""),
    Project("proj_listed", api_keys=("sk-listed",), refer_targets=("tel:+1",)),
    Project("proj_azure", api_keys=("sk-azure",), passthrough="azure"),
]
BODIES = {
    "accept": b'{ "type":"realtime",\n "model" : "gpt-realtime" }',
    "reject": b'{"status_code": 486}',
    "refer": b'{"target_uri":"tel:+15551234567"}',
    "hangup": b"",
}


@pytest_asyncio.fixture
async def hosted():
    async with HostedApi(key=KEY) as api:
        yield api


@pytest_asyncio.fixture
async def relaying(start_node, hosted):
    """Starts a node whose projects have the hosted service as their upstream."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(*, url="", key=KEY, timeout_s=5.0, limits=None, form="other", more=()):
            clock = SystemClock()
            upstream = Upstream("openai", url or hosted.url, key=key, kind=form)
            passthrough = Passthrough(
                destinations={one.name: Destination(one) for one in (upstream, *more)},
                default="openai",
                owns=lambda call_id: call_id in owned or call_id.startswith("rtc_ours_"),
                hosted=HostedCalls(clock),
                clock=clock,
                timeout_s=timeout_s,
            )
            stack.push_async_callback(passthrough.close)
            node = await stack.enter_async_context(
                start_node(PROJECTS, passthrough=passthrough, sideband=limits or SidebandLimits())
            )
            owned = node.calls.calls
            return node

        yield start


async def shown(node, call_id, key="sk-a"):
    async with node.raw(key) as http:
        return (await http.get(f"/v1/realtime/calls/{call_id}")).json()


async def timeline(node, call_id, *kinds):
    async with node.raw() as http:
        body = (await http.get(f"/v1/realtime/calls/{call_id}/timeline")).json()
    return [entry for entry in body["data"] if not kinds or entry["kind"] in kinds]


async def timeline_of(node, call_id, key, kind, **fields):
    async with node.raw(key) as http:
        body = (await http.get(f"/v1/realtime/calls/{call_id}/timeline")).json()
    shown = [entry for entry in body["data"] if entry["kind"] == kind]
    return [entry for entry in shown if all(entry.get(name) == value for name, value in fields.items())]


# REST.


async def test_a_transfer_of_a_hosted_call_is_audited_and_bounded_as_an_own_one(relaying, hosted, caplog):
    caplog.set_level("INFO", "offhook.server")
    node, call = await relaying(), hosted.ring()
    twice = b'{"target_uri":"tel:+44900","target_uri":"tel:+15550100"}'
    allowed, denied = b'{"target_uri": "tel:+15550100"}', b'{"target_uri":"tel:+44900"}'
    answers = []
    for key, body in (
        ("sk-a", denied),
        ("sk-a", b"{"),
        ("sk-listed", denied),
        ("sk-listed", b"{"),
        ("sk-listed", allowed),
        ("sk-listed", twice),
    ):
        async with node.raw(key) as http:
            answers.append(await http.post(f"/v1/realtime/calls/{call.id}/refer", content=body))
    assert [answers[n].status_code for n in (2, 3)] == [403, 400]
    assert answers[2].json()["error"]["code"] == "target_not_allowed"
    sent = [request.body for request in hosted.requests]
    # Without a list a body is the upstream's affair; with one, what goes up can be read in one way only.
    assert sent == [denied, b"{", *[b'{"target_uri":"tel:+15550100"}'] * 2]
    audits = [record for record in caplog.records if getattr(record, "event", "").startswith("audit.")]
    assert [(one.event, one.project_id, one.target_uri) for one in audits] == [
        ("audit.refer", "proj_a", "tel:+44900"),
        ("audit.refer", "proj_a", None),
        ("audit.refer.denied", "proj_listed", "tel:+44900"),
        ("audit.refer.denied", "proj_listed", None),
        ("audit.refer", "proj_listed", "tel:+15550100"),
        ("audit.refer", "proj_listed", "tel:+15550100"),
    ]
    [*_, refusal] = await timeline_of(node, call.id, "sk-listed", "rest", status=403)
    assert refusal["verb"] == "refer"


@pytest.mark.parametrize("verb", BODIES)
async def test_a_verb_on_a_call_of_the_upstreams_is_its_affair(relaying, hosted, verb):
    node, call = await relaying(), hosted.ring()
    body = BODIES[verb]
    async with node.raw(
        OpenAI_Project="proj_a", OpenAI_Organization="org_ours", x_stainless_retry_count="1"
    ) as http:
        answer = await http.post(
            f"/v1/realtime/calls/{call.id}/{verb}",
            content=body,
            headers={"content-type": "application/json; x=1"},
        )
    assert (answer.status_code, answer.content) == (200, b"")
    assert "content-type" not in answer.headers
    assert answer.headers["content-length"] == "0"
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["x-offhook-upstream"] == "openai"
    assert "openai-organization" not in answer.headers
    (asked,) = hosted.requests
    assert (asked.method, asked.target, asked.body) == ("POST", f"/v1/realtime/calls/{call.id}/{verb}", body)
    assert asked.headers["content-type"] == "application/json; x=1"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.headers["x-stainless-retry-count"] == "1"
    assert not asked.headers.keys() & {"openai-project", "openai-organization", "api-key", "cookie"}
    assert not node.calls.calls


async def test_the_upstreams_request_id_is_passed_and_told_beside_ours(relaying, hosted):
    node, call = await relaying(), hosted.ring()
    async with node.raw() as http:
        accept = await http.post(f"/v1/realtime/calls/{call.id}/accept", content=BODIES["accept"])
        refer = await http.post(f"/v1/realtime/calls/{call.id}/refer", content=BODIES["refer"])
    assert accept.headers["x-upstream-request-id"].startswith("req_hosted")
    assert "x-upstream-request-id" not in refer.headers
    first, second = await timeline(node, call.id, "rest")
    assert first["request_id"] == accept.headers["x-request-id"]
    assert first["upstream_request_id"] == accept.headers["x-upstream-request-id"]
    assert (first["verb"], first["status"], first["title"]) == ("accept", 200, "POST accept: 200")
    assert second["upstream_request_id"] is None
    assert [entry["upstream_status"] for entry in await timeline(node, call.id, "relay")] == [200, 200]
    assert (await shown(node, call.id))["state"] == "referred"


async def test_the_upstreams_404_is_what_the_sdk_raises(relaying, hosted):
    node = await relaying()
    async with node.openai() as client:
        with pytest.raises(openai.NotFoundError) as raised:
            await client.realtime.calls.accept("rtc_u7_nobody", type="realtime")
    assert raised.value.code == "call_id_not_found"
    assert raised.value.body["param"] == ""
    assert raised.value.response.content == json.dumps(raised.value.response.json(), indent=2).encode()
    assert len(hosted.requests) == 1
    assert (await shown(node, "rtc_u7_nobody"))["state"] == "unknown"


@pytest.mark.parametrize(
    ("step", "status", "headers"),
    [
        ((429, b'{"error":{}}', {"retry-after": "7", "x-should-retry": "true"}), 429, ("7", "true")),
        ((500, b"Internal Server Error", {"content-type": "text/plain"}), 500, (None, "false")),
    ],
)
async def test_what_an_answer_says_of_a_repeat_is_passed_and_a_refer_is_not_repeated_by_itself(
    relaying, hosted, step, status, headers
):
    node, call = await relaying(), hosted.ring()
    hosted.plan.append(step)
    async with node.raw() as http:
        answer = await http.post(f"/v1/realtime/calls/{call.id}/refer", content=BODIES["refer"])
    assert (answer.status_code, answer.content) == (status, step[1])
    assert answer.headers.get("content-type") == step[2].get("content-type")
    assert (answer.headers.get("retry-after"), answer.headers.get("x-should-retry")) == headers


@pytest.mark.parametrize(("verb", "requests"), [("accept", 2), ("refer", 1)])
async def test_an_upstream_that_is_down_is_502_and_named(relaying, verb, requests):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        node = await relaying(url=f"http://127.0.0.1:{closed.getsockname()[1]}/v1")
        async with node.openai(max_retries=1) as client:
            with pytest.raises(openai.InternalServerError) as raised:
                await client.post(f"/realtime/calls/rtc_u7_x/{verb}", cast_to=dict)
    assert raised.value.status_code == 502
    assert raised.value.code == "upstream_unavailable"
    assert "'openai'" in raised.value.message
    assert "it cannot be connected to" in raised.value.message
    assert raised.value.body["details"] == {"upstream": "openai"}
    assert raised.value.response.headers["x-should-retry"] == ("true" if requests == 2 else "false")
    rest = await timeline(node, "rtc_u7_x", "rest")
    assert [entry["status"] for entry in rest] == [502] * requests
    assert "cannot be connected" in rest[0]["error"]


@pytest.mark.parametrize(("verb", "requests"), [("hangup", 2), ("refer", 1)])
async def test_an_upstream_that_is_slow_is_504_and_a_refer_is_sent_once(relaying, hosted, verb, requests):
    node = await relaying(timeout_s=0.5)
    hosted.plan += ["hang"] * 3
    async with node.openai(max_retries=1) as client:
        with pytest.raises(openai.InternalServerError) as raised:
            await client.post(f"/realtime/calls/rtc_u7_x/{verb}", cast_to=dict)
    assert (raised.value.status_code, raised.value.code) == (504, "upstream_timeout")
    assert "no answer within 0.5 s" in raised.value.message
    assert len(hosted.asked(verb)) == requests


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        ((302, b"", {"location": "http://127.0.0.1:1/"}), "redirect"),
        ((200, b"x" * (1024 * 1024 + 1), {}), "longer than"),
    ],
)
async def test_a_redirect_is_not_followed_and_an_answer_is_bounded(relaying, hosted, step, fault):
    node = await relaying()
    hosted.plan.append(step)
    async with node.raw() as http:
        answer = await http.post("/v1/realtime/calls/rtc_u7_x/hangup")
    assert answer.status_code == 502
    assert fault in answer.json()["error"]["message"]
    assert len(hosted.requests) == 1


async def test_a_body_over_the_limit_does_not_go_up(relaying, hosted):
    node = await relaying()
    async with node.raw() as http:
        answer = await http.post("/v1/realtime/calls/rtc_u7_x/accept", content=b"x" * (1024 * 1024 + 1))
    assert answer.status_code == 413
    assert not hosted.requests


# Whose call it is.


async def test_nothing_is_relayed_without_a_key_of_ours(relaying, hosted):
    node, call = await relaying(), hosted.ring()
    for key in (None, "sk-wrong", KEY):
        async with node.raw(key) as http:
            assert (await http.post(f"/v1/realtime/calls/{call.id}/hangup")).status_code == 401
    async with node.raw(OpenAI_Project="proj_b") as http:
        assert (await http.post(f"/v1/realtime/calls/{call.id}/hangup")).status_code == 401
    with pytest.raises(InvalidStatus) as raised:
        await connect(f"{node.ws_url}/v1/realtime?call_id={call.id}", additional_headers={"api-key": KEY})
    assert raised.value.response.status_code == 401
    assert not hosted.requests


async def test_a_call_of_this_node_is_never_relayed_whoever_asks(relaying, hosted):
    node = await relaying()
    node.calls.add("rtc_live", "proj_a")
    for call_id in ("rtc_live", "rtc_ours_forgotten"):
        for verb, body in BODIES.items():
            async with node.raw("sk-b") as http:
                answer = await http.post(f"/v1/realtime/calls/{call_id}/{verb}", content=body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "call_id_not_found")
        with pytest.raises(InvalidStatus) as raised:
            await connect(
                f"{node.ws_url}/v1/realtime?call_id={call_id}",
                additional_headers={"Authorization": "Bearer sk-b"},
            )
        assert raised.value.response.status_code == 404
    async with node.openai() as client:
        await client.realtime.calls.accept("rtc_live", type="realtime")
    assert node.calls.calls["rtc_live"].asked == [("accept", {"type": "realtime"})]
    assert not hosted.requests


async def test_a_project_that_is_off_has_no_upstream(relaying, hosted):
    node, call = await relaying(), hosted.ring()
    async with node.raw("sk-off") as http:
        answer = await http.post(f"/v1/realtime/calls/{call.id}/hangup")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "call_id_not_found")
    assert not hosted.requests


@pytest.mark.parametrize("form", ["azure", "azure-legacy"])
async def test_a_project_of_its_own_has_the_upstream_that_it_names(relaying, form):
    async with HostedApi(key="azurekey-77", form=form) as azure:
        more = {"api_version": "2025-04-01-preview", "deployment": "d"} if form == "azure-legacy" else {}
        upstream = Upstream(
            "azure", f"http://127.0.0.1:{azure.port}", key="azurekey-77", kind="azure", **more
        )
        node, call = await relaying(more=[upstream]), azure.ring()
        async with node.openai("sk-azure") as client:
            await client.realtime.calls.accept(call.id, type="realtime")
            async with client.realtime.connect(call_id=call.id) as connection:
                assert (await connection.recv()).type == "session.created"
            await client.realtime.calls.hangup(call.id)
        assert call.over
        assert all(one.headers["api-key"] == "azurekey-77" for one in azure.requests)
        assert not any("authorization" in one.headers for one in azure.requests)


@pytest.mark.parametrize("call_id", ["%2E%2E", "x" * 300])
async def test_an_id_that_is_no_part_of_a_path_does_not_go_up(relaying, hosted, call_id):
    node = await relaying()
    async with node.raw() as http:
        assert (await http.post(f"/v1/realtime/calls/{call_id}/hangup")).status_code == 404
    assert not hosted.requests


async def test_two_nodes_that_name_each_other_make_no_circle(relaying):
    first = await relaying()
    second = await relaying(url=f"{first.url}/v1", key="sk-a")
    async with second.raw() as http:
        assert (await http.post("/v1/realtime/calls/rtc_u7_x/hangup")).status_code == 404
    with pytest.raises(InvalidStatus) as raised:
        await connect(
            f"{second.ws_url}/v1/realtime?call_id=rtc_u7_x",
            additional_headers={"Authorization": "Bearer sk-a"},
        )
    assert raised.value.response.status_code == 404


async def test_records_are_a_projects_own_and_stand_among_its_calls(relaying, hosted):
    node, call = await relaying(), hosted.ring()
    node.calls.add("rtc_own", created_at=1.0)
    async with node.openai() as client:
        await client.realtime.calls.accept(call.id, type="realtime")
    async with node.raw() as http:
        listed = (await http.get("/v1/realtime/calls")).json()
        assert [(one["id"], one.get("hosted")) for one in listed["data"]] == [
            (call.id, True),
            ("rtc_own", None),
        ]
        assert (await http.get("/v1/realtime/calls?state=accepted")).json()["first_id"] == call.id
        assert (await http.get("/v1/realtime/calls?sip_call_id=sip-rtc_own")).json()["first_id"] == "rtc_own"
    async with node.raw("sk-b") as http:
        assert (await http.get("/v1/realtime/calls")).json()["data"] == []
        for view in ("", "/timeline"):
            assert (await http.get(f"/v1/realtime/calls/{call.id}{view}")).status_code == 404
    assert len(hosted.requests) == 1


# The sideband.


@contextlib.asynccontextmanager
async def attached(node, hosted, call, query="", **options):
    """A sideband of the app's and the same one at the hosted service, past `session.created`."""
    call.accepted = {"model": "gpt-realtime"}
    options.setdefault("additional_headers", {"Authorization": "Bearer sk-a"})
    url = f"{node.ws_url}/v1/realtime?call_id={call.id}{query}"
    async with connect(url, compression=None, **options) as app:
        assert json.loads(await app.recv())["type"] == "session.created"
        yield app, await hosted.opened()


async def test_frames_pass_both_ways_as_they_are_and_in_order(relaying, hosted):
    node, call = await relaying(), hosted.ring()
    frames = [
        '{"type" : "x",  "é":1}',
        "not JSON",
        b"\x00\xff",
        "",
        '{"type":"response.done"}',
        "é" * 100_000,
    ]
    async with attached(node, hosted, call) as (app, upstream):
        for frame in frames * 20:
            await app.send(frame)
        await upstream.until(lambda: len(upstream.received) == len(frames) * 20, "frames")
        assert upstream.received == frames * 20
        for frame in frames * 20:
            await upstream.send(frame)
        assert [await app.recv() for _ in frames * 20] == frames * 20


async def test_the_handshake_has_the_upstreams_key_and_the_apps_query(relaying, hosted):
    node, call = await relaying(), hosted.ring()
    offered = [
        "realtime",
        "openai-insecure-api-key.sk-a",
        "openai-project.proj_a",
        "openai-organization.o",
        "x.1",
    ]
    async with attached(
        node,
        hosted,
        call,
        "&model=m&events=call,audio&api-key=sk-a&intent=",
        subprotocols=offered,
        additional_headers={"OpenAI-Project": "proj_a", "OpenAI-Safety-Identifier": "s"},
        user_agent_header="SDK/1",
    ) as (app, upstream):
        assert app.subprotocol == "realtime"
        assert app.response.headers["x-upstream-request-id"] == "req_hosted_ws"
        request = upstream.request
    assert request.query == [("call_id", call.id), ("model", "m"), ("intent", "")]
    assert request.subprotocols == ("realtime", "x.1")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["openai-safety-identifier"] == "s"
    assert request.headers["user-agent"] == "SDK/1"
    assert "sk-a" not in json.dumps(request.headers)
    assert "openai-project" not in request.headers


async def test_the_call_that_was_judged_is_the_only_one_that_is_named_upstream(relaying, hosted):
    node, call = await relaying(), hosted.ring()
    call.accepted = {}
    url = f"{node.ws_url}/v1/realtime?call_id=rtc_ours_1&call_id={call.id}&Call_ID=x"
    async with connect(url, additional_headers={"Authorization": "Bearer sk-a"}) as app:
        await app.recv()
        assert (await hosted.opened()).request.query == [("call_id", call.id)]


@pytest.mark.parametrize(
    ("step", "status"),
    [(None, 404), ((429, b'{"error":{"code":"rate_limit_exceeded"}}', {"retry-after": "3"}), 429)],
)
async def test_what_is_answered_instead_of_an_upgrade_is_the_apps_answer(relaying, hosted, step, status):
    node, call = await relaying(), hosted.ring()
    hosted.plan += [step] if step else []
    with pytest.raises(InvalidStatus) as raised:
        await connect(
            f"{node.ws_url}/v1/realtime?call_id={call.id}",
            additional_headers={"Authorization": "Bearer sk-a"},
        )
    response = raised.value.response
    assert response.status_code == status
    assert (b"call_id_not_found" if step is None else step[1]) in response.body
    assert response.headers.get("retry-after") == (None if step is None else "3")
    (entry,) = await timeline(node, call.id, "sideband")
    assert entry["title"] == f"refused: {status}"


@pytest.mark.parametrize(
    ("step", "status", "fault"),
    [("hang", 504, "no answer within"), ((302, b"", {"location": "ws://127.0.0.1:1/"}), 502, "redirect")],
)
async def test_an_upstream_that_opens_no_sideband_is_named(relaying, hosted, step, status, fault):
    node = await relaying(timeout_s=1)
    hosted.plan.append(step)
    async with node.openai() as client:
        with pytest.raises(InvalidStatus) as raised:
            async with client.realtime.connect(call_id="rtc_u7_x"):
                pass
    assert raised.value.response.status_code == status
    error = json.loads(raised.value.response.body)["error"]
    assert fault in error["message"]
    assert error["details"] == {"upstream": "openai"}
    assert len(hosted.requests) == 1


async def test_an_app_that_gives_up_while_the_upstream_hesitates_is_no_fault_of_ours(
    relaying, hosted, caplog
):
    node = await relaying()
    hosted.plan.append("hang")
    with pytest.raises(TimeoutError):
        await connect(
            f"{node.ws_url}/v1/realtime?call_id=rtc_u7_x",
            additional_headers={"Authorization": "Bearer sk-a"},
            open_timeout=1,
        )
    async with asyncio.timeout(15):
        while len(await timeline(node, "rtc_u7_x", "relay")) == 0:
            await asyncio.sleep(0.01)
    (entry,) = await timeline(node, "rtc_u7_x", "relay")
    assert entry["title"] == "sideband: no answer, the app did not wait for it"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize(
    ("code", "reason", "seen", "state"),
    [
        (1000, "call ended", (1000, "call ended"), "ended"),
        (1001, "", (1001, ""), "ended"),
        (1013, "later", (1013, "later"), "accepted"),
        (4000, "invalid_request_error.x", (4000, "invalid_request_error.x"), "accepted"),
    ],
)
async def test_the_upstreams_close_is_the_apps_behind_its_last_event(
    relaying, hosted, code, reason, seen, state
):
    node, call = await relaying(), hosted.ring()
    async with attached(node, hosted, call) as (app, upstream):
        await upstream.say("response.done", response={"id": "r", "status": "completed"})
        await upstream.close(code, reason)
        assert json.loads(await app.recv())["type"] == "response.done"
        with pytest.raises(ConnectionClosed) as closed:
            await app.recv()
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == seen
    assert (await shown(node, call.id))["state"] == state
    titles = [entry["title"] for entry in await timeline(node, call.id, "sideband")]
    assert titles == ["attached", f"closed by upstream openai: {code} {reason}".rstrip()]


@pytest.mark.parametrize(("code", "reason"), [(1000, "done"), (1001, ""), (4321, "mine")])
async def test_the_apps_close_is_the_upstreams(relaying, hosted, code, reason):
    node, call = await relaying(), hosted.ring()
    async with attached(node, hosted, call) as (app, upstream):
        await app.close(code, reason)
        await upstream.until(lambda: upstream.closed, "close")
        assert upstream.closed == (code, reason)
    assert (await shown(node, call.id))["state"] == "accepted"


async def test_a_connection_that_breaks_at_the_upstream_is_said(relaying, hosted):
    node, call = await relaying(), hosted.ring()
    async with attached(node, hosted, call) as (app, _):
        # As a cut cable would be: uvicorn's side of every connection goes without a close frame.
        for protocol in list(hosted._server.server_state.connections):
            protocol.transport.abort()
        with pytest.raises(ConnectionClosed) as closed:
            await app.recv()
    assert closed.value.rcvd.code == 1011
    assert closed.value.rcvd.reason == "the connection to upstream openai broke"


async def test_a_fault_of_ours_ends_a_sideband_instead_of_leaving_it_deaf(relaying, hosted, monkeypatch):
    node, call = await relaying(), hosted.ring()

    def fail(self, frame):
        raise ZeroDivisionError

    async with attached(node, hosted, call) as (app, upstream):
        monkeypatch.setattr(HostedSideband, "received", fail)
        await upstream.say("response.created")
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(app.recv(), 15)
        assert closed.value.rcvd.code == 1011
        await upstream.until(lambda: upstream.closed, "close")
    assert (await shown(node, call.id))["sidebands"] == 0
    assert "a fault of this node" in (await timeline(node, call.id, "error"))[-1]["title"]


async def test_pings_are_answered_while_the_upstream_is_silent(relaying, hosted):
    node, call = await relaying(), hosted.ring()
    async with attached(node, hosted, call) as (app, _):
        await asyncio.wait_for(await app.ping(), 15)


async def test_an_app_that_does_not_read_is_dropped_and_that_is_said(relaying, hosted):
    node, call = await relaying(limits=SidebandLimits(queued_frames=50)), hosted.ring()
    async with attached(node, hosted, call, max_queue=1, close_timeout=0.1) as (_, upstream):
        with contextlib.suppress(Exception):
            for _ in range(2_000):
                await upstream.send("x" * 100_000)
        await upstream.until(lambda: upstream.closed, "close", 10)
    (entry,) = [one for one in await timeline(node, call.id, "sideband") if "dropped" in one["title"]]
    assert "events behind" in entry["title"]
    assert (await shown(node, call.id))["sidebands"] == 0


async def test_an_upstream_that_does_not_read_is_dropped_and_that_is_said(relaying, hosted):
    node, call = await relaying(limits=SidebandLimits(drain_s=0.3)), hosted.ring()
    async with attached(node, hosted, call) as (app, upstream):
        upstream.reading.clear()
        await app.send("x")  # the one that is being waited for already

        async def flood():
            while True:
                await app.send("x" * 1_000_000)

        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(flood(), 20)
        assert closed.value.rcvd.code == 1011
        assert "did not read for 0.3 s" in closed.value.rcvd.reason
        upstream.reading.set()
    assert [one["title"] for one in await timeline(node, call.id, "error")]


async def test_a_call_has_as_many_sidebands_as_an_own_one_may_have(relaying, hosted):
    node, call = await relaying(limits=SidebandLimits(per_call=1)), hosted.ring()
    async with attached(node, hosted, call):
        with pytest.raises(InvalidStatus) as raised:
            async with attached(node, hosted, call):
                pass
        assert raised.value.response.status_code == 429

    async def attach_again():
        while True:  # the client knows that it is closed before the node has left the place
            with contextlib.suppress(InvalidStatus):
                async with attached(node, hosted, call):
                    return

    await asyncio.wait_for(attach_again(), 15)


async def test_the_beta_is_refused_here_already(relaying, hosted):
    node, call = await relaying(), hosted.ring()
    headers = {"Authorization": "Bearer sk-a", "OpenAI-Beta": "realtime=v1"}
    async with connect(f"{node.ws_url}/v1/realtime?call_id={call.id}", additional_headers=headers) as app:
        assert json.loads(await app.recv())["error"]["code"] == "beta_api_shape_disabled"
        with pytest.raises(ConnectionClosed) as closed:
            await app.recv()
    assert closed.value.rcvd.code == 4000
    assert not hosted.requests


# Keys.


async def test_no_key_is_seen_anywhere(relaying, hosted, caplog):
    caplog.set_level(logging.DEBUG)
    node, call = await relaying(), hosted.ring()
    seen = []
    hosted.plan.append(
        (
            401,
            f"Incorrect API key: {KEY}".encode(),
            {"content-type": "text/plain", "x-request-id": f"req {KEY}"},
        )
    )
    async with node.raw() as http:
        answer = await http.post(f"/v1/realtime/calls/{call.id}/accept", content=BODIES["accept"])
        assert answer.text == "Incorrect API key: [key]"
        seen.append(str(answer.headers))
    async with attached(node, hosted, call) as (app, upstream):
        await upstream.say("error", error={"message": f"key {KEY}", "code": "invalid_api_key"})
        await upstream.send(f"\x00{KEY}".encode())
        seen += [await app.recv(), (await app.recv()).decode()]
        await upstream.close(4001, f"bad {KEY}")
        with pytest.raises(ConnectionClosed) as closed:
            await app.recv()
        seen.append(closed.value.rcvd.reason)
    hosted.plan.append((403, KEY.encode(), {"x-request-id": KEY}))
    with pytest.raises(InvalidStatus) as raised:
        await connect(
            f"{node.ws_url}/v1/realtime?call_id={call.id}",
            additional_headers={"Authorization": "Bearer sk-a"},
        )
    seen += [raised.value.response.body.decode(), str(raised.value.response.headers)]
    seen += [json.dumps(await timeline(node, call.id)), json.dumps(await shown(node, call.id))]
    assert "[key]" in seen[1]
    assert seen[3] == "bad [key]"
    ours = [
        record.getMessage() + str(vars(record))
        for record in caplog.records
        if record.name.startswith("offhook")
    ]
    assert ours
    assert not [text for text in (*seen, *ours) if KEY in text or "sk-a" in text]
