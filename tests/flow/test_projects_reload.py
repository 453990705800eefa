"""SIGHUP reads projects, keys, trunks and webhooks again; a faulty configuration changes nothing."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx2

from testbed import DeveloperApp, Node, Phone
from testbed.script import SCRIPT


async def status_of(node: Node, key: str) -> int:
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}) as client:
        return (await client.get(f"{node.base_url}/realtime/calls")).status_code


async def test_what_changed_counts_from_now_on_and_calls_go_on(tmp_path: Path) -> None:
    with Node(tmp_path, script=SCRIPT, seats=2) as node:
        async with DeveloperApp(node) as app, Phone(node) as phone:
            call = await phone.dial(app.seat.project)
            call_id = (await app.incoming()).call_id
            await app.accept(call_id)
            await call.answered()

            text = node.config.read_text()
            other = node.seats[1]
            changed = text.replace(f'id = "{other.project}"', 'id = "proj_new"')
            changed = changed.replace(f'["{other.api_key}"]', '["sk-rotated"]')
            changed = changed.replace("ring_timeout_s = 4.0", "ring_timeout_s = 5.0")
            node.config.write_text(changed)
            assert await status_of(node, other.api_key) == 200
            assert (await (await phone.dial("proj_new")).refused()).status == 404
            node.signal(signal.SIGHUP)
            line = await node.logged("node.reloaded")
            assert "restart: calls" in line["text"]

            assert await status_of(node, other.api_key) == 401
            assert await status_of(node, "sk-rotated") == 200
            renamed = await phone.dial("proj_new")
            await renamed.rings()
            assert (await (await phone.dial(other.project)).refused()).status == 404
            assert call.alive
            await app.client.realtime.calls.hangup(call_id)
            await call.ended()


async def test_a_faulty_configuration_leaves_the_old_one(tmp_path: Path) -> None:
    with Node(tmp_path, script=SCRIPT) as node:
        async with DeveloperApp(node) as app, Phone(node) as phone:
            text = node.config.read_text()
            faults = {
                "not TOML [": "",
                text.replace("sources", "sorces"): "sorces",
                text + f'\n[[projects]]\nid = "p2"\napi_keys = ["{app.seat.api_key}"]\n': "repeats a key",
                text + '\n[[projects]]\nid = "p3"\npassthrough = "nobody"\n': "nobody",
            }
            for count, (faulty, said) in enumerate(faults.items(), start=1):
                node.config.write_text(faulty)
                node.signal(signal.SIGHUP)
                line = await node.logged("node.reload.refused", count=count)
                assert said in line["text"]
                assert "\n" not in line["text"]
                assert "the old one stays" in line["text"]
            node.config.unlink()
            node.signal(signal.SIGHUP)
            assert "no such file" in (await node.logged("node.reload.refused", count=5))["text"]
            call = await phone.dial(app.seat.project)
            await app.accept((await app.incoming()).call_id)
            await call.answered()
