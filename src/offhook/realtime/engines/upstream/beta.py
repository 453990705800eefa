"""
The Realtime API before its general availability, which Azure's older form still speaks (rows G21 and G22).

Events go up as that form knows them and come down as the GA form has them, so nobody else need know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["BetaDialect"]

Event = dict[str, Any]

_FORMATS = {"audio/pcm": "pcm16", "audio/pcmu": "g711_ulaw", "audio/pcma": "g711_alaw"}
_GA_FORMATS: dict[str, Event] = {
    "pcm16": {"type": "audio/pcm", "rate": 24000},
    "g711_ulaw": {"type": "audio/pcmu"},
    "g711_alaw": {"type": "audio/pcma"},
}
_INPUT = {
    "format": "input_audio_format",
    "transcription": "input_audio_transcription",
    "noise_reduction": "input_audio_noise_reduction",
    "turn_detection": "turn_detection",
}
_OUTPUT = {"format": "output_audio_format", "voice": "voice", "speed": "speed"}
_EVENTS = {
    "response.audio.delta": "response.output_audio.delta",
    "response.audio.done": "response.output_audio.done",
    "response.audio_transcript.delta": "response.output_audio_transcript.delta",
    "response.audio_transcript.done": "response.output_audio_transcript.done",
    "response.text.delta": "response.output_text.delta",
    "response.text.done": "response.output_text.done",
}
_PARTS = {"output_text": "text", "output_audio": "audio"}
_GA_PARTS = {beta: ga for ga, beta in _PARTS.items()}
MAX_OPEN = 512


class BetaDialect:
    """One connection's translation. Stateful: what the older form leaves out must be remembered."""

    def __init__(self) -> None:
        self._open: dict[str, Any] = {}
        "Items that were created and are not done, with what came before each."
        self._names: dict[str, Any] = {}
        "The function that each item calls."

    def up(self, event: Mapping[str, Any]) -> Event:
        """Return a client event as the older form takes it."""
        match event.get("type"):
            case "session.update" if isinstance(event.get("session"), Mapping):
                return {**event, "session": _flat(event["session"])}
            case "response.create" if isinstance(event.get("response"), Mapping):
                return {**event, "response": _flat(event["response"])}
            case "conversation.item.create":
                return {**event, "item": _renamed_parts(event.get("item"), _PARTS)}
            case _:
                return dict(event)

    def down(self, event: Event) -> list[Event]:
        """Return a server event as the GA form has it, which may take two."""
        kind = event["type"]
        if ga := _EVENTS.get(kind):
            return [event | {"type": ga}]
        match kind:
            case "session.created" | "session.updated":
                return [event | {"session": _nested(event.get("session"))}]
            case "conversation.item.created":
                return self._created(event)
            case "response.created" | "response.done":
                return [event | {"response": _response(event.get("response"))}]
            case "response.output_item.added" | "response.output_item.done":
                return self._output_item(event)
            case "conversation.item.retrieved":
                return [event | {"item": _renamed_parts(event.get("item"), _GA_PARTS)}]
            case "response.function_call_arguments.done":
                return [{"name": self._names.get(str(event.get("item_id")), ""), **event}]
            case "conversation.item.input_audio_transcription.completed":
                # Required since (row V05); the older form does not count it.
                return [{"usage": {"type": "duration", "seconds": 0.0}, **event}]
            case _:
                return [event]

    def _created(self, event: Event) -> list[Event]:
        """An item that is being made is done with its output item; any other is done at once (rows O02, O03)."""
        item = _renamed_parts(event.get("item"), _GA_PARTS)
        added = event | {"type": "conversation.item.added", "item": item}
        if isinstance(item, Mapping) and item.get("status") == "in_progress":
            _remember(self._open, str(item.get("id")), event.get("previous_item_id"))
            return [added]
        return [added, _done(event, item, event.get("previous_item_id"))]

    def _output_item(self, event: Event) -> list[Event]:
        item = _renamed_parts(event.get("item"), _GA_PARTS)
        translated = event | {"item": item}
        item_id = str(item.get("id")) if isinstance(item, Mapping) else ""
        if event["type"] == "response.output_item.added":
            if isinstance(item, Mapping) and item.get("type") == "function_call":
                _remember(self._names, item_id, item.get("name"))
            return [translated]
        if item_id not in self._open:
            return [translated]
        return [_done(event, item, self._open.pop(item_id)), translated]


def _done(event: Event, item: Any, previous: Any) -> Event:
    return {
        "type": "conversation.item.done",
        "event_id": f"{event.get('event_id')}_done",
        "previous_item_id": previous,
        "item": item,
    }


def _flat(given: Mapping[str, Any]) -> Event:
    """Return a session, or a response's parameters, without the objects that the GA form put around its fields."""
    flat: Event = {}
    for name, value in given.items():
        match name:
            case "type" | "object":
                pass
            case "truncation" | "parallel_tool_calls" if value in ("auto", True):
                pass  # A GA upstream's default, on its way from one that was lost.
            case "output_modalities":
                flat["modalities"] = ["text", "audio"] if value == ["audio"] else value
            case "max_output_tokens":
                flat["max_response_output_tokens"] = value
            case "audio" if isinstance(value, Mapping):
                flat |= _flat_audio(value)
            case "input" if isinstance(value, list):
                flat["input"] = [_renamed_parts(item, _PARTS) for item in value]
            case _:
                flat[name] = value
    return flat


def _flat_audio(audio: Mapping[str, Any]) -> Event:
    flat: Event = {}
    for side, names in (("input", _INPUT), ("output", _OUTPUT)):
        part = audio.get(side)
        if not isinstance(part, Mapping):
            continue
        flat |= {names.get(str(name), str(name)): value for name, value in part.items() if name != "format"}
        if isinstance(given := part.get("format"), Mapping):
            flat[names["format"]] = _FORMATS.get(str(given.get("type")), given)
    return flat


def _nested(session: Any) -> Any:
    """Return a session as the GA form describes it."""
    if not isinstance(session, Mapping):
        return session
    moved = {*_INPUT.values(), *_OUTPUT.values(), "modalities", "max_response_output_tokens", "temperature"}
    nested: Event = {"type": "realtime"}
    nested |= {name: value for name, value in session.items() if name not in moved}
    if "modalities" in session:
        nested["output_modalities"] = _modalities(session["modalities"])
    if "max_response_output_tokens" in session:
        nested["max_output_tokens"] = session["max_response_output_tokens"]
    nested["audio"] = {"input": _side(session, _INPUT), "output": _side(session, _OUTPUT)}
    return nested


def _side(session: Mapping[str, Any], names: Mapping[str, str]) -> Event:
    side = {name: session[beta] for name, beta in names.items() if beta in session}
    if "format" in side:
        side["format"] = _GA_FORMATS.get(str(side["format"]), side["format"])
    return side


def _response(response: Any) -> Any:
    if not isinstance(response, Mapping):
        return response
    translated = {name: value for name, value in response.items() if name not in _OUTPUT.values()}
    if "modalities" in translated:
        translated["output_modalities"] = _modalities(translated.pop("modalities"))
    if output := _side(response, _OUTPUT):
        translated["audio"] = {"output": output}
    if isinstance(items := response.get("output"), list):
        translated["output"] = [_renamed_parts(item, _GA_PARTS) for item in items]
    return translated


def _modalities(modalities: Any) -> Any:
    return ["audio"] if isinstance(modalities, list) and "audio" in modalities else modalities


def _renamed_parts(item: Any, names: Mapping[str, str]) -> Any:
    """Return an item whose content has the other form's names. What a user said is called alike in both."""
    if not isinstance(item, Mapping) or not isinstance(content := item.get("content"), list):
        return item
    parts = [
        {**part, "type": names.get(str(part.get("type")), part.get("type"))}
        if isinstance(part, Mapping)
        else part
        for part in content
    ]
    return {**item, "content": parts}


def _remember(known: dict[str, Any], item_id: str, value: Any) -> None:
    known[item_id] = value
    if len(known) > MAX_OPEN:
        del known[next(iter(known))]
