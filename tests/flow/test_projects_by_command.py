"""Projects and keys made by command: they count at once, survive SIGHUP and restarts, and are taken back at once."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from testbed import Node, Phone
from testbed.script import SCRIPT


async def offhook(node: Node, *arguments: str, code: int = 0) -> str:
    url = node.base_url.removesuffix("/v1")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "offhook", *arguments, "--url", url, "--data-dir", str(node.data_dir)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == code, out.decode()
    return out.decode()


async def offhook_json(node: Node, *arguments: str) -> Any:
    return json.loads(await offhook(node, *arguments, "--json"))


async def status_of(node: Node, key: str) -> int:
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}) as client:
        return (await client.get(f"{node.base_url}/realtime/calls")).status_code


async def endpoints_of(node: Node, key: str) -> list[str]:
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}) as client:
        answer = await client.get(f"{node.base_url}/webhook_endpoints")
        return [one["url"] for one in answer.json()["data"]]


async def called(node: Node, project: str) -> int:
    async with Phone(node) as phone:
        return (await (await phone.dial(project)).refused()).status


async def test_a_project_and_its_keys_from_first_to_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFFHOOK_WEBHOOKS__ALLOW_LOOPBACK", "true")
    with Node(tmp_path, script=SCRIPT) as node:
        assert await called(node, "proj_made") == 404
        made = await offhook_json(
            node, "projects", "create", "--id", "proj_made", "--name", "Desk", "--source", "127.0.0.0/8"
        )
        assert await status_of(node, made["key"]) == 200
        assert await called(node, "proj_made") == 480  # it is known now; nobody is subscribed to its calls
        assert "proj_made" in await offhook(node, "projects", "list")
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {made['key']}"}) as client:
            body = {"name": "app", "url": "http://127.0.0.1:9099/", "event_types": ["realtime.call.ended"]}
            answer = await client.post(f"{node.base_url}/webhook_endpoints", json=body)
            assert answer.status_code == 200, answer.text

        node.config.write_text(node.config.read_text().replace('id = "proj_0"', 'id = "proj_renamed"'))
        node.signal(signal.SIGHUP)
        await node.logged("node.reloaded")
        assert await status_of(node, made["key"]) == 200
        listed = await offhook_json(node, "projects", "list")
        assert [(one["id"], one["managed_by"]) for one in listed] == [
            ("proj_renamed", "config"),
            ("proj_made", "api"),
        ]
        second = await offhook_json(node, "keys", "create", "proj_made", "--name", "ci")
    with Node(tmp_path, script=SCRIPT) as node:
        assert await status_of(node, made["key"]) == 200
        assert await status_of(node, second["key"]) == 200
        assert await called(node, "proj_made") == 480
        await offhook(node, "keys", "revoke", "proj_made", second["id"])
        assert await status_of(node, second["key"]) == 401
        assert await status_of(node, made["key"]) == 200
        said = await offhook(node, "keys", "list", "proj_made")
        assert second["id"] in said
        assert second["key"] not in said
        assert "stands in the configuration" in await offhook(
            node, "projects", "delete", "proj_0", "--yes", code=1
        )
        assert await endpoints_of(node, made["key"]) == ["http://127.0.0.1:9099/"]
        await offhook(node, "projects", "delete", "proj_made", "--yes")
        assert await status_of(node, made["key"]) == 401
        assert await called(node, "proj_made") == 404

        # Another one of that name is another one: it inherits neither keys nor who is told of its calls.
        again = await offhook_json(node, "projects", "create", "--id", "proj_made")
        assert await endpoints_of(node, again["key"]) == []
        assert await status_of(node, made["key"]) == 401
        assert made["key"] not in node.log_path.read_text()
    kept = b"".join(file.read_bytes() for file in node.data_dir.glob("offhook.db*"))
    assert again["id"].encode() in kept
    assert not any(one["key"].encode() in kept for one in (made, second, again))


async def test_without_the_admin_key_the_remedy_is_said(tmp_path: Path) -> None:
    with Node(tmp_path, script=SCRIPT) as node:
        seat = node.seat()
        said = await offhook(node, "projects", "list", "--admin-key", seat.api_key, code=1)
        assert "admin key" in said
        (node.data_dir / "admin_key").rename(node.data_dir / "elsewhere")
        said = await offhook(node, "projects", "list", code=1)
        assert "--admin-key" in said
