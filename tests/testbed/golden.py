"""
Recorded sessions: every frame both ways of a flow, held to a file in `tests/golden`.

What differs from run to run is written the same: ids become `item_1`, `resp_1` by first appearance, the server's event
ids `event_…`, points in time `<time>`, sound its length in bytes, and what a flow names because a caller's timing is in
it `<varies>`; with `audio_end_ms` so do the words of an item that was cut there. Frames that are alike and follow each
other are one line that says how `many`.

Where the API lets events come in either order (row O06), their order is made one: between two things that the test
does, transcripts come behind all else, and behind these when the phone's sound started and stopped. Each kind keeps its
own order.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import difflib
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from .protocol import Strictness, check_order, validate
from .waiting import PATIENCE_S

__all__ = ["FOLDER", "Tape", "hold"]

Event = dict[str, Any]
FOLDER = Path(__file__).parents[1] / "golden"
WRITE = "OFFHOOK_GOLDEN"
_ID = re.compile(r"\b([a-z]+)_(?:[0-9a-z]+_)?[0-9a-f]{24,32}(?:_\d+)?\b")
_TIMES = {"expires_at", "received_at"}
_LATER = ("conversation.item.input_audio_transcription.", "output_audio_buffer.st")


class Tape:
    """A WebSocket, driven step by step. Each step waits for its last event, so that no frame falls between two."""

    def __init__(self, connection: ClientConnection, *, audio: bool = False) -> None:
        self._connection = connection
        self._strictness = Strictness(audio=audio)
        self._steps: list[list[Event]] = [[]]
        self.events: list[Event] = []

    async def send(self, kind: str, **fields: Any) -> None:
        await self.send_frame(json.dumps({"type": kind, **fields}))

    async def send_frame(self, frame: str | bytes) -> None:
        """Send a frame as it is; of one that is no event, its text is kept."""
        await self._connection.send(frame)
        try:
            sent: Any = json.loads(frame) if isinstance(frame, str) else f"<{len(frame)} bytes>"
        except json.JSONDecodeError:
            sent = frame
        self._steps.append([{"client": sent}])

    def note(self, does: str) -> None:
        """Keep what somebody does who sends no frames."""
        self._steps.append([{"caller": does}])

    async def until(self, *types: str) -> Event:
        """Receive until the last of these events has come, each once, in any order. Return the last that came."""
        missing = Counter(types)
        event: Event = {}
        try:
            async with asyncio.timeout(PATIENCE_S):
                while +missing:
                    event = await self._receive()
                    missing[event["type"]] -= 1
        except TimeoutError:
            came = [event["type"] for event in self.events]
            raise AssertionError(f"no {sorted((+missing).elements())} came, but {came}") from None
        return event

    async def until_closed(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    await self._receive()
        except ConnectionClosed as closed:
            self._steps[-1].append({"closed": closed.rcvd.code if closed.rcvd else None})

    async def _receive(self) -> Event:
        frame = await self._connection.recv(decode=False)
        event = validate(frame, self._strictness)
        self.events.append(event)
        self._steps[-1].append({"server": event})
        return event

    def lines(self, varies: Collection[str] = ()) -> list[str]:
        """Return the frames as they stand in a file."""
        check_order(self.events)
        names = _Names(varies)
        written = [
            json.dumps(names.same(frame), ensure_ascii=False)
            for step in self._steps
            for frame in _in_order(step)
        ]
        return list(_counted(written))


def hold(name: str, tape: Tape, *, varies: Collection[str] = ()) -> None:
    """Compare a tape with its file, or write that with `OFFHOOK_GOLDEN=write`."""
    path, lines = FOLDER / f"{name}.jsonl", tape.lines(varies)
    if os.environ.get(WRITE) == "write":
        path.write_text("".join(f"{line}\n" for line in lines))
    known = path.read_text().splitlines() if path.exists() else []
    if known != lines:
        was, now = (
            [field for line in file for field in _spelled(json.loads(line))] for file in (known, lines)
        )
        changes = difflib.unified_diff(was, now, f"{path.name} as it was", "as it is", n=1, lineterm="")
        raise AssertionError(
            f"{name}: the frames are not those of {path.name}. If that is right, run this with {WRITE}=write.\n"
            + "\n".join(changes)
        )


def _in_order(step: list[Event]) -> list[Event]:
    def place(frame: Event) -> int:
        kind = str(frame["server"]["type"]) if "server" in frame else ""
        if "closed" in frame:
            return len(_LATER) + 1
        return next((number for number, start in enumerate(_LATER, 1) if kind.startswith(start)), 0)

    return sorted(step, key=place)


def _counted(lines: list[str]) -> Iterator[str]:
    position = 0
    while position < len(lines):
        many = 1
        while position + many < len(lines) and lines[position + many] == lines[position]:
            many += 1
        line = lines[position]
        yield line if many == 1 else line[:-1] + f', "many": {many}}}'
        position += many


def _spelled(frame: Event) -> Iterator[str]:
    """Return a frame field by field, so that a difference shows where it is."""
    ((who, what), *rest) = frame.items()
    kind = what.get("type", "") if isinstance(what, dict) else ""

    def fields(value: Any, path: str) -> Iterator[str]:
        if isinstance(value, dict | list) and value:
            inner = value.items() if isinstance(value, dict) else enumerate(value)
            for name, one in inner:
                yield from fields(one, f"{path}.{name}")
        else:
            yield f"{who} {kind} {path} = {json.dumps(value, ensure_ascii=False)}"

    yield from fields(what, "")
    yield from (f"{who} {kind} {name} = {value}" for name, value in rest)


class _Names:
    """Gives what differs from run to run the same names in each."""

    def __init__(self, varies: Collection[str]) -> None:
        self._varies = varies
        self._known: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._cut: set[str | None] = set()
        "Items whose words are those that were heard."

    def same(self, value: Any, name: str = "", kind: str = "") -> Any:
        if isinstance(value, dict):
            return self._object(value, kind)
        if isinstance(value, list):
            return [self.same(inner, name, kind) for inner in value]
        if value is None or isinstance(value, bool):
            return value
        if name in self._varies:
            return "<varies>"
        if name in _TIMES:
            return "<time>"
        if isinstance(value, str):
            if name == "audio" or (name == "delta" and kind == "response.output_audio.delta"):
                with contextlib.suppress(binascii.Error):
                    return f"<{len(base64.b64decode(value, validate=True))} bytes>"
            return _ID.sub(self._id, value)
        return value

    def _object(self, value: Event, kind: str) -> Event:
        kind = str(value.get("type", kind))
        if kind == "conversation.item.truncated" and "audio_end_ms" in self._varies:
            self._cut.add(value["item_id"])
        before = self._varies
        if {value.get("item_id"), value.get("id")} & self._cut:
            self._varies = {*before, "transcript"}
        try:
            return {key: self.same(inner, key, kind) for key, inner in value.items()}
        finally:
            self._varies = before

    def _id(self, found: re.Match[str]) -> str:
        text, prefix = found[0], found[1]
        if prefix == "event":
            return "event_…"
        if text not in self._known:
            self._counts[prefix] += 1
            self._known[text] = f"{prefix}_{self._counts[prefix]}"
        return self._known[text]
