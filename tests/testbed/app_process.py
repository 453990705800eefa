"""A developer's app in a process of its own, in the environment that its SDK was installed into."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from .node import Node, Seat
from .protocol import Strictness, check_order, validate
from .waiting import PATIENCE_S

__all__ = ["IMPORT_S", "AppProcess"]

_LINE_LIMIT = 1 << 24
IMPORT_S = 150
"What a big package may take when nothing of it has been compiled yet."


class AppProcess:
    """
    Runs a program that prints one JSON object a line, whose `what` says what happened; `lines` holds them.

    A server event of the SDK is `{"what": "event", "event": ...}`; they are in `events`. All but these and the `audio`
    that was heard is printed.
    The program finds its project's key, secret and the node's URL in the environment under the SDK's own names. Its
    webhook's socket, already listening, is the descriptor that `WEBHOOK_FD` numbers.
    """

    def __init__(
        self, node: Node, seat: Seat, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self.node, self.seat = node, seat
        self.lines: list[dict[str, Any]] = []
        self._command = command
        self._environment = {
            "WEBHOOK_FD": str(seat.socket.fileno()),
            "PATH": os.environ["PATH"],
            "OPENAI_API_KEY": seat.api_key,
            "OPENAI_BASE_URL": node.base_url,
            "OPENAI_WEBHOOK_SECRET": seat.secret,
            **(environment or {}),
        }
        self._changed = asyncio.Event()

    async def __aenter__(self) -> AppProcess:
        self.seat.socket.listen()
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._environment,
            pass_fds=(self.seat.socket.fileno(),),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_LIMIT,
        )
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reader

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if not line.endswith(b"\n"):
                break  # it was ended in the middle of a line
            told = json.loads(line)
            self.lines.append(told)
            if told["what"] not in ("event", "audio"):
                print("  app:", line.decode().strip()[:200], flush=True)
            self._wake()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [line["event"] for line in self.lines if line["what"] == "event"]

    @property
    def types(self) -> Counter[str]:
        """How many events of each type came."""
        return Counter(event["type"] for event in self.events)

    @property
    def faults(self) -> list[dict[str, Any]]:
        """What the app told under `fault`: errors, and warnings of its SDK."""
        return [line for line in self.lines if line["what"] == "fault"]

    def judge(
        self, strictness: Strictness, *, embedded: bool = False, from_start: bool = True, excused: str = ""
    ) -> None:
        """
        Nothing may have been wrong by the SDK, and no event by openai's newest types or, in each connection, by the
        rules of order.

        `embedded` is `check_order`'s. Without `from_start` the SDK begins to listen after the handshake, and loses what
        comes with its 101. `excused` is the code of the one error that may come, because the client asks for what may
        be over by then.
        """
        assert not self.faults, self.faults
        errors = [event["error"] for event in self.events if event["type"] == "error"]
        assert not [error for error in errors if error["code"] != excused], errors
        for event in self.events:
            validate(json.dumps(event).encode(), strictness)
        created = "session.created"
        lost = [] if from_start or self.events[0]["type"] == created else [{"type": created}]
        for events in _by_connection([*lost, *self.events]):
            check_order(events, embedded=embedded)

    async def ends(self) -> None:
        """Wait until the program is at its own end."""
        async with asyncio.timeout(2 * PATIENCE_S):
            await self._process.wait()
            await self._reader

    async def ask(self, what: str, **fields: Any) -> None:
        """Write a JSON line to the app's standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"what": what, **fields}).encode() + b"\n")
        await self._process.stdin.drain()

    async def told(
        self, what: str, *, after: int = 0, patience_s: float = PATIENCE_S, **fields: Any
    ) -> dict[str, Any]:
        """Wait for the app to tell this at or after index `after` of `lines`; return the line."""
        wanted = {"what": what, **fields}
        return await self._wait_for(
            lambda: next((line for line in self.lines[after:] if wanted.items() <= line.items()), None),
            lambda: f"no {wanted}; told: {[line for line in self.lines if line['what'] != 'event']}",
            patience_s,
        )

    async def event(self, event_type: str, after: int = 0) -> dict[str, Any]:
        """Wait for an event at or after index `after` of `events`."""
        return await self._wait_for(
            lambda: next((event for event in self.events[after:] if event["type"] == event_type), None),
            lambda: f"no {event_type}; came: {[event['type'] for event in self.events[after:]]}",
        )

    async def _wait_for(
        self,
        find: Callable[[], dict[str, Any] | None],
        missing: Callable[[], str],
        patience_s: float = PATIENCE_S,
    ) -> dict[str, Any]:
        try:
            async with asyncio.timeout(patience_s):
                while True:
                    changed = self._changed
                    if (found := find()) is not None:
                        return found
                    if self.faults:
                        raise AssertionError(f"the app told of {self.faults}; {missing()}")
                    if self._reader.done():
                        raise AssertionError(f"the app ended with {await self._process.wait()}; {missing()}")
                    await changed.wait()
        except TimeoutError:
            raise AssertionError(missing()) from None


def _by_connection(events: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the events of one connection after the other, each of which begins with `session.created`."""
    starts = [index for index, event in enumerate(events) if event["type"] == "session.created"]
    return [list(events[start:end]) for start, end in pairwise([0, *starts[1:], len(events)])]
