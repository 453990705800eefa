"""`GET /metrics` of a running node: every metric that the reference names, who may read it, and that it counts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from testbed import DeveloperApp, Node, Phone, Sideband

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "metrics.md"
TARGET = "tel:+14155550123"


class Scrape:
    """What `/metrics` said once."""

    def __init__(self, text: str) -> None:
        self.families: dict[str, Metric] = {
            family.name: family for family in text_string_to_metric_families(text)
        }

    def value(self, sample: str, **labels: str) -> float:
        """Return the sum of the samples of this name that have these labels."""
        return sum(
            found.value
            for family in self.families.values()
            for found in family.samples
            if found.name == sample and labels.items() <= found.labels.items()
        )

    def labels(self, family: str) -> set[str]:
        return {name for sample in self.families[family].samples for name in sample.labels} - {"le"}


async def ask(node: Node, **headers: str) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=15, headers=headers) as client:
        return await client.get(node.base_url.removesuffix("/v1") + "/metrics")


async def scrape(node: Node) -> Scrape:
    answer = await ask(node)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return Scrape(answer.text)


async def until(node: Node, holds: Callable[[Scrape], Any]) -> Scrape:
    """Scrape until this is so, and return that scrape."""
    async with asyncio.timeout(60):
        while not holds(found := await scrape(node)):
            await asyncio.sleep(0.05)
    return found


def documented() -> dict[str, tuple[str, set[str]]]:
    """Return type and labels of each metric in the reference's tables, by name."""
    rows = re.findall(r"^\| `([a-z_]+)` \| (\w+) \| (.*?) \|", REFERENCE.read_text(), re.MULTILINE)
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


async def test_a_call_is_counted_from_invite_to_bye(node: Node, app: DeveloperApp, phone: Phone) -> None:
    # Calls of earlier tests may still wait for their ACK, or for sound.
    before = await until(node, lambda now: now.value("offhook_calls") == 0)
    call = await phone.dial(app.seat.project)
    call_id = (await app.incoming()).call_id
    ringing = await scrape(node)
    await app.accept(call_id)
    await call.answered()
    async with Sideband(app.client, call_id) as sideband:
        await sideband.wait_for("session.created")
        during = await scrape(node)
        call.speak()
        await call.hears_sound()
        await call.hears_silence()
        await app.client.realtime.calls.refer(call_id, target_uri=TARGET)
        await call.ended()
    after = await until(
        node, lambda now: _grew(before, now, "offhook_calls_ended_total", reason="transferred")
    )
    assert ringing.value("offhook_calls", state="ringing") == 1
    assert during.value("offhook_calls", state="active") == 1
    assert during.value("offhook_websockets", kind="sideband") == 1
    assert during.value("offhook_paced_calls") == 1
    assert after.value("offhook_websockets") == before.value("offhook_websockets")
    for name, labels in {
        "offhook_sip_requests_total": {"direction": "in", "method": "INVITE"},
        "offhook_sip_responses_total": {"direction": "out", "method": "INVITE", "class": "2xx"},
        "offhook_webhook_attempts_total": {"type": "realtime.call.incoming", "outcome": "2xx"},
        "offhook_webhook_attempt_seconds_count": {"outcome": "2xx"},
        "offhook_http_requests_total": {
            "method": "POST",
            "route": "/realtime/calls/{call_id}/accept",
            "status": "2xx",
        },
        "offhook_http_request_seconds_count": {"route": "/realtime"},
        "offhook_call_decision_seconds_count": {},
        "offhook_call_setup_seconds_count": {},
        "offhook_call_duration_seconds_count": {},
        "offhook_refer_updates_total": {"status": "completed"},
        "offhook_rtp_packets_total": {"direction": "in"},
        "offhook_call_mos_count": {"direction": "in"},
        "offhook_rtp_jitter_seconds_count": {},
    }.items():
        assert _grew(before, after, name, **labels), f"{name} {labels}"
    for response in ("100", "180", "200"):
        assert _grew(before, after, "offhook_sip_invite_response_seconds_count", response=response), response
    for stage in ("committed", "first_audio", "first_played"):
        assert _grew(before, after, "offhook_turn_seconds_count", stage=stage), stage
    assert _grew(before, after, "offhook_store_commit_seconds_count")


def _grew(before: Scrape, after: Scrape, sample: str, **labels: str) -> bool:
    return after.value(sample, **labels) > before.value(sample, **labels)


async def test_what_was_turned_away_is_counted(node: Node, app: DeveloperApp, phone: Phone) -> None:
    before = await scrape(node)
    assert (await (await phone.dial("nobody-has-this-name")).refused()).status == 404
    after = await until(node, lambda now: _grew(before, now, "offhook_sip_refused_total"))
    assert _grew(before, after, "offhook_sip_refused_total", reason="unknown_project")
    call = await phone.dial(app.seat.project)
    await app.client.realtime.calls.reject((await app.incoming()).call_id, status_code=486)
    assert (await call.refused()).status == 486
    after = await until(node, lambda now: _grew(before, now, "offhook_calls_ended_total"))
    assert _grew(before, after, "offhook_calls_ended_total", reason="rejected", sip_status="486")


async def test_every_metric_is_in_the_reference_and_no_other(node: Node) -> None:
    found = (await scrape(node)).families
    shown = {family.name + ("_total" if family.type == "counter" else "") for family in found.values()}
    assert shown == set(documented())


async def test_types_and_labels_are_as_the_reference_says(
    node: Node, app: DeveloperApp, phone: Phone
) -> None:
    call = await phone.dial(app.seat.project)
    await app.accept((await app.incoming()).call_id)
    await call.answered()
    call.hang_up()
    found = await until(node, lambda now: now.value("offhook_calls_ended_total") >= 1)
    for name, (kind, labels) in documented().items():
        family = found.families[name.removesuffix("_total") if kind == "counter" else name]
        assert family.type == kind, name
        if family.samples:
            assert found.labels(family.name) == labels, name


async def test_no_label_is_what_somebody_else_chose(node: Node, app: DeveloperApp, phone: Phone) -> None:
    async with httpx2.AsyncClient() as client:
        for path in ("/v1/realtime/calls/rtc_x_very_much_mine", "/v1/nowhere-at-all", "/nowhere-else"):
            await client.get(node.base_url.removesuffix("/v1") + path)
        await client.request("BREW", node.base_url + "/realtime/calls")
    answer = (await ask(node)).text
    for chosen in ("very_much_mine", "nowhere", "BREW", app.seat.project, app.seat.api_key):
        assert chosen not in answer


async def test_another_machines_question_needs_the_admin_key(node: Node) -> None:
    # A proxy on the same machine says for whom it asks.
    refused = await ask(node, **{"X-Forwarded-For": "203.0.113.9"})
    assert refused.status_code == 401
    assert "admin key" in refused.json()["error"]["message"]
    key = (node.data_dir / "admin_key").read_text().strip()
    with_key = {"X-Forwarded-For": "203.0.113.9", "Authorization": f"Bearer {key}"}
    assert (await ask(node, **with_key)).status_code == 200
    assert (await ask(node, **{**with_key, "Authorization": f"Bearer {key}x"})).status_code == 401


@pytest.mark.parametrize("project_key", ["sk-test-0", "x"])
async def test_a_projects_key_opens_no_metrics(node: Node, project_key: str) -> None:
    headers = {"X-Forwarded-For": "203.0.113.9", "Authorization": f"Bearer {project_key}"}
    assert (await ask(node, **headers)).status_code == 401
