"""
What `upstream_delay.py` compares with: as many clients that speak to the upstream themselves, with no phone between.

    python bench/upstream_direct.py ws://127.0.0.1:PORT/v1/realtime --calls 100 --seconds 5

Appends a marked frame every 20 ms on each connection and prints how long the upstream's first deltas were under way, in
ms. How long the appends were, the upstream says.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import random
import time

import orjson
import uvloop
import websockets
from marks import find_marks, marked, spread

FORMAT = {"format": {"type": "audio/pcmu"}}
UPDATE = {"type": "realtime", "audio": {"input": FORMAT, "output": FORMAT}}


async def speak(socket: websockets.ClientConnection, call: int) -> None:
    due, number = time.monotonic() + random.random() * 0.02, 0
    while True:
        await asyncio.sleep(due - time.monotonic())
        number += 1
        audio = base64.b64encode(marked(call, number, time.monotonic_ns())).decode("ascii")
        await socket.send('{"type":"input_audio_buffer.append","audio":"' + audio + '"}')
        due = max(due + 0.02, time.monotonic() - 0.02)


async def converse(url: str, call: int, delays: list[float]) -> None:
    async with websockets.connect(url, compression=None, proxy=None) as socket:
        await socket.send(orjson.dumps({"type": "session.update", "session": UPDATE}).decode())
        speaking = asyncio.create_task(speak(socket, call))
        told = 0
        try:
            async for frame in socket:
                event = orjson.loads(frame)
                if event["type"] != "response.output_audio.delta":
                    continue
                _, number, sent = next(find_marks(base64.b64decode(event["delta"])))
                if number != told:
                    told = number
                    delays.append((time.monotonic_ns() - sent) / 1e6)
        finally:
            speaking.cancel()


async def run(url: str, calls: int, seconds: float) -> None:
    delays: list[float] = []
    clients = [asyncio.create_task(converse(url, call, delays)) for call in range(calls)]
    await asyncio.wait(clients, timeout=seconds)
    for client in clients:
        client.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await client
    print(json.dumps(spread(delays)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("--calls", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    uvloop.run(run(arguments.url, arguments.calls, arguments.seconds))


if __name__ == "__main__":
    main()
