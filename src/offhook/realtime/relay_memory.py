"""What an upstream was told and said, so that another one can be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from offhook.realtime.relay_weight import weigh

__all__ = ["RelayMemory"]

MAX_ITEMS = 4000
HEAVY = 10_000
"Characters. Few items have so many: pictures, and what tools return."
MAX_HEAVY = 16_000_000
"Characters of all such items; then the oldest of them go."
MAX_ROOTED = 64
_WORDS = {
    "response.output_audio_transcript.delta",
    "response.output_audio_transcript.done",
    "response.output_text.delta",
    "response.output_text.done",
}


@dataclass(slots=True)
class _Said:
    """An item's words and sound as they are made, before the item itself says them."""

    words: dict[str, str] = field(default_factory=dict)
    "By the index of the part."
    made_ms: float = 0.0
    heard_ms: float | None = None
    "Where its sound was cut; `None`: nowhere."


class RelayMemory:
    """
    The conversation of a relayed call, by the upstream's own item ids and in its order.

    Words are kept whole and cut when they are replayed: how much of an item's sound was heard may be known before
    its words are.
    """

    def __init__(self) -> None:
        self._items: dict[str, dict[str, Any]] = {}
        self._said: dict[str, _Said] = {}
        self._heavy: dict[str, int] = {}
        self._rooted: list[Mapping[str, Any]] = []
        "Items that the app puts first."

    def receive(self, event: Mapping[str, Any]) -> None:
        """Take an upstream event; those that say nothing of items are passed over."""
        kind, item_id = event.get("type"), str(event.get("item_id"))
        match kind:
            case "conversation.item.added" | "conversation.item.created" | "conversation.item.done":
                self._keep(event.get("item"), event.get("previous_item_id"))
            case "response.output_item.done":
                # Those of a response outside of the conversation are not part of it (row E15).
                if isinstance(item := event.get("item"), Mapping) and str(item.get("id")) in self._items:
                    self._keep(item, None)
            case "conversation.item.deleted":
                self._forget(item_id)
            case "conversation.item.truncated":
                if isinstance(heard_ms := event.get("audio_end_ms"), int | float):
                    self.truncate(item_id, heard_ms)
            case "conversation.item.input_audio_transcription.completed":
                self._transcribe(item_id, event.get("transcript"))
            case str() if kind in _WORDS:
                self._say(item_id, event)

    def ask(self, event: Mapping[str, Any]) -> None:
        """Take a client event that goes up. What comes down does not tell an item put first from one put last."""
        rooted = event.get("type") == "conversation.item.create" and event.get("previous_item_id") == "root"
        if rooted and isinstance(item := event.get("item"), Mapping):
            self._rooted = [*self._rooted, item][-MAX_ROOTED:]

    def sound(self, item_id: str, made_ms: float) -> None:
        """So much more of an item's sound was made, whether it is played or not."""
        self._saying(item_id).made_ms += made_ms

    def truncate(self, item_id: str, heard_ms: float) -> None:
        """No more of an item than this was heard."""
        said = self._saying(item_id)
        said.heard_ms = heard_ms if said.heard_ms is None else min(heard_ms, said.heard_ms)

    def replay(self, item_id: str | None = None, sound: bytes = b"") -> list[dict[str, Any]]:
        """
        Return the items as a client may create them: words instead of sound.

        A call of a tool goes along when it was complete, and its output with it. For the item `item_id`, if it has
        no words, its `sound` goes: `audio` of its part is then bytes, as the line carries them.
        """
        heard = _sounding(item_id, sound) if item_id is not None and sound else None
        items = []
        for known in self._items:
            item = self._replayed(known)
            if known == item_id:
                item, heard = item or heard, None
            if item is not None:
                items.append(item)
        if heard is not None:
            items.append(heard)
        calls = {item["call_id"] for item in items if item["type"] == "function_call"}
        return [
            item for item in items if item["type"] != "function_call_output" or item.get("call_id") in calls
        ]

    def _keep(self, item: Any, previous: Any) -> None:
        if not isinstance(item, Mapping) or not isinstance(item.get("id"), str):
            return
        told = dict(item)
        content = item.get("content")
        parts = content if isinstance(content, list) else []
        told["content"] = [
            {name: value for name, value in part.items() if name != "audio"}
            for part in parts
            if isinstance(part, Mapping)
        ]
        before = self._items.get(item["id"])
        if before is None:
            self._insert(told, previous)
        else:
            for part, earlier in zip(told["content"], before["content"], strict=False):
                if earlier.get("transcript") and not part.get("transcript"):
                    part["transcript"] = earlier["transcript"]
            self._items[item["id"]] = told
        self._weigh(item["id"], told)

    def _weigh(self, item_id: str, item: Mapping[str, Any]) -> None:
        if (weight := weigh(item)) < HEAVY:
            return
        self._heavy[item_id] = weight
        while sum(self._heavy.values()) > MAX_HEAVY:
            self._forget(next(iter(self._heavy)))

    def _forget(self, item_id: str) -> None:
        self._items.pop(item_id, None)
        self._heavy.pop(item_id, None)

    def _insert(self, item: dict[str, Any], previous: Any) -> None:
        place = len(self._items)
        if isinstance(previous, str) and previous in self._items:
            place = list(self._items).index(previous) + 1
        elif previous == "root" or (previous is None and self._is_rooted(item)):
            place = 0
        if place == len(self._items):
            self._items[item["id"]] = item
        else:
            order = list(self._items.items())
            order.insert(place, (item["id"], item))
            self._items = dict(order)
        if len(self._items) > MAX_ITEMS:
            self._forget(next(iter(self._items)))

    def _is_rooted(self, item: Mapping[str, Any]) -> bool:
        for given in self._rooted:
            names = ("id",) if "id" in given else ("type", "role", "call_id")
            if all(given.get(name) == item.get(name) for name in names):
                self._rooted.remove(given)
                return True
        return False

    def _say(self, item_id: str, event: Mapping[str, Any]) -> None:
        words, place = self._saying(item_id).words, str(event.get("content_index"))
        if isinstance(delta := event.get("delta"), str):
            words[place] = words.get(place, "") + delta
        for name in ("transcript", "text"):
            if isinstance(whole := event.get(name), str):
                words[place] = whole

    def _saying(self, item_id: str) -> _Said:
        said = self._said.get(item_id)
        if said is None:
            said = self._said[item_id] = _Said()
            if len(self._said) > MAX_ITEMS:
                del self._said[next(iter(self._said))]
        return said

    def _transcribe(self, item_id: str, transcript: Any) -> None:
        for part in self._items[item_id]["content"] if item_id in self._items else ():
            if part.get("type") == "input_audio":
                part["transcript"] = transcript

    def _replayed(self, item_id: str) -> dict[str, Any] | None:
        item = self._items[item_id]
        kind = str(item.get("type"))
        if kind in _REPLAYED:
            return _replayed_call(item, kind)
        if kind != "message":
            return None
        said = self._said.get(item_id) or _Said()
        content = _spoken(item, said) if item.get("role") == "assistant" else _given(item)
        if not content:
            return None
        return {"id": item_id, "type": "message", "role": item.get("role"), "content": content}


def _sounding(item_id: str, sound: bytes) -> dict[str, Any]:
    content = [{"type": "input_audio", "audio": sound}]
    return {"id": item_id, "type": "message", "role": "user", "content": content}


_REPLAYED = {
    "function_call": ("id", "type", "call_id", "name", "arguments"),
    "function_call_output": ("id", "type", "call_id", "output"),
    "mcp_call": ("id", "type", "server_label", "name", "arguments", "output", "error", "approval_request_id"),
}
"The fields of each kind of item that a client may create as it was."


def _replayed_call(item: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    """A call that was cut off in its arguments would be half a call."""
    if kind == "function_call" and item.get("status", "completed") != "completed":
        return None
    if item.get("output" if kind == "mcp_call" else "call_id") is None:
        return None
    return {name: item[name] for name in _REPLAYED[kind] if item.get(name) is not None}


def _spoken(item: Mapping[str, Any], said: _Said) -> list[dict[str, Any]]:
    texts = [part.get("transcript") or part.get("text") for part in item["content"]]
    if not any(texts):
        texts = list(said.words.values())
    heard = [_heard(said, text) for text in texts if isinstance(text, str)]
    return [{"type": "output_text", "text": text} for text in heard if text]


def _given(item: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was put into the conversation: words, and pictures where the upstream shows them."""
    content: list[dict[str, Any]] = []
    for part in item["content"]:
        if part.get("type") == "input_image" and part.get("image_url"):
            content.append(part)
        elif isinstance(text := part.get("transcript") or part.get("text"), str) and text:
            content.append({"type": "input_text", "text": text})
    return content


def _heard(said: _Said, text: str) -> str:
    """Return about the words that were heard, whole ones."""
    if said.heard_ms is None or 0 < said.made_ms <= said.heard_ms:
        return text
    if not said.made_ms:
        return ""
    cut = text[: int(len(text) * said.heard_ms / said.made_ms) + 1]
    return cut[: cut.rfind(" ")].rstrip() if " " in cut else ""
