"""
What becomes of a REFER: whatever a carrier does after it, the app is told the same by answer, event, webhook and view.

The carrier writes its messages by hand, over real sockets, to a running node. The rows are what carriers do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import openai
import pytest

from offhook.calls.ladder import Arrow, Note, from_timeline
from testbed import DeveloperApp, Node, Phone, PhoneCall, Sideband, Webhook
from testbed.invites import PLAIN, bend, write
from testbed.script import SCRIPT
from testbed.trunk import SipText, Trunk, TrunkCall, establish
from testbed.waiting import until

TARGET = "tel:+14155550123"
OTHER = "tel:+14155550999"
SILENCE_S = 1.0
"How long the node waits for news of a REFER that was taken."
TERMINATED = "terminated;reason=noresource"
ACTIVE = "active;expires=60"

GREETING = "Hello there, and a very good morning to you."
"Two and a half seconds: time enough to ask for a transfer, and to hang up, before it is over."
LIMITED_SEAT = 0
LIMITS = 'refer_targets = ["tel:+1415", "sip:*@example.com"]'


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node that does not wait a minute for news. Its first project has a list of targets."""
    with Node(
        tmp_path_factory.mktemp("refers"),
        script=SCRIPT | {"greeting": GREETING},
        seats=60,
        calls=f"refer_outcome_s = {SILENCE_S}",
        seat_lines={LIMITED_SEAT: LIMITS},
    ) as running:
        running.seats[LIMITED_SEAT].taken = True
        yield running


@dataclass
class Transferring:
    """One answered call, the app that asks for its transfer and the carrier that is asked."""

    node: Node
    app: DeveloperApp
    call: TrunkCall
    call_id: str
    acted_at: float = field(default=0.0)
    "When the carrier last sent something."

    @property
    def path(self) -> str:
        return f"/realtime/calls/{self.call_id}/refer"

    async def post(
        self, target: Any = TARGET, *, query: str = "", repeat: int | None = None
    ) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self.app.seat.api_key}"}
        if repeat is not None:
            headers["x-stainless-retry-count"] = str(repeat)
        async with httpx2.AsyncClient(timeout=15, headers=headers) as client:
            return await client.post(f"{self.node.base_url}{self.path}{query}", json={"target_uri": target})

    async def refer(self, after: float = 0.0) -> SipText:
        """Return the REFER that comes."""
        return await self.call.trunk.expect(
            "REFER ", where=lambda m: m.one("Call-ID") == self.call.call_id, after=after
        )

    def answer(self, refer: SipText, status: str, *lines: str) -> None:
        self.acted_at = time.monotonic()
        self.call.trunk.answer(refer, status, f"Contact: <{self.call.contact}>", *lines)

    async def notify(self, refer: SipText, sipfrag: str, state: str, *, event: str = "refer") -> None:
        """Send a NOTIFY and see it answered 200."""
        self.acted_at = time.monotonic()
        body = f"SIP/2.0 {sipfrag}\r\n" if sipfrag else ""
        lines = [f"Event: {event}", f"Subscription-State: {state}", f"Contact: <{self.call.contact}>"]
        text = self.call.request("NOTIFY", *lines, body=body)
        self.call.trunk.send(text.replace("application/sdp", "message/sipfrag;version=2.0"))
        number = self.call.cseq
        answer = await self.call.trunk.expect(
            "SIP/2.0 ", where=lambda m: m.cseq == number and m.method == "NOTIFY"
        )
        assert answer.status == 200, answer.start

    async def act(self, refer: SipText, steps: tuple[tuple[str, ...], ...]) -> None:
        for step in steps:
            match step:
                case ("answer", status, *lines):
                    self.answer(refer, status, *lines)
                case ("notify", sipfrag, state):
                    await self.notify(refer, sipfrag, state)
                case ("notify by id", sipfrag, state):
                    await self.notify(refer, sipfrag, state, event=f"refer;id={refer.cseq}")
                case ("bye",):
                    self.acted_at = time.monotonic()
                    assert (await self.call.ask("BYE")).status == 200
                case _:
                    raise AssertionError(step)

    async def view(self, number: int = 1) -> dict[str, Any]:
        return await self.node.get(self.app.seat, f"/realtime/calls/{self.call_id}/refers/{number}")

    async def webhooks(self, event_type: str, count: int = 1) -> list[Webhook]:
        """Return those that came of a type, once there are so many; webhooks come in any order."""
        async with asyncio.timeout(15):
            while len(came := [hook for hook in self.app.webhooks if hook.type == event_type]) < count:
                await asyncio.sleep(0.02)
        return came

    async def settled(self, number: int = 1) -> dict[str, Any]:
        """Return the resource once it has its verdict."""
        async with asyncio.timeout(15):
            while (shown := await self.view(number))["status"] in ("pending", "accepted", "progress"):
                await asyncio.sleep(0.02)
        return shown


@pytest.fixture
async def transferring(patient: Node) -> AsyncIterator[Transferring]:
    async with DeveloperApp(patient) as app, Trunk(patient.sip["udp"], "udp") as trunk:
        call, call_id = await establish(trunk, app, write(PLAIN, trunk, app.seat.project))
        yield Transferring(patient, app, call, call_id)


@dataclass(frozen=True)
class Row:
    """What a carrier does with a REFER, and what the app is told: by HTTP, then step by step."""

    does: tuple[tuple[str, ...], ...]
    http: tuple[int, str | None]
    told: tuple[tuple[str, int | None], ...]
    transferred: bool = False


TAKEN = (200, None)
ACCEPTED = ("answer", "202 Accepted")
ROWS = {
    "accepted, and the target answers": Row(
        (
            ACCEPTED,
            ("notify", "100 Trying", ACTIVE),
            ("notify", "180 Ringing", ACTIVE),
            ("notify", "200 OK", TERMINATED),
        ),
        TAKEN,
        (("accepted", 202), ("progress", 100), ("progress", 180), ("completed", 200)),
        transferred=True,
    ),
    "accepted with 200": Row(
        (("answer", "200 OK"), ("notify", "200 OK", TERMINATED)),
        TAKEN,
        (("accepted", 200), ("completed", 200)),
        transferred=True,
    ),
    "2xx while the subscription stays active": Row(
        (ACCEPTED, ("notify", "200 OK", ACTIVE)),
        TAKEN,
        (("accepted", 202), ("completed", 200)),
        transferred=True,
    ),
    "events with an id": Row(
        (ACCEPTED, ("notify by id", "100 Trying", ACTIVE), ("notify by id", "200 OK", TERMINATED)),
        TAKEN,
        (("accepted", 202), ("progress", 100), ("completed", 200)),
        transferred=True,
    ),
    "NOTIFY before the 202": Row(
        (("notify", "100 Trying", "pending"), ACCEPTED, ("notify", "200 OK", TERMINATED)),
        TAKEN,
        (("progress", 100), ("completed", 200)),
        transferred=True,
    ),
    "the last NOTIFY before the 202": Row(
        (("notify", "200 OK", TERMINATED), ACCEPTED),
        TAKEN,
        (("completed", 200),),
        transferred=True,
    ),
    "BYE without a NOTIFY": Row(
        (ACCEPTED, ("bye",)),
        TAKEN,
        (("accepted", 202), ("completed_unconfirmed", None)),
        transferred=True,
    ),
    "Refer-Sub: false": Row(
        (("answer", "202 Accepted", "Refer-Sub: false"),),
        TAKEN,
        (("completed_unconfirmed", 202),),
        transferred=True,
    ),
    "refused with 403": Row(
        (("answer", "403 Forbidden", "X-Twilio-Error: 32201 PSTN transfer is not enabled"),),
        (502, "refer_rejected"),
        (("failed", 403),),
    ),
    "redirected": Row((("answer", "302 Moved"),), (502, "refer_rejected"), (("failed", 302),)),
    "unavailable": Row((("answer", "503 Service Unavailable"),), (502, "refer_rejected"), (("failed", 503),)),
    "declined": Row((("answer", "603 Declined"),), (502, "refer_rejected"), (("failed", 603),)),
    "the target is busy": Row(
        (ACCEPTED, ("notify", "100 Trying", ACTIVE), ("notify", "486 Busy Here", TERMINATED)),
        TAKEN,
        (("accepted", 202), ("progress", 100), ("failed", 486)),
    ),
    "the target has moved": Row(
        (ACCEPTED, ("notify", "302 Moved", TERMINATED)), TAKEN, (("accepted", 202), ("failed", 302))
    ),
    "silence after the 202": Row((ACCEPTED,), TAKEN, (("accepted", 202), ("timeout", None))),
    "terminated without a body": Row(
        (ACCEPTED, ("notify", "", TERMINATED)), TAKEN, (("accepted", 202), ("unknown", None))
    ),
    "terminated while trying": Row(
        (ACCEPTED, ("notify", "100 Trying", "terminated;reason=timeout")),
        TAKEN,
        (("accepted", 202), ("unknown", 100)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
async def test_each_outcome_is_told_alike_everywhere(transferring: Transferring, row: Row) -> None:
    case = transferring
    async with Sideband(case.app.client, case.call_id, events="call") as sideband:
        await sideband.wait_for("session.created")
        asked = asyncio.create_task(case.post())
        refer = await case.refer()
        assert refer.one("Refer-To") == f"<{TARGET}>"
        await case.act(refer, row.does)

        response = await asked
        error = response.json()["error"] if response.content else {}
        assert (response.status_code, error.get("code")) == row.http
        shown = await case.settled()
        assert (shown["object"], shown["target_uri"]) == ("realtime.call.refer", TARGET)
        assert (shown["status"], shown["sip_status"]) == row.told[-1]
        assert shown["request_id"] == response.headers["x-request-id"]
        steps = [(step["status"], step["sip_status"]) for step in shown["updates"]]
        assert steps == [("pending", None), *row.told]
        times = [step["at"] for step in shown["updates"]]
        assert times == sorted(times)

        told = await case.webhooks("realtime.call.refer.updated", len(row.told))
        by_webhook = {(hook.event.data.status, hook.event.data.sip_status) for hook in told}
        assert by_webhook == set(row.told)
        if row.transferred:
            await _sees_the_end(case, *(step[0] for step in row.does))
            assert (await sideband.wait_closed())[0] == 1000
        by_event = [(e["status"], e["sip_status"]) for e in sideband.of_type("call.refer.updated")]
        assert by_event == list(row.told)

    rows = from_timeline({"data": await case.node.timeline(case.app.seat, case.call_id)})
    drawn = [one.label if isinstance(one, Arrow) else one.text for one in rows]
    assert f"REFER to {TARGET}" in drawn
    for status, sip_status in row.told:
        line = f"transfer 1 to {TARGET}: {status}" + (f", {sip_status}" if sip_status else "")
        assert any(note.text.startswith(line) for note in rows if isinstance(note, Note)), (line, drawn)
    if not row.transferred:
        await _goes_on(case)


async def _sees_the_end(case: Transferring, *does: str) -> None:
    """Our BYE comes after the carrier's last word, unless it hung up itself; the app is told why."""
    if "bye" not in does:
        bye = await case.call.trunk.expect("BYE ", where=lambda m: m.one("Call-ID") == case.call.call_id)
        assert 0 <= bye.at - case.acted_at < 5 or does[-1] == "answer"
        case.call.trunk.answer(bye, "200 OK")
    ended = (await case.webhooks("realtime.call.ended"))[-1]
    assert (ended.event.data.reason, ended.event.data.result) == ("transferred", "success")


async def _goes_on(case: Transferring) -> None:
    """The agent is still there: the next transfer works, and is the second one."""
    assert not [m for m in case.call.trunk.seen if m.start.startswith("BYE ")]
    before = time.monotonic()
    asked = asyncio.create_task(case.post(OTHER))
    refer = await case.refer(after=before)
    case.answer(refer, "202 Accepted")
    await case.notify(refer, "200 OK", TERMINATED, event=f"refer;id={refer.cseq}")
    assert (await asked).status_code == 200
    assert (await case.settled(2))["status"] == "completed"
    await _sees_the_end(case, "notify")
    listed = await case.node.get(case.app.seat, f"/realtime/calls/{case.call_id}/refers")
    assert [one["refer"] for one in listed["data"]] == [1, 2]


async def test_a_refusal_says_what_the_carrier_said(transferring: Transferring) -> None:
    case = transferring
    asked = asyncio.create_task(case.post())
    case.answer(await case.refer(), "403 Forbidden", "X-Twilio-Error: 32201 PSTN transfer is not enabled")
    response = await asked
    error = response.json()["error"]
    assert response.headers["x-should-retry"] == "false"
    assert "403 Forbidden" in error["message"]
    assert "32201 PSTN transfer is not enabled" in error["message"]
    assert error["details"]["sip_status"] == 403
    assert error["details"]["reason"] == "Forbidden"
    told = {"X-Twilio-Error": "32201 PSTN transfer is not enabled"}
    assert error["details"]["headers"] == told
    assert (await case.view())["headers"] == told


async def test_a_2xx_that_comes_after_our_504_still_counts(transferring: Transferring) -> None:
    case = transferring
    asked = asyncio.create_task(case.post())
    refer = await case.refer()
    response = await asked
    assert (response.status_code, response.json()["error"]["code"]) == (504, "refer_timeout")
    shown = await case.view()
    assert shown["status"] == "pending"
    assert "no answer to REFER within 8 s" in shown["reason"]
    other = await case.post(OTHER)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "refer_pending")
    assert other.headers["x-should-retry"] == "false"

    case.answer(refer, "202 Accepted")
    async with asyncio.timeout(15):
        while (await case.view())["status"] != "accepted":
            await asyncio.sleep(0.02)
    assert "after we had stopped waiting" in (await case.view())["reason"]
    assert (await case.post(OTHER)).status_code == 409
    await case.notify(refer, "200 OK", TERMINATED)
    assert (await case.settled())["status"] == "completed"
    await _sees_the_end(case, "notify")
    assert {m.cseq for m in case.call.trunk.seen if m.start.startswith("REFER ")} == {refer.cseq}


async def test_a_carrier_that_cannot_be_reached_is_named(patient: Node) -> None:
    async with DeveloperApp(patient) as app:
        async with Trunk(patient.sip["tcp"], "tcp") as trunk:
            host, port = trunk.local
            contact = f"<sip:caller@{host}:{port}"
            invite = bend(write(PLAIN, trunk, app.seat.project), (f"{contact}>", f"{contact};transport=tcp>"))
            call, call_id = await establish(trunk, app, invite)
        case = Transferring(patient, app, call, call_id)
        response = await case.post()
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (502, "refer_unreachable")
        assert response.headers["x-should-retry"] == "false"
        assert error["details"]["transport"] == "tcp"
        assert f"{host}:{port}" in error["details"]["hop"]
        assert error["details"]["attempts"]
        shown = await case.view()
        assert (shown["status"], shown["sip_status"]) == ("failed", None)
        assert f"{host}:{port}" in shown["reason"]
        told = await app.next("realtime.call.refer.updated")
        assert told.event.data.status == "failed"


async def test_a_carrier_that_does_not_take_refer_is_not_sent_one(patient: Node) -> None:
    async with DeveloperApp(patient) as app, Trunk(patient.sip["udp"], "udp") as trunk:
        invite = write(PLAIN, trunk, app.seat.project)
        invite = bend(invite, ("Max-Forwards", "Allow: INVITE, ACK, BYE, CANCEL\r\nMax-Forwards"))
        case = Transferring(patient, app, *await establish(trunk, app, invite))
        response = await case.post()
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (502, "refer_not_supported")
        assert "INVITE, ACK, BYE, CANCEL" in error["message"]
        assert not [m for m in trunk.seen if m.start.startswith("REFER ")]


# One wish, one REFER.


async def test_another_target_while_one_is_pending_is_a_conflict(transferring: Transferring) -> None:
    case = transferring
    asked = asyncio.create_task(case.post())
    refer = await case.refer()
    for _ in range(2):
        other = await case.post(OTHER)
        assert (other.status_code, other.json()["error"]["code"]) == (409, "refer_pending")
        assert other.headers["x-should-retry"] == "false"
        if not asked.done():
            case.answer(refer, "202 Accepted")
            await asked
    assert [one["refer"] for one in (await case.node.describe(case.app.seat, case.call_id))["refers"]] == [1]


@pytest.mark.parametrize(("status", "http"), [("202 Accepted", 200), ("403 Forbidden", 502)])
async def test_an_sdks_repeat_is_no_second_refer(transferring: Transferring, status: str, http: int) -> None:
    case = transferring
    asked = asyncio.create_task(case.post())
    refer = await case.refer()
    early = asyncio.create_task(case.post(repeat=1))
    await asyncio.sleep(0.1)
    case.answer(refer, status)
    late = await case.post(repeat=2)
    assert [response.status_code for response in (await asked, await early, late)] == [http] * 3
    assert {m.cseq for m in case.call.trunk.seen if m.start.startswith("REFER ")} == {refer.cseq}


# What the REFER says.


@pytest.mark.parametrize(
    "target",
    [
        "tel:+1-415-555-0123;phone-context=example.com",
        "sip:+14155550123@trunk.pstn.twilio.com",
        "sips:agent@example.com:5071;transport=tls",
        "sip:agent@192.0.2.7?Replaces=a1b2%40192.0.2.7%3Bto-tag%3D7a%3Bfrom-tag%3D9c&X-Reason=warm",
    ],
)
async def test_the_target_stands_between_brackets_as_it_was_given(
    transferring: Transferring, target: str
) -> None:
    case = transferring
    asked = asyncio.create_task(case.post(target))
    refer = await case.refer()
    case.answer(refer, "202 Accepted")
    assert (await asked).status_code == 200
    assert refer.one("Refer-To") == f"<{target}>"
    assert refer.one("Referred-By") == f"<sip:+14155550199@{case.call.trunk.remote[0]}>"
    assert refer.one("Contact")
    assert (await case.view())["target_uri"] == target


BAD_TARGETS: list[Any] = [
    "tel:+1\r\nX: y",
    "tel:+1\r\n",
    "\ntel:+1",
    "javascript:1",
    "tel:+" + "1" * 100_000,
    "sip:" + "a" * 500 + "@example.com",
    "sip:a@b>\r\n",
    "sip:a@b>;x=<sip:c@d",
    '"x" <sip:a@b>',
    "sip:a@b,sip:c@d",
    "sip:a@b\tc",
    "sip:a@b?Route=%3Csip:evil.example%3E",
    "sip:a@b?X-A=1%0d%0aRoute:x",
    "sip:a@b?X-A=1&From=sip:ceo@example.com",
    "sip:a@b?body=x",
    "sip:a@b;method=BYE",
    "sip:a@b%zz",
    "sip:@b",
    "sip:",
    "tel:;x=1",
    "tel:+1?Replaces=x",
    "",
    "   ",
    None,
    7,
    ["tel:+1"],
    {},
]


async def test_what_is_no_target_is_refused_and_nothing_is_sent(transferring: Transferring) -> None:
    case = transferring
    before = len(case.call.trunk.seen)
    for target in BAD_TARGETS:
        response = await case.post(target)
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (400, "target_uri"), target
        assert response.headers["x-should-retry"] == "false"
    assert case.call.trunk.seen[before:] == []
    listed = await case.node.get(case.app.seat, f"/realtime/calls/{case.call_id}/refers")
    assert listed["data"] == []


async def test_a_project_may_name_its_targets(patient: Node) -> None:
    seat = patient.seats[LIMITED_SEAT]
    async with DeveloperApp(patient, seat) as app, Trunk(patient.sip["udp"], "udp") as trunk:
        call, call_id = await establish(trunk, app, write(PLAIN, trunk, seat.project))
        case = Transferring(patient, app, call, call_id)
        with pytest.raises(openai.PermissionDeniedError) as raised:
            await app.client.realtime.calls.refer(call_id, target_uri="tel:+19005550100")
        assert (raised.value.code, raised.value.param) == ("target_not_allowed", "target_uri")
        assert not [m for m in trunk.seen if m.start.startswith("REFER ")]

        asked = asyncio.create_task(case.post("sip:desk@example.com"))
        case.answer(await case.refer(), "202 Accepted")
        assert (await asked).status_code == 200

    def told(event: str) -> list[dict[str, Any]]:
        return [entry for entry in patient.log(event) if entry["call_id"] == call_id]

    await until(lambda: told("audit.refer"))
    ours = told("audit.refer.denied") + told("audit.refer")
    assert [entry["target_uri"] for entry in ours] == ["tel:+19005550100", "sip:desk@example.com"]
    assert all(entry["key_id"].startswith("key_") and len(entry["key_id"]) == 16 for entry in ours)
    assert seat.api_key not in patient.log_path.read_text().replace("\\", "")


# Waiting for the agent's last word.


@dataclass
class Talking:
    """A call whose agent begins to talk when it is told to."""

    app: DeveloperApp
    call: PhoneCall
    call_id: str
    sideband: Sideband

    async def greet(self) -> None:
        await self.sideband.connection.response.create()
        await self.sideband.wait_for("output_audio_buffer.started")

    async def post(self, target: str = TARGET) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self.app.seat.api_key}"}
        path = f"/realtime/calls/{self.call_id}/refer?wait_for_playout=true"
        async with httpx2.AsyncClient(timeout=15, headers=headers) as client:
            return await client.post(self.app.node.base_url + path, json={"target_uri": target})

    async def waits(self) -> None:
        """Wait until the transfer has been asked for; its REFER is not sent yet."""
        async with asyncio.timeout(15):
            while not (await self.app.node.describe(self.app.seat, self.call_id))["refers"]:
                await asyncio.sleep(0.01)


@pytest.fixture
async def talking(patient: Node) -> AsyncIterator[Talking]:
    async with DeveloperApp(patient) as app, Phone(patient) as phone:
        call = await phone.dial(app.seat.project)
        call_id = (await app.incoming()).call_id
        await app.accept(call_id)
        await call.answered()
        async with Sideband(app.client, call_id, events="call") as sideband:
            await sideband.wait_for("session.created")
            yield Talking(app, call, call_id, sideband)


async def test_the_refer_goes_out_after_the_agents_last_word(talking: Talking) -> None:
    await talking.greet()
    response = await talking.post()
    assert (response.status_code, response.content) == (200, b"")
    stopped = await talking.sideband.wait_for("output_audio_buffer.stopped")
    refer = talking.call.received("REFER")[0]
    assert refer.at >= talking.sideband.when(stopped) - 0.05
    await talking.call.ended()
    assert talking.call.loud_ms() >= 600, "the greeting was cut"


async def test_a_silent_agent_is_not_waited_for(talking: Talking) -> None:
    asked_at = time.monotonic()
    assert (await talking.post()).status_code == 200
    assert time.monotonic() - asked_at < 5, "nothing is being said"
    await talking.call.ended()


async def test_a_caller_who_interrupts_keeps_the_agent(talking: Talking) -> None:
    talking.call.on_refer = (202, (200,))
    await talking.greet()
    asked = asyncio.create_task(talking.post())
    await talking.waits()
    talking.call.speak()
    response = await asked
    assert (response.status_code, response.json()["error"]["code"]) == (409, "refer_interrupted")
    assert response.headers["x-should-retry"] == "false"
    told = await talking.sideband.wait_for("call.refer.updated")
    assert told["status"] == "cancelled"
    assert talking.call.refers == []
    await talking.sideband.wait_for("response.done", lambda e: e["response"]["status"] == "completed")
    assert talking.call.alive


async def test_a_caller_who_hangs_up_meanwhile_is_gone(talking: Talking) -> None:
    await talking.greet()
    asked = asyncio.create_task(talking.post())
    await talking.waits()
    talking.call.hang_up()
    response = await asked
    assert (response.status_code, response.json()["error"]["code"]) == (404, "call_id_not_found")
    told = await talking.app.next("realtime.call.refer.updated")
    assert told.event.data.status == "cancelled"
    assert talking.call.refers == []
