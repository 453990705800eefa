"""Webhooks over real loopback sockets: an endpoint that is fine, slow, broken, gone, or redirects."""

import asyncio
import base64
import contextlib
import json
from dataclasses import dataclass, field

import pytest
from openai import OpenAI

from offhook.calls.ports import WebhookEvent
from offhook.clock import SystemClock
from offhook.outbound import STRANGER, OutboundClient
from offhook.tenants import ConfiguredProjects, Endpoints, Project, WebhookEndpoint
from offhook.webhooks import DeliverySettings, WebhookAnnouncer
from offhook.webhooks.schedule import RetryPolicy

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
FAST = RetryPolicy(first=0.01, longest=0.02, give_up_after=60.0)
BRIEF = RetryPolicy(first=0.001, longest=0.001, give_up_after=0.02)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@dataclass
class Received:
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """An HTTP server that answers by a script: bytes, or a coroutine function that gives them; the last repeats."""

    script: list = field(default_factory=lambda: [OK])
    requests: list[Received] = field(default_factory=list)
    writers: list = field(default_factory=list)
    connections: int = 0
    port: int = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/hook?x=1"

    async def serve(self, reader, writer):
        self.connections += 1
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                lines = head.split("\r\n")[1:-2]
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
                body = await reader.readexactly(int(headers["content-length"]))
                self.requests.append(Received(headers, body))
                step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
                answer = await step(self.requests[-1]) if callable(step) else step
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def receiving(*script):
    receiver = Receiver(list(script) or [OK])
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for writer in receiver.writers:
            writer.transport.abort()
        await asyncio.sleep(0)


class Told:
    """What an announcement's listener hears."""

    def __init__(self):
        self.attempts = []
        self.exhausted = []
        self._news = asyncio.Event()

    def attempt(self, attempt):
        self.attempts.append(attempt)
        self._news.set()

    def gave_up(self, reason):
        self.exhausted.append(reason)
        self._news.set()

    async def until(self, condition):
        async with asyncio.timeout(20):
            while not condition():
                self._news.clear()
                await self._news.wait()


class Teller:
    def __init__(self, announcer, projects):
        self.announcer = announcer
        self.projects = projects

    def tell(
        self, *urls, told=None, event_id="evt_1", urgent=True, event_type="realtime.call.incoming", **endpoint
    ):
        endpoints = tuple(
            WebhookEndpoint(f"wh_{n}", url, endpoint.get("secrets", (SECRET,))) for n, url in enumerate(urls)
        )
        told = told or Told()
        project = Project("proj_1", webhooks=endpoints)
        self.projects.replace([project])
        event = WebhookEvent(event_id, event_type, 1_760_000_000, {"call_id": "rtc_u0_1", "sip_headers": []})
        announcement = self.announcer.announce(
            project,
            event,
            urgent=urgent,
            on_attempt=told.attempt,
            on_exhausted=told.gave_up,
        )
        return announcement, told


@contextlib.asynccontextmanager
async def telling(**settings):
    policy = settings.pop("policy", None)
    client = OutboundClient()
    projects = ConfiguredProjects([])
    announcer = WebhookAnnouncer(
        client,
        endpoints=Endpoints(projects),
        clock=SystemClock(),
        draw=lambda: 0.5,
        settings=DeliverySettings(**{"urgent": FAST, "ordinary": FAST, "breaker_failures": 100, **settings}),
        **({"policy": policy} if policy else {}),
    )
    try:
        yield Teller(announcer, projects)
    finally:
        await announcer.close()
        await client.close()


async def test_the_request_is_what_the_hosted_service_sends():
    async with receiving() as receiver, telling() as teller:
        _, told = teller.tell(receiver.url)
        await told.until(lambda: told.attempts)
    headers = receiver.requests[0].headers
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"] == "OpenAI/1.0 (+https://platform.openai.com/docs/webhooks)"
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert headers["webhook-id"] == "evt_1"
    with OpenAI(api_key="sk-test", webhook_secret=SECRET) as client:
        event = client.webhooks.unwrap(receiver.requests[0].body, headers)
    assert event.data.call_id == "rtc_u0_1"
    attempt = told.attempts[0]
    assert (attempt.number, attempt.status, attempt.error, attempt.will_retry) == (1, 200, None, False)
    assert attempt.endpoint == receiver.url


async def test_a_failed_attempt_is_retried_with_the_same_id_and_body_and_its_own_signature():
    async with (
        receiving(b"HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\nboom", OK) as receiver,
        telling(urgent=RetryPolicy(1.01, 2.0, 60.0)) as teller,
    ):  # past the next whole second
        _, told = teller.tell(receiver.url)
        await told.until(lambda: len(told.attempts) == 2)
    first, second = receiver.requests
    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)
    assert first.headers["webhook-timestamp"] != second.headers["webhook-timestamp"]
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]
    assert [(a.number, a.status, a.will_retry) for a in told.attempts] == [(1, 500, True), (2, 200, False)]
    assert "boom" in told.attempts[0].error


async def test_retries_go_on_until_the_call_is_decided():
    async with receiving(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n") as receiver, telling() as teller:
        announcement, told = teller.tell(receiver.url)
        await told.until(lambda: len(told.attempts) == 4)
        announcement.expire()
        count = len(told.attempts)
        await asyncio.sleep(0.1)
        assert len(told.attempts) == count
        assert told.exhausted == []


async def test_a_redirect_is_a_failure_and_is_not_followed():
    async with receiving() as elsewhere:
        moved = f"HTTP/1.1 302 Found\r\nlocation: {elsewhere.url}\r\ncontent-length: 0\r\n\r\n".encode()
        async with receiving(moved) as receiver, telling() as teller:
            announcement, told = teller.tell(receiver.url)
            await told.until(lambda: told.attempts)
            announcement.expire()
    assert elsewhere.requests == []
    assert told.attempts[0].status == 302
    assert "redirects are not followed" in told.attempts[0].error


async def test_any_2xx_is_success():
    async with receiving(b"HTTP/1.1 204 No Content\r\n\r\n") as receiver, telling() as teller:
        _, told = teller.tell(receiver.url)
        await told.until(lambda: told.attempts)
    assert (told.attempts[0].status, told.attempts[0].error) == (204, None)


async def test_a_slow_endpoint_is_given_up_after_the_timeout_and_tried_again():
    async def sleep(request):
        await asyncio.sleep(30)

    async with receiving(sleep, OK) as receiver, telling(timeout_s=0.2) as teller:
        _, told = teller.tell(receiver.url)
        # A busy machine may not answer another attempt in time either.
        await told.until(lambda: told.attempts and told.attempts[-1].status == 200)
    assert told.attempts[0].status is None
    assert told.attempts[0].error == "no answer within 0.2 s"


async def test_a_status_counts_even_if_the_body_never_ends():
    async def endless(request):
        return b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome"

    async with receiving(endless) as receiver, telling(timeout_s=1) as teller:
        _, told = teller.tell(receiver.url)
        await told.until(lambda: told.attempts)
    assert told.attempts[0].error is None


async def test_a_huge_answer_is_not_read_to_its_end():
    big = b"HTTP/1.1 200 OK\r\ncontent-length: 50000000\r\n\r\n" + b"x" * 5_000_000
    async with receiving(big) as receiver, telling() as teller:
        _, told = teller.tell(receiver.url)
        await told.until(lambda: told.attempts)
    assert told.attempts[0].error is None
    assert told.attempts[0].duration_ms < 5000


async def test_a_closed_port_is_said_and_the_server_is_found_when_it_comes_up():
    async with receiving() as receiver:
        url, port = receiver.url, receiver.port
    async with telling() as teller:
        _, told = teller.tell(url)
        await told.until(lambda: told.attempts)
        assert "127.0.0.1" in told.attempts[0].error
        assert "refused" in told.attempts[0].error.lower()
        server = await asyncio.start_server(receiver.serve, "127.0.0.1", port)
        await told.until(lambda: told.attempts[-1].status == 200)
        server.close()


async def test_a_connection_that_breaks_off_is_an_error():
    async def hang_up(request):
        return None

    async with receiving(hang_up, OK) as receiver, telling() as teller:
        _, told = teller.tell(receiver.url)
        await told.until(lambda: len(told.attempts) == 2)
    assert told.attempts[0].status is None
    assert told.attempts[1].status == 200


async def test_an_answer_that_is_not_http_is_an_error():
    async with receiving(b"SSH-2.0-nonsense\r\n\r\n") as receiver, telling(ordinary=BRIEF) as teller:
        _, told = teller.tell(receiver.url, urgent=False)
        await told.until(lambda: told.exhausted)
    assert told.attempts[0].error


async def test_connections_are_used_again():
    async with receiving() as receiver, telling() as teller:
        for number in range(5):
            _, told = teller.tell(receiver.url, event_id=f"evt_{number}")
            await told.until(lambda told=told: told.attempts)
    assert len(receiver.requests) == 5
    assert receiver.connections == 1


async def test_a_kept_connection_that_the_server_closed_costs_no_attempt():
    closing = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    async with receiving(closing) as receiver, telling() as teller:
        _, told = teller.tell(receiver.url)
        await told.until(lambda: told.attempts)

        async def hang_up(request):
            return None

        receiver.script = [hang_up, OK]
        _, told = teller.tell(receiver.url, event_id="evt_2")
        await told.until(lambda: told.attempts)
    assert [(a.number, a.status) for a in told.attempts] == [(1, 200)]


async def test_the_handler_may_act_on_the_call_before_it_answers():
    accepted = asyncio.Event()
    released = asyncio.Event()

    async def handler(request):
        assert json.loads(request.body)["data"]["call_id"] == "rtc_u0_1"
        accepted.set()
        await released.wait()
        return OK

    async with receiving(handler) as receiver, telling() as teller:
        announcement, told = teller.tell(receiver.url)
        await accepted.wait()
        assert told.attempts == []
        announcement.expire()  # what accepting the call does
        released.set()
        await told.until(lambda: told.attempts)
    assert told.attempts[0].status == 200


async def test_every_subscribed_endpoint_gets_it_and_one_failing_does_not_hold_the_other():
    async with (
        receiving(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n") as bad,
        receiving() as good,
        telling() as teller,
    ):
        _, told = teller.tell(bad.url, good.url)
        await told.until(lambda: good.requests and len(bad.requests) > 2)
    assert told.exhausted == []


async def test_nobody_subscribed_is_said_at_once():
    async with telling() as teller:
        announcement, _ = teller.tell("http://127.0.0.1:9/", event_type="realtime.call.ended")
    assert announcement is None


async def test_giving_up_is_said_once():
    async with (
        receiving(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n") as receiver,
        telling(ordinary=BRIEF) as teller,
    ):
        _, told = teller.tell(receiver.url, receiver.url, urgent=False)
        await told.until(lambda: told.exhausted)
        await asyncio.sleep(0.05)
    assert len(told.exhausted) == 1
    assert receiver.url in told.exhausted[0]
    assert told.attempts[-1].will_retry is False


async def test_a_private_address_of_an_endpoint_that_an_api_user_made_is_refused():
    async with receiving() as receiver, telling(policy=lambda endpoint: STRANGER) as teller:
        _, told = teller.tell(f"https://127.0.0.1:{receiver.port}/")
        await told.until(lambda: told.exhausted)
    assert receiver.connections == 0
    assert "only URLs from the configuration may point there" in told.exhausted[0]
    assert len(told.attempts) == 1


async def test_a_secret_that_cannot_sign_ends_the_delivery_with_the_reason():
    async with receiving() as receiver, telling() as teller:
        _, told = teller.tell(receiver.url, secrets=("whsec_not base64",))
        await told.until(lambda: told.exhausted)
    assert "padded standard base64" in told.exhausted[0]
    assert "not base64" not in told.exhausted[0]


async def test_a_listener_that_raises_harms_nothing(caplog):
    told = Told()
    told.attempt = lambda attempt: 1 / 0
    async with receiving() as receiver, telling() as teller:
        teller.tell(receiver.url, told=told)
        async with asyncio.timeout(15):
            while "ZeroDivisionError" not in caplog.text:
                await asyncio.sleep(0.01)
        _, other = teller.tell(receiver.url, event_id="evt_2")
        await other.until(lambda: other.attempts)


async def test_many_calls_at_once_are_all_told():
    async with receiving() as receiver, telling() as teller:
        told = Told()
        for number in range(300):
            teller.tell(receiver.url, told=told, event_id=f"evt_{number}")
        await told.until(lambda: sum(attempt.error is None for attempt in told.attempts) == 300)
    assert {request.headers["webhook-id"] for request in receiver.requests} == {
        f"evt_{number}" for number in range(300)
    }
    assert receiver.connections <= 256


async def test_closing_waits_for_what_is_due():
    async def slow(request):
        await asyncio.sleep(0.05)
        return OK

    async with receiving(slow) as receiver, telling() as teller:
        _, told = teller.tell(receiver.url, urgent=False)
        await teller.announcer.close(grace_s=5.0)
        assert [attempt.status for attempt in told.attempts] == [200]
        _, late = teller.tell(receiver.url, urgent=False)
        assert late.exhausted == [f"{receiver.url}: the node is stopping"]


@pytest.mark.parametrize("url", ["ftp://example.com/", "nonsense", "http://"])
async def test_a_url_that_is_none_ends_the_delivery(url):
    async with telling() as teller:
        _, told = teller.tell(url)
        await told.until(lambda: told.exhausted)
    assert told.attempts[0].will_retry is False
