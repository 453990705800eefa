"""The performance: starts everything, shows the call while it happens, judges it, and clears the stage."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from offhook.audio import wav
from offhook.calls.ladder import Lane, Note, Row, printable
from offhook.cli.api import Api, ApiError
from offhook.cli.ladder import draw, header

from .processes import OnLine, Process, ended_after
from .scene import CALLER, Scene
from .site import Site
from .stage import TARGET, Stage
from .steps import Evidence, Step, check
from .story import Story, from_app, from_node, from_phone

__all__ = ["Play"]

BRAIN = (
    "The built-in brain follows rules, not the app's instructions; "
    '[engine.brain] kind = "chat_completions" with base_url and model gives it an LLM.'
)
ELSEWHERE = (
    "The voice is elsewhere: another `offhook serve`, reached over TLS with a key, as a hosted model would be. "
    "In the middle of the call it is killed, and a third one takes over with the conversation so far."
)
KILL_AFTER = 2
"The caller's turn whose answer is being heard when the upstream dies."
_KILL_AFTER_S = 0.5
_READY_S = 90.0
"The first start puts the speech model together and loads it."
_CALL_S = 90
_FETCHED_S = 5
_REFRESH_S = 0.1


class _DemoError(Exception):
    """The demo cannot go on; the message says why."""


class Play:
    """One performance on one stage."""

    def __init__(self, stage: Stage, scene: Scene, limit_s: float | None) -> None:
        self._stage = stage
        self._scene = scene
        self._limit_s = limit_s
        self._story = Story()
        self._has_phone = True
        self._evidence = Evidence(
            sentences=scene.sentences,
            name=CALLER,
            target=TARGET,
            upstreams=[site.name for site in stage.upstreams],
            decision=scene.decision,
        )
        self._console = Console(highlight=False, soft_wrap=True)
        self._width = min(max(self._console.width, 80), 100)
        logs = stage.logs
        self._server = _serve(stage.node, logs)
        self._upstreams = [_serve(site, logs) for site in stage.upstreams]
        self._app = Process(
            "app", [sys.executable, str(stage.app_file)], logs / "app.log", stage.app_environment()
        )
        self._phone = Process("phone", self._phone_command(), logs / "phone.log")
        self._explain = Process(
            "explain", self._explain_command(), logs / "explain.log", self._explain_environment()
        )

    async def perform(self) -> bool:
        """Play the whole story. Return whether every step of it happened."""
        try:
            async with self._everything():
                async with self._live():
                    await self._set_scene()
                    self._console.print(header(self._width))
                    await self._phone.start(on_stdout=self._phone_said)
                    self._evidence.phone_exit = await self._phone.wait()
                    await self._gather()
                    if self._scene.leaves_message:
                        await self._fetched()
                await self._tell_timeline()
        except (_DemoError, TimeoutError) as error:
            why = str(error) or f"it took longer than {self._limit_s:g} s"
            self._say(f"the demo ended early: {why}", "bold red")
            if not self._evidence.phone:
                self._say(f"nothing was played. Logs: {self._stage.logs}", "bold red")
                return False
        return self._verdict()

    async def listen(self) -> bool:
        """Wait for calls from elsewhere, and show them, until the time is over or the user has had enough."""
        try:
            async with self._everything(), self._live():
                await self._set_scene()
                for transport in ("udp", "tcp", "tls"):
                    self._say(f"call  {self._stage.sip_uri(transport)}", "bold green")
                self._say(f"for TLS, trust {self._stage.node.ca}")
                self._say(f"say who you are and why you call; it transfers to {TARGET}. Ctrl-C ends this.")
                self._console.print(header(self._width))
                self._has_phone = False
                await self._server.wait()
                raise _DemoError("the server ended")
        except TimeoutError:
            return True
        except _DemoError as error:
            self._say(str(error), "bold red")
            return False

    # Before and after.

    def _everything(self) -> AbstractAsyncContextManager[None]:
        return ended_after(
            self._explain, self._phone, self._app, self._server, *self._upstreams, limit_s=self._limit_s
        )

    async def _set_scene(self) -> None:
        stage = self._stage
        self._say(f"Offhook demo in {stage.folder}", "bold")
        self._say(BRAIN)
        if self._upstreams:
            self._say(ELSEWHERE)
        # An upstream makes its CA when it starts; the server that trusts it comes after.
        await asyncio.gather(*map(self._serve_upstream, stage.upstreams, self._upstreams))
        took_s = await self._start_node(self._server, self._node_said)
        await self._until(self._answers("/readyz"), self._server, 10)
        self._say(f"server ready after {took_s:.1f} s   {stage.sip_uri()}   {stage.node.url}")
        await self._app.start(on_stdout=self._app_said)
        await self._until(self._listens(stage.app_port), self._app, 20)
        self._say(f"app ready: {stage.app_file.name}, webhooks on 127.0.0.1:{stage.app_port}")

    async def _serve_upstream(self, site: Site, process: Process) -> None:
        took_s = await self._start_node(process)
        self._say(f"upstream {site.name} ready after {took_s:.1f} s   {site.https_url}/v1")

    async def _start_node(self, process: Process, on_stderr: OnLine | None = None) -> float:
        """Return how many seconds it took to be ready."""
        began = time.monotonic()
        ready = asyncio.Event()
        await process.start(on_stdout=_when("offhook ready", ready), on_stderr=on_stderr)
        await self._until(ready.wait(), process, _READY_S)
        return time.monotonic() - began

    async def _until(self, happened: Any, process: Process, limit_s: float) -> None:
        """Wait for something that a process must do; give up when it ends or takes too long."""
        waiting = asyncio.ensure_future(happened)
        ended = asyncio.ensure_future(process.wait())
        try:
            await asyncio.wait((waiting, ended), timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return
            why = (
                f"ended with status {process.returncode}"
                if ended.done()
                else f"was not ready within {limit_s:.0f} s"
            )
            raise _DemoError(
                "\n  ".join([f"the {process.name} {why}; {process.log} ends with", *process.last_lines()])
            )
        finally:
            for future in (waiting, ended):
                future.cancel()

    async def _answers(self, path: str) -> None:
        import httpx2

        async with httpx2.AsyncClient() as client:
            while True:
                try:
                    if (await client.get(self._stage.node.url + path)).status_code == 200:
                        return
                except httpx2.HTTPError:
                    pass
                await asyncio.sleep(0.1)

    async def _listens(self, port: int) -> None:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.1)
            else:
                writer.close()
                return

    def _phone_command(self) -> list[str]:
        stage = self._stage
        said = [part for sentence in self._scene.sentences for part in ("--say", sentence)]
        return [
            *(sys.executable, "-m", "offhook", "call", stage.sip_uri(), *said),
            *("--ca", str(stage.node.ca), "--record", str(stage.recording), "--max-seconds", str(_CALL_S)),
            *("--transcribe", "--model-dir", str(stage.models), "--caller", "anna", "--json"),
        ]

    def _explain_command(self) -> list[str]:
        return [sys.executable, "-m", "offhook", "explain", "last", "--url", self._stage.node.url]

    def _explain_environment(self) -> dict[str, str]:
        width = str(min(max(self._console.width, 80), 100))
        return os.environ | {"OFFHOOK_API_KEY": self._stage.node.api_key, "COLUMNS": width}

    # What they say.

    def _phone_said(self, line: str, at: float) -> None:
        if (event := _json(line)) is not None:
            self._evidence.phone.append(event)
            self._story.add(from_phone(event))
            if self._upstreams and event["event"] == "answer" and event["turn"] == KILL_AFTER:
                asyncio.get_running_loop().call_later(_KILL_AFTER_S, self._kill_upstream)

    def _kill_upstream(self) -> None:
        voice = self._upstreams[0]
        voice.kill()
        text = f"kill -9 {voice.pid}, which was upstream {voice.name}"
        self._story.add([Note(time.time(), Lane.OFFHOOK, text, "bold red")])

    def _node_said(self, line: str, at: float) -> None:
        if (entry := _json(line)) is not None:
            self._story.add(from_node(entry, sip=not self._has_phone))

    def _app_said(self, line: str, at: float) -> None:
        what, brace, rest = line.partition(" {")
        if brace and (details := _json("{" + rest)) is not None:
            self._evidence.app.append((what, details))
            self._story.add(from_app(line, at))

    @asynccontextmanager
    async def _live(self) -> AsyncIterator[None]:
        async def show() -> None:
            while True:
                self._draw(self._story.take(time.time()))
                await asyncio.sleep(_REFRESH_S)

        showing = asyncio.create_task(show())
        try:
            yield
        finally:
            showing.cancel()
            self._draw(self._story.take(time.time(), everything=True))

    def _draw(self, rows: list[Row]) -> None:
        for line in draw(rows, self._width):
            self._console.print(line)

    def _say(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style=style))

    # The judgement.

    async def _gather(self) -> None:
        """Ask the API what it knows of the call, while the server is still there."""
        api = Api(self._stage.node.url, self._stage.node.api_key)
        for _ in range(20):  # the end reaches the record a moment after the phone's 200 to BYE
            try:
                calls = await asyncio.to_thread(api.calls, 1)
                if not calls:
                    return
                call_id = str(calls[0]["id"])
                self._evidence.call = await asyncio.to_thread(api.call, call_id)
                self._evidence.timeline = await asyncio.to_thread(api.timeline, call_id)
            except ApiError as error:
                self._say(f"the server was asked about the call: {error}", "bold red")
                return
            if self._evidence.call.get("termination"):
                return
            await asyncio.sleep(0.1)

    async def _fetched(self) -> None:
        """Give the webhook that tells of the recording, and the app that fetches it, a moment."""
        for _ in range(_FETCHED_S * 10):
            if self._evidence.did("message recorded"):
                return
            await asyncio.sleep(0.1)

    async def _tell_timeline(self) -> None:
        """Show what the server itself tells of the call, with the command that a user would ask it by."""
        if not self._upstreams or not self._evidence.call:
            return
        self._say(f"\noffhook explain {self._evidence.call['id']}", "bold")
        await self._explain.start(on_stdout=lambda line, at: self._say(line))
        await self._explain.wait()

    def _verdict(self) -> bool:
        try:
            samples, _ = wav.read(self._stage.recording.read_bytes())
            self._evidence.recording = samples
        except (OSError, wav.WavError):
            pass
        steps = check(self._evidence)
        self._console.print()
        self._console.print(_table(steps, self._width), soft_wrap=False, width=self._width)
        ok = all(step.ok for step in steps)
        if ok:
            to = "" if self._scene.leaves_message else f" to {TARGET}"
            self._say(f"{self._scene.outcome}{to}", "bold green")
        else:
            failed = ", ".join(step.name for step in steps if not step.ok)
            self._say(f"not everything happened: {failed}. Logs: {self._stage.logs}", "bold red")
        if self._evidence.recording is not None:
            self._say(f"recording (left: caller, right: agent): {self._stage.recording}")
        for message in self._evidence.did("message recorded"):
            self._say(f"the message, as the node recorded it: {message.get('file')}")
        return ok


def _table(steps: list[Step], width: int) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(width=4)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for step in steps:
        mark = Text("ok", "bold green") if step.ok else Text("NO", "bold red")
        table.add_row(mark, Text(step.name), Text(printable(step.detail), "dim"))
    return table


def _serve(site: Site, logs: Path) -> Process:
    command = [sys.executable, "-m", "offhook", "serve", "--config", str(site.config)]
    return Process(site.name, command, logs / f"{site.name}.log")


def _when(start: str, event: asyncio.Event) -> Callable[[str, float], None]:
    def on_line(line: str, at: float) -> None:
        if line.startswith(start):
            event.set()

    return on_line


def _json(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
