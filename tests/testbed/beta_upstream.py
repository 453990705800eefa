"""
The mock upstream as it was before the API's general availability (rows G21 and G22): what Azure's older form speaks.

Tests drive it by the GA names; it says them as the older API did, and takes nothing that API had not.
"""

from __future__ import annotations

import json
from typing import Any

from testbed import upstream

__all__ = ["BetaSession"]

Event = dict[str, Any]

FIELDS = {
    *(
        "modalities",
        "instructions",
        "voice",
        "input_audio_format",
        "output_audio_format",
        "temperature",
        "speed",
    ),
    *("input_audio_transcription", "input_audio_noise_reduction", "turn_detection", "tools", "tool_choice"),
    *("max_response_output_tokens", "tracing", "model"),
}
"What `session.update` may hold."
RESPONSE_FIELDS = {
    *("modalities", "instructions", "voice", "output_audio_format", "tools", "tool_choice", "temperature"),
    *("max_response_output_tokens", "conversation", "metadata", "input"),
}
FORMATS = {"pcm16": 48_000, "g711_ulaw": 8_000, "g711_alaw": 8_000}
CONTENTS = {"user": {"input_text", "input_audio"}, "assistant": {"text"}, "system": {"input_text"}}
SAID = {"output_audio.": "audio.", "output_audio_transcript.": "audio_transcript.", "output_text.": "text."}


class BetaSession(upstream.UpstreamSession):
    """One connection to it. `session` is the flat object."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.session = {
            "id": self.id,
            "object": "realtime.session",
            "modalities": ["text", "audio"],
            "instructions": "You are a helpful assistant.",
            "voice": "alloy",
            "input_audio_format": "pcm16",
            "output_audio_format": "pcm16",
            "input_audio_transcription": None,
            "turn_detection": {"type": "server_vad", "create_response": True, "interrupt_response": True},
            "tools": [],
            "tool_choice": "auto",
            "temperature": 0.8,
            "max_response_output_tokens": "inf",
        }

    async def send(self, event_type: str, **fields: Any) -> Event:
        event = {"type": event_type, "event_id": upstream.new_id("event"), **fields}
        self.sent.append(event)
        for old in self._as_it_was(event):
            await self.send_raw(json.dumps(old))
        return event

    def _as_it_was(self, event: Event) -> list[Event]:
        kind = event["type"]
        if kind == "conversation.item.done":
            return []
        if kind == "conversation.item.added":
            return [event | {"type": "conversation.item.created", "item": _old_item(event["item"])}]
        if kind.startswith("response.output_item."):
            return [event | {"item": _old_item(event["item"])}]
        if kind == "response.function_call_arguments.done":
            return [{name: value for name, value in event.items() if name != "name"}]
        if kind == "conversation.item.input_audio_transcription.completed":
            return [{name: value for name, value in event.items() if name != "usage"}]
        if kind in ("response.created", "response.done"):
            response = dict(event["response"])
            response["modalities"] = ["text", "audio"]
            del response["output_modalities"]
            response["output"] = [_old_item(item) for item in response["output"]]
            return [event | {"response": response}]
        for new, old in SAID.items():
            if kind.startswith(f"response.{new}"):
                return [event | {"type": f"response.{old}{kind.rpartition('.')[2]}"}]
        return [event]

    async def _answer(self, event: Event) -> None:
        if event["type"] == "response.create" and (
            unknown := event.get("response", {}).keys() - RESPONSE_FIELDS
        ):
            await self._refuse(f"unknown fields of a response: {sorted(unknown)}", event.get("event_id"))
        await super()._answer(event)

    async def _update(self, event: Event) -> None:
        changes = event["session"]
        if unknown := changes.keys() - FIELDS:
            await self._refuse(f"unknown fields: {sorted(unknown)}", event.get("event_id"))
        elif (
            wrong := {changes.get(f"{side}_audio_format", "pcm16") for side in ("input", "output")}
            - FORMATS.keys()
        ):
            await self._refuse(f"unknown formats: {wrong}", event.get("event_id"))
        else:
            self.session |= changes
            await self.send("session.updated", session=self.session)

    async def _create(self, event: Event) -> None:
        item = event["item"]
        parts = {part["type"] for part in item.get("content", ())}
        if wrong := parts - CONTENTS.get(item.get("role"), set()):
            await self._refuse(f"{item.get('role')} has no parts {sorted(wrong)}", event.get("event_id"))
            return
        item = {"id": upstream.new_id("item"), "object": "realtime.item", "status": "completed"} | item
        self.items[item["id"]] = item
        await self._added(item)

    def _bytes_per_s(self) -> int:
        return FORMATS[self.session["output_audio_format"]]


def _old_item(item: Event) -> Event:
    names = {"output_text": "text", "output_audio": "audio"}
    content = [part | {"type": names.get(part["type"], part["type"])} for part in item.get("content", ())]
    return item | {"content": content} if content else item
