"""Who gets in: addresses, passwords, or both; what all the others hear, and what the operator is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from offhook.cli.phone.phone import CallPlan
from offhook.cli.phone.phone import Phone as CliPhone
from offhook.sip.digest import authorization, find_challenge
from offhook.sip.uri import SipUri
from testbed import DeveloperApp, Node
from testbed.invites import PLAIN, write
from testbed.trunk import SipText, Trunk
from testbed.waiting import PATIENCE_S, until

STRANGER = "127.0.0.2"


class GuardedNode(Node):
    """
    Seat 0 is called from 127.0.0.1; seat 1 with a password from anywhere; seat 2 with both, from 127.0.0.3.

    Seat 3 lists 127.0.0.1 as well.
    """

    def _tables(self, *args: Any) -> Iterator[str]:
        lists = [
            'sources = ["127.0.0.1/32"]',
            'digest_user = "edge"\ndigest_password = "s3cret"',
            'sources = ["127.0.0.3/32"]\ndigest_user = "pbx"\ndigest_password = "other"',
            'sources = ["127.0.0.1/32"]',
        ]
        for line in super()._tables(*args):
            if line.startswith("[[projects.trunks]]"):
                line = f'[[projects.trunks]]\nname = "t"\n{lists.pop(0)}'
            yield line


class StrictNode(Node):
    """Two projects that list 127.0.0.1 and nobody else; four calls may ring at a time, two of one source."""

    def _tables(self, *args: Any) -> Iterator[str]:
        for line in super()._tables(*args):
            yield line.replace("127.0.0.0/8", "127.0.0.1/32").replace(
                "[calls]", "[calls]\nmax_unanswered_per_source = 2"
            )


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with GuardedNode(tmp_path_factory.mktemp("guarded"), seats=4) as running:
        yield running


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One project, whose key is the operator's."""
    with StrictNode(tmp_path_factory.mktemp("alone"), seats=1) as running:
        yield running


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with StrictNode(tmp_path_factory.mktemp("strict"), seats=2) as running:
        yield running


@contextlib.asynccontextmanager
async def at(node: Node, local: str, transport: str = "udp") -> AsyncIterator[Trunk]:
    async with Trunk(node.sip[transport], transport, local=local) as trunk:
        yield trunk


def seat(node: Node, number: int) -> str:
    return node.seats[number].project


async def ask(
    trunk: Trunk, user: str, *, method: str = "INVITE", extra: str = "", timeout: float = 15.0
) -> SipText:
    """Send one request and return its first final answer; acknowledge that."""
    request = write(PLAIN, trunk, user)
    if method != "INVITE":
        head = request.partition("\r\n\r\n")[0].replace("INVITE", method)
        request = re.sub(r"Content-Length: \d+", "Content-Length: 0", head) + "\r\n\r\n"
    request = request.replace("Max-Forwards", f"{extra}Max-Forwards", 1)
    call_id = re.search(r"Call-ID: (\S+)", request)[1]  # type: ignore[index]
    trunk.send(request)
    answer = await trunk.expect(
        "SIP/2.0", timeout, where=lambda one: one.one("Call-ID") == call_id and one.status >= 180
    )
    if method == "INVITE" and answer.status >= 300:
        head = request.partition("\r\n\r\n")[0]
        ack = re.sub(r"CSeq: (\d+) INVITE", r"CSeq: \1 ACK", head.replace("INVITE sip:", "ACK sip:", 1))
        ack = re.sub(r"To: .*", f"To: {answer.one('To')}", ack)
        trunk.send(re.sub(r"Content-Length: \d+", "Content-Length: 0", ack) + "\r\n\r\n")
    return answer


def credentials(asked: SipText, user: str, password: str, *, pick: int = 0, uri: str = "sip:x") -> str:
    challenge = find_challenge(401, lambda name: asked.all(name)[pick:])
    assert challenge is not None
    value = authorization(
        challenge, user=user, password=password, method=asked.method, uri=uri, cnonce="0a4f113b"
    )
    return f"Authorization: {value}\r\n"


async def refused(node: Node, number: int = 0) -> dict[str, dict[str, Any]]:
    body = await node.get(node.seats[number], "/realtime/refused_sources")
    return {entry["address"]: entry for entry in body["data"]}


def told_of(node: Node, address: str) -> list[dict[str, Any]]:
    """Return what the log says of a source that was refused."""
    return [entry for entry in node.log("sip.source.refused") if entry.get("source") == address]


def without_salt(answer: SipText) -> list[str]:
    """Return all of an answer that is the same for two requests of one kind."""
    kept = [answer.start] + [
        f"{name}: {value}"
        for name, value in answer.headers
        if name.lower() not in ("via", "from", "to", "call-id", "cseq")
    ]
    return [re.sub(r'nonce="[0-9a-f]+"', "nonce", line) for line in kept]


# Passwords.


@pytest.mark.parametrize("pick", [0, 1], ids=["SHA-256", "MD5"])
async def test_a_password_is_enough_for_a_trunk_without_sources(guarded: Node, pick: int) -> None:
    async with at(guarded, STRANGER) as trunk:
        asked = await ask(trunk, seat(guarded, 1))
        assert asked.status == 401
        algorithms = [re.search(r"algorithm=([^,]+)", value)[1] for value in asked.all("WWW-Authenticate")]  # type: ignore[index]
        assert algorithms == ["SHA-256", "MD5"]
        right = credentials(asked, "edge", "s3cret", pick=pick)
        # Nobody has taken this project's seat: 480, which only a call can get.
        assert (await ask(trunk, seat(guarded, 1), extra=right)).status in (180, 480)


async def test_what_is_wrong_with_an_answer(guarded: Node) -> None:
    async with at(guarded, "127.0.0.4") as trunk:
        asked = await ask(trunk, seat(guarded, 1))
        for user, password in (("edge", "wrong"), ("nobody", "s3cret"), ("pbx", "other")):
            again = await ask(trunk, seat(guarded, 1), extra=credentials(asked, user, password))
            assert again.status == 401
            assert "stale" not in again.all("WWW-Authenticate")[0]
        # The right password for a project that the trunk is not of, and for one that does not exist: one answer.
        answers = []
        for user in (seat(guarded, 0), "nobody"):
            asked = await ask(trunk, user)
            answers.append(await ask(trunk, user, extra=credentials(asked, "edge", "s3cret")))
        assert [answer.status for answer in answers] == [404, 404]
        # A second use of one answer is a replay.
        replayed = await ask(trunk, "nobody", extra=credentials(asked, "edge", "s3cret"))
        assert replayed.status == 401
        assert "stale=true" in replayed.all("WWW-Authenticate")[0]
    await until(lambda: "wrong_credentials" in [line["reason"] for line in told_of(guarded, "127.0.0.4")])


async def test_a_trunk_with_sources_and_a_password_wants_both(guarded: Node) -> None:
    async with at(guarded, "127.0.0.3") as listed, at(guarded, "127.0.0.5") as stranger:
        asked = await ask(listed, seat(guarded, 2))
        assert asked.status == 401
        assert (await ask(listed, seat(guarded, 2), extra=credentials(asked, "edge", "s3cret"))).status == 404
        asked = await ask(listed, seat(guarded, 2))
        right = credentials(asked, "pbx", "other")
        assert (await ask(listed, seat(guarded, 2), extra=right)).status in (180, 480)
        asked = await ask(stranger, seat(guarded, 2))
        assert (await ask(stranger, seat(guarded, 2), extra=credentials(asked, "pbx", "other"))).status == 401
        # Its address is enough for a sign of life.
        assert (await ask(listed, "ping", method="OPTIONS")).status == 200


async def test_strangers_hear_the_same_whatever_they_call(guarded: Node) -> None:
    async with at(guarded, "127.0.0.6") as stranger:
        users = ["100", "nobody", *(seat(guarded, number) for number in range(3))]
        answers = [without_salt(await ask(stranger, user)) for user in users]
        assert all(answer == answers[0] for answer in answers)
        assert answers[0][0].startswith("SIP/2.0 401")
        assert (await ask(stranger, "100", method="OPTIONS")).status == 401
        # Nothing else is theirs to ask, and what cannot be read is not explained to them.
        count = len(stranger.seen)
        for method in ("REGISTER", "SUBSCRIBE", "MESSAGE", "BYE", "CANCEL", "ACK", "REFER", "NOTIFY"):
            with pytest.raises(AssertionError):
                await ask(stranger, "100", method=method, timeout=0.1)
        stranger.send(write(PLAIN, stranger, "100").replace("CSeq: ", "CSeq: x"))
        await asyncio.sleep(0.1)
        assert len(stranger.seen) == count


async def test_a_stranger_that_sends_too_much_is_not_answered_and_comes_back(guarded: Node) -> None:
    async with at(guarded, "127.0.0.7") as flood, at(guarded, "127.0.0.1") as listed:
        for number in range(300):
            flood.send(write(PLAIN, flood, str(number)))
            if number % 30 == 29:  # more at once than the socket holds would be lost before the node sees it
                await asyncio.sleep(0.02)
        started = time.monotonic()
        assert (await ask(listed, "ping", method="OPTIONS")).status == 200
        assert time.monotonic() - started < 5
        await asyncio.sleep(1)
        assert 30 <= len(flood.seen) <= 80
        assert (await ask(flood, "100")).status == 401
    wanted = ("too_many_requests", 100)
    await until(lambda: wanted in [(line["reason"], line["count"]) for line in told_of(guarded, "127.0.0.7")])


async def test_strangers_get_few_connections_and_the_others_theirs(guarded: Node) -> None:
    async with contextlib.AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(at(guarded, "127.0.0.8", "tcp")) for _ in range(15)]
        await opened[14].wait_closed()
        await until(lambda: sum(one.closed for one in opened) >= 5)
        await asyncio.sleep(0.1)
        assert sum(not one.closed for one in opened) == 10
        assert (await ask(opened[0], "100")).status == 401
        mine = await stack.enter_async_context(at(guarded, "127.0.0.1", "tcp"))
        assert (await ask(mine, "ping", method="OPTIONS")).status == 200
    async with at(guarded, "127.0.0.8", "tcp") as again:
        assert (await ask(again, "100")).status == 401


async def test_the_phone_answers_a_challenge(guarded: Node) -> None:
    host, port = guarded.sip["udp"]
    uri = SipUri.parse(f"sip:{seat(guarded, 1)}@{host}:{port};transport=udp")
    told: list[dict[str, Any]] = []

    def report(kind: str, **fields: Any) -> None:
        told.append({"kind": kind, **fields})

    # The phone's address is listed for another project; here the password decides.
    for credentials_, status, said in (
        (None, 401, "--user and --password"),
        (("edge", "wrong"), 401, "its user or password is not"),
        (("edge", "s3cret"), 480, ""),
    ):
        plan = CallPlan(uri=uri, credentials=credentials_, max_s=8)
        outcome = await CliPhone(plan, report).call()
        assert outcome.status == status
        assert said in outcome.cause
    # Without those that were sent again.
    sent = dict.fromkeys(one["message"] for one in told if one.get("title", "").startswith("INVITE "))
    asked_first = [message for message in sent if "CSeq: 1 INVITE" in message]
    answered = [message for message in sent if "CSeq: 2 INVITE" in message]
    assert (len(asked_first), len(answered)) == (3, 2)
    # What is traced shows that there was an answer, and not the answer.
    assert all("Authorization: (redacted)" in message for message in answered)
    assert not any("Authorization" in message for message in asked_first)


# Addresses.


async def test_a_listed_source_hears_404_for_all_that_is_not_its_own(strict: Node) -> None:
    async with at(strict, "127.0.0.1") as trunk:
        answers = [await ask(trunk, user) for user in ("100", "101", "proj_none")]
    assert {answer.status for answer in answers} == {404}
    entry = (await refused(strict))["127.0.0.1"]
    assert entry["reason"] == "unknown_project"
    assert entry["called"] == "proj_none"
    assert 'numbers = ["proj_none"]' in entry["remedy"]
    async with at(strict, "127.0.0.1") as trunk:
        # Carriers that take no user part call a host alone.
        trunk.send(write(PLAIN, trunk, "nobody").replace("INVITE sip:nobody@", "INVITE sip:", 1))
        await trunk.expect("SIP/2.0 404")
    assert 'hosts = ["' in (await refused(strict))["127.0.0.1"]["remedy"]


async def test_a_stranger_is_one_entry_that_names_its_line(alone: Node) -> None:
    began = time.time()
    async with at(alone, "127.0.0.9") as scanner:
        for number in range(100):
            scanner.send(write(PLAIN, scanner, str(number)))
        async with asyncio.timeout(PATIENCE_S):
            while (await refused(alone)).get("127.0.0.9", {}).get("count") != 100:
                await asyncio.sleep(0.02)
        assert not scanner.seen
    entry = (await refused(alone))["127.0.0.9"]
    assert (entry["count"], entry["reason"]) == (100, "not_listed")
    assert began - 1 < entry["first_at"] <= entry["last_at"] < time.time() + 1
    assert entry["remedy"] == '[[projects.trunks]] sources = ["127.0.0.9/32"]'
    await until(lambda: told_of(alone, "127.0.0.9")[-1:] and told_of(alone, "127.0.0.9")[-1]["count"] == 100)
    assert [line["count"] for line in told_of(alone, "127.0.0.9")] == [1, 10, 100]


async def test_with_several_projects_no_key_opens_the_operators_list(strict: Node) -> None:
    async with at(strict, "127.0.0.11") as scanner, at(strict, "127.0.0.1") as listed:
        scanner.send(write(PLAIN, scanner, "100"))
        assert (await ask(listed, "100")).status == 404
    await until(lambda: told_of(strict, "127.0.0.11"))
    assert ["127.0.0.11/32" in line["text"] for line in told_of(strict, "127.0.0.11")] == [True]
    for number in range(2):
        assert set(await refused(strict, number)) == {"127.0.0.1"}  # which both of them list


async def test_the_command_shows_it(alone: Node) -> None:
    async with at(alone, "127.0.0.10") as scanner:
        scanner.send(write(PLAIN, scanner, "100"))
        async with asyncio.timeout(PATIENCE_S):
            while "127.0.0.10" not in await refused(alone):
                await asyncio.sleep(0.02)
    from typer.testing import CliRunner

    from offhook.cli.main import app

    url = alone.base_url.removesuffix("/v1")
    options = ["calls", "--refused", "--url", url, "--key", alone.seats[0].api_key]
    shown = await asyncio.to_thread(CliRunner().invoke, app, options)
    assert shown.exit_code == 0, shown.output
    assert "127.0.0.10  once, " in shown.output
    assert 'to admit it: [[projects.trunks]] sources = ["127.0.0.10/32"]' in shown.output


async def test_refused_sources_need_a_key(strict: Node) -> None:
    async with httpx2.AsyncClient() as client:
        response = await client.get(f"{strict.base_url}/realtime/refused_sources")
    assert response.status_code == 401


# Limits.


async def test_a_source_whose_calls_hang_gets_503_and_the_rest_go_on(
    strict: Node, ringing: DeveloperApp
) -> None:
    async with at(strict, "127.0.0.1") as trunk:
        first = [await ask(trunk, ringing.seat.project) for _ in range(2)]
        assert [answer.status for answer in first] == [180, 180]
        third = await ask(trunk, ringing.seat.project)
        assert third.status == 503
        assert 1 <= int(third.one("Retry-After")) <= 5
        # They ring out, and there is room again.
        await trunk.expect("SIP/2.0 480", 8, where=lambda one: one.one("Call-ID") == first[1].one("Call-ID"))
        assert (await ask(trunk, ringing.seat.project)).status == 180


@pytest.fixture
async def ringing(strict: Node) -> AsyncIterator[DeveloperApp]:
    """An app that is told of calls and accepts none."""
    async with DeveloperApp(strict) as app:
        yield app


async def test_sizes_have_limits(guarded: Node) -> None:
    async with at(guarded, "127.0.0.1") as trunk:
        for extra, status in (
            ("X-Long: " + "y" * 9_000 + "\r\n", 400),
            ("X: y\r\n" * 300, 400),
            ("Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx\r\n" * 60, 400),
        ):
            assert (await ask(trunk, "100", extra=extra)).status == status
        assert (await ask(trunk, "ping", method="OPTIONS")).status == 200
    async with at(guarded, "127.0.0.1", "tcp") as stream:
        stream.send("OPTIONS sip:x SIP/2.0\r\nX: " + "y" * 70_000)
        await stream.wait_closed()


def test_a_log_line_holds_no_password(guarded: Node) -> None:
    text = Path(guarded.log_path).read_text()
    assert "s3cret" not in text
    assert all(json.loads(line) for line in text.splitlines())
