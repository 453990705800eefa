"""Calls whose packets are kept because their project says so: what tshark reads, with and without keys."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from offhook.cli.main import app as command
from testbed import DeveloperApp, Node, Phone
from testbed.invites import PLAIN, sdp_of, with_body, write
from testbed.rtp import Rtp
from testbed.script import SCRIPT
from testbed.sdes import LENGTHS, Sdes
from testbed.trunk import Trunk, establish, hung_up
from testbed.waiting import until

OFF, RTP, RTP_TOO, KEYS, LATER = range(5)
"Seats; each serves one test."
SUITE = "AES_CM_128_HMAC_SHA1_80"
REDACTED = "(redacted)"


@pytest.fixture(scope="module")
def keeping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    rtp = 'capture = "rtp"'
    lines = {RTP: rtp, RTP_TOO: rtp, KEYS: 'capture = "rtp+keys"', LATER: 'capture = "off"'}
    with Node(tmp_path_factory.mktemp("packets"), script=SCRIPT, seats=5, seat_lines=lines) as node:
        yield node


@pytest.fixture
async def caller(keeping: Node) -> AsyncIterator[Phone]:
    async with Phone(keeping) as ready:
        yield ready


def files(node: Node, call_id: str) -> list[Path]:
    return sorted((node.data_dir / "captures").glob(f"{call_id}*"))


async def get(node: Node, number: int, call_id: str, query: str = "") -> httpx2.Response:
    headers = {"Authorization": f"Bearer {node.seats[number].api_key}"}
    async with httpx2.AsyncClient(timeout=30, headers=headers) as client:
        return await client.get(f"{node.base_url}/realtime/calls/{call_id}/pcap{query}")


async def talk(app: DeveloperApp, caller: Phone) -> tuple[str, int, int]:
    """Have a short call; return its id and both media ports."""
    call = await caller.dial(app.seat.project)
    call_id = (await app.incoming()).call_id
    await app.accept(call_id)
    answer = await call.answered()
    call.speak(600)
    await call.hears_sound(200)
    call.hang_up()
    assert call.port is not None
    ours = re.search(rb"m=audio (\d+)", answer.body)
    assert ours
    return call_id, int(ours[1]), call.port.port


async def media_said(app: DeveloperApp, call_id: str, until_said: str) -> list[dict[str, Any]]:
    """Return the media entries of a call, once there is one that says this."""
    found: list[dict[str, Any]] = []

    async def said() -> bool:
        found[:] = [e for e in await app.node.timeline(app.seat, call_id) if e["kind"] == "media"]
        return any(until_said in e["title"] for e in found)

    async with asyncio.timeout(20):
        while not await said():
            await asyncio.sleep(0.05)
    return found


async def dissect(path: Path, *fields: str, only: str = "frame") -> list[list[str]]:
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not here to read the capture: `.ci/run` installs it")
    names = [word for field in fields for word in ("-e", field)]
    read = await asyncio.to_thread(
        subprocess.run,
        ["tshark", "-r", str(path), "-Y", only, "-T", "fields", *names],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert read.returncode == 0, read.stderr
    return [line.split("\t") for line in read.stdout.splitlines()]


async def test_wireshark_reads_the_sound_of_both_sides(keeping: Node, caller: Phone, tmp_path: Path) -> None:
    async with DeveloperApp(keeping, keeping.seats[RTP]) as app:
        call_id, ours, theirs = await talk(app, caller)
        titles = [entry["title"] for entry in await media_said(app, call_id, "packets kept")]
        assert "this call's packets are kept: RTP and RTCP as on the wire" in titles
        last = re.fullmatch(r"(\d+) packets kept, 0 lost", titles[-1])
        assert last
        (kept,) = files(keeping, call_id)
        assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        asked = ["--url", keeping.base_url.removesuffix("/v1"), "--key", app.seat.api_key]
        pcap = tmp_path / "call.pcap"
        pcap.touch(0o644)
        explained = await asyncio.to_thread(
            CliRunner().invoke, command, ["explain", call_id, *asked, "--pcap", str(pcap), "--rtp"]
        )
        assert explained.exit_code == 0, explained.output
        assert "Not in this file: keys of SRTP and TLS" in explained.stderr
        assert pcap.stat().st_mode & 0o777 == 0o600
        # By the SDP in the same file, as Wireshark does it: nobody tells tshark which ports have RTP.
        sound = await dissect(pcap, "udp.srcport", "udp.dstport", "rtp.seq", "rtp.p_type", only="rtp")
        to_us = [line for line in sound if line[:2] == [str(theirs), str(ours)]]
        from_us = [line for line in sound if line[:2] == [str(ours), str(theirs)]]
        assert len(to_us) + len(from_us) == len(sound)
        for side in (to_us, from_us):
            assert len(side) >= 20
            numbers = [int(line[2]) for line in side]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            assert {line[3] for line in side} == {"0"}
        reports = await dissect(pcap, "udp.srcport", "udp.dstport", only="rtcp")
        assert [str(ours + 1), str(theirs + 1)] in reports
        assert int(last[1]) == len(sound) + len(reports)
        order = await dissect(pcap, "frame.time_epoch", "sip.Method", "udp.checksum.status")
        times = [float(line[0]) for line in order]
        assert times == sorted(times)
        methods = [line[1] for line in order]
        assert methods.index("INVITE") < methods.index("ACK") < len(order) // 2 < methods.index("BYE")


async def test_without_the_choice_nothing_is_kept(keeping: Node, caller: Phone) -> None:
    async with DeveloperApp(keeping, keeping.seats[OFF]) as app:
        call_id, *_ = await talk(app, caller)
        await media_said(app, call_id, "")
        assert not files(keeping, call_id)
        for name in ("rtp", "keys"):
            refused = await get(keeping, OFF, call_id, f"?{name}=true")
            error = refused.json()["error"]
            assert (refused.status_code, error["code"], error["param"]) == (409, "not_recorded", name)
            assert 'capture = "rtp' in error["message"]
        assert (await get(keeping, OFF, call_id)).status_code == 200


async def test_what_is_kept_is_shown_to_its_project_alone(keeping: Node, caller: Phone) -> None:
    async with DeveloperApp(keeping, keeping.seats[RTP_TOO]) as app:
        call_id, *_ = await talk(app, caller)
        await media_said(app, call_id, "packets kept")
        for query in ("?rtp=true", "?keys=true", ""):
            assert (await get(keeping, KEYS, call_id, query)).status_code == 404
        assert (await get(keeping, RTP_TOO, call_id, "?rtp=true")).status_code == 200
        assert (await get(keeping, RTP_TOO, call_id, "?rtp=true&keys=true")).json()["error"][
            "param"
        ] == "keys"
        assert (await get(keeping, RTP_TOO, call_id, "?rtp=perhaps")).status_code == 400
        plain = await get(keeping, RTP_TOO, call_id)
        assert "RTP and RTCP (kept and given by choice only)" in plain.headers["x-offhook-not-included"]
        assert len(plain.content) < 20_000
        admin = {"Authorization": f"Bearer {(keeping.data_dir / 'admin_key').read_text().strip()}"}
        async with httpx2.AsyncClient(timeout=30, headers=admin) as client:
            url = f"{keeping.base_url.removesuffix('/v1')}/admin/api/calls/{call_id}/pcap?rtp=true"
            assert len((await client.get(url)).content) > 20_000


async def test_the_keys_of_srtp_are_given_only_when_asked_for(keeping: Node, tmp_path: Path) -> None:
    """What is kept is as it was on the wire, encrypted; with the keys beside it, it can be opened."""
    own = Sdes(SUITE, bytes(range(sum(LENGTHS[SUITE]))))
    async with (
        DeveloperApp(keeping, keeping.seats[KEYS]) as app,
        Trunk(keeping.sip["udp"], "udp") as trunk,
        Rtp() as rtp,
    ):
        invite = write(PLAIN, trunk, app.seat.project, rtp=rtp.port)
        sdp = sdp_of(invite).replace("RTP/AVP", "RTP/SAVP")
        call, call_id = await establish(
            trunk, app, with_body(invite, "application/sdp", sdp + own.crypto(1, ""))
        )
        assert call.ok is not None
        answered = re.search(r"inline:(\S+)", call.ok.body)
        assert answered
        for _ in range(25):
            rtp.send_raw(own.protect(rtp.packet(b"\x55" * 160), 0), call.media)
            await asyncio.sleep(0.02)
        await until(lambda: len(rtp.came) > 5)
        await hung_up(call, app, call_id)
        await media_said(app, call_id, "packets kept")
        secrets = (base64.b64encode(own.key).decode(), answered[1])
        for query in ("", "?rtp=true"):
            body = (await get(keeping, KEYS, call_id, query)).content
            assert not any(secret.encode() in body for secret in secrets)
        opened = (await get(keeping, KEYS, call_id, "?rtp=true&keys=true")).content
        assert all(secret.encode() in opened for secret in secrets)
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in files(keeping, call_id))
        shown = json.dumps(await keeping.timeline(app.seat, call_id)) + keeping.log_path.read_text()
        assert not any(secret in shown for secret in secrets)
        pcap = tmp_path / "keys.pcap"
        pcap.write_bytes(opened)
        described = await dissect(pcap, "sip.Method", "sdp.media_attr", "_ws.expert", only="sdp")
        assert [line[0] for line in described] == ["INVITE", ""]
        for line, secret in zip(described, secrets, strict=True):
            assert f"inline:{secret}" in line[1]
            assert "Malformed" not in line[2]
        sound = await dissect(pcap, "udp.dstport", "udp.payload", only=f"udp.port == {rtp.port} && rtp")
        for port, key in ((call.media[1], own), (rtp.port, Sdes(SUITE, base64.b64decode(answered[1])))):
            packets = [bytes.fromhex(line[1]) for line in sound if line[0] == str(port)]
            assert len(packets) > 5
            for packet in packets:
                assert len(key.unprotect(packet)) == 12 + 160


async def test_a_choice_made_while_the_node_runs_counts_for_the_next_call(
    keeping: Node, caller: Phone
) -> None:
    async with DeveloperApp(keeping, keeping.seats[LATER]) as app:
        before, *_ = await talk(app, caller)
        keeping.config.write_text(keeping.config.read_text().replace('capture = "off"', 'capture = "rtp"'))
        keeping.signal(signal.SIGHUP)
        await keeping.logged("node.reloaded")
        after, *_ = await talk(app, caller)
        await media_said(app, after, "packets kept")
        assert (bool(files(keeping, before)), bool(files(keeping, after))) == (False, True)


async def test_a_call_by_ipv6_is_kept(tmp_path: Path) -> None:
    with Node(
        tmp_path, script=SCRIPT, seat_lines={0: 'capture = "rtp"'}, listen=("udp:[::1]:0",), media_bind="::1"
    ) as node:
        async with DeveloperApp(node) as app, Phone(node, "udp6") as phone:
            call_id, ours, theirs = await talk(app, phone)
            await media_said(app, call_id, "packets kept")
            pcap = tmp_path / "six.pcap"
            pcap.write_bytes((await get(node, 0, call_id, "?rtp=true")).content)
            sound = await dissect(pcap, "ipv6.src", "ipv6.dst", "udp.dstport", only="rtp")
            assert {tuple(line) for line in sound} == {("::1", "::1", str(ours)), ("::1", "::1", str(theirs))}


async def test_what_a_killed_node_has_written_can_be_read(tmp_path: Path) -> None:
    with Node(tmp_path, script=SCRIPT, seat_lines={0: 'capture = "rtp"'}) as node:
        async with DeveloperApp(node) as app:
            async with Phone(node) as phone:
                call = await phone.dial(app.seat.project)
                call_id = (await app.incoming()).call_id
                await app.accept(call_id)
                await call.answered()
                await until(lambda: any(path.stat().st_size > 20_000 for path in files(node, call_id)))
                node.kill()
            with files(node, call_id)[0].open("ab") as kept:
                kept.write(bytes(16)[:9])  # a record that was cut off in its header
            node.start_again()
            pcap = tmp_path / "cut.pcap"
            headers = {"Authorization": f"Bearer {app.seat.api_key}"}
            async with httpx2.AsyncClient(timeout=30, headers=headers) as client:
                read = await client.get(f"{node.base_url}/realtime/calls/{call_id}/pcap?rtp=true")
            assert read.status_code == 200, read.text
            pcap.write_bytes(read.content)
            assert len(await dissect(pcap, "rtp.seq", only="rtp")) >= 50
