"""
The app of the hosted service's guide to SIP, after its documented behaviour; only `BASE` and `SOCKET_BASE` differ.

A Flask route verifies the webhook, accepts the call with `requests`, opens the call's WebSocket in a thread and greets.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import requests
import websockets
from flask import Flask, Response, request
from openai import InvalidWebhookSignatureError, OpenAI

CALL_ACCEPT = {
    "type": "realtime",
    "model": "gpt-realtime",
    "instructions": "You are a support agent.",
}

GREETING = {
    "type": "response.create",
    "response": {"instructions": "Say to the user: Thank you for calling, how can I help you?"},
}


def create_app(
    base: str, socket_base: str, api_key: str, webhook_secret: str, on_event: Callable[[str], None]
) -> Flask:
    app = Flask(__name__)
    client = OpenAI(api_key=api_key, webhook_secret=webhook_secret)
    authorization = {"Authorization": f"Bearer {api_key}"}

    async def talk(call_id: str) -> None:
        url = f"{socket_base}/realtime?call_id={call_id}"
        async with websockets.connect(url, additional_headers=authorization) as socket:
            await socket.send(json.dumps(GREETING))
            async for frame in socket:
                on_event(str(frame))

    @app.post("/webhook")
    def webhook() -> Any:
        try:
            event = client.webhooks.unwrap(request.data, request.headers)  # type: ignore[arg-type]
        except InvalidWebhookSignatureError:
            return Response("Invalid signature", status=400)
        if event.type == "realtime.call.incoming":
            call_id = event.data.call_id
            accept = requests.post(
                f"{base}/realtime/calls/{call_id}/accept",
                headers={**authorization, "Content-Type": "application/json"},
                json=CALL_ACCEPT,
                timeout=30,
            )
            accept.raise_for_status()
            threading.Thread(target=lambda: asyncio.run(talk(call_id)), daemon=True).start()
        response = Response(status=200)
        response.headers["Authorization"] = authorization["Authorization"]
        return response

    return app
