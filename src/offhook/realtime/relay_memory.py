"""What an upstream was told and said, so that another one can be told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["RelayMemory"]

MAX_ITEMS = 4000


class RelayMemory:
    """The conversation of a relayed call, by the upstream's own item ids."""

    def __init__(self) -> None:
        self._items: dict[str, dict[str, Any]] = {}

    def receive(self, event: Mapping[str, Any]) -> None:
        """Take an upstream event; those that say nothing of items are passed over."""
        match event.get("type"):
            case "conversation.item.added" | "conversation.item.created" | "conversation.item.done":
                self._keep(event.get("item"))
            case "response.output_item.done":
                self._keep(event.get("item"))
            case "conversation.item.deleted":
                self._items.pop(str(event.get("item_id")), None)
            case "conversation.item.input_audio_transcription.completed":
                self._transcribe(str(event.get("item_id")), event.get("transcript"))

    def truncate(self, item_id: str, heard_ms: int, made_ms: int) -> None:
        """Cut an item's words to about what was heard."""
        item = self._items.get(item_id)
        share = min(1.0, heard_ms / made_ms) if made_ms else 0.0
        for part in _parts(item):
            if isinstance(part.get("transcript"), str):
                part["transcript"] = part["transcript"][: int(len(part["transcript"]) * share)]

    def replay(self) -> list[dict[str, Any]]:
        """Return the items as a client may create them: words instead of sound."""
        return [item for kept in self._items.values() if (item := _replayed(kept)) is not None]

    def _keep(self, item: Any) -> None:
        if not isinstance(item, Mapping) or not isinstance(item.get("id"), str):
            return
        before = self._items.get(item["id"])
        heard = [part.get("transcript") for part in _parts(before)]
        kept = dict(item)
        kept["content"] = [dict(part) for part in item.get("content") or () if isinstance(part, Mapping)]
        for part, transcript in zip(kept["content"], heard, strict=False):
            part.pop("audio", None)
            if transcript and not part.get("transcript"):
                part["transcript"] = transcript
        self._items[item["id"]] = kept
        if len(self._items) > MAX_ITEMS:
            del self._items[next(iter(self._items))]

    def _transcribe(self, item_id: str, transcript: Any) -> None:
        for part in _parts(self._items.get(item_id)):
            if part.get("type") == "input_audio":
                part["transcript"] = transcript


def _parts(item: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return list(item.get("content") or ()) if item is not None else []


def _replayed(item: Mapping[str, Any]) -> dict[str, Any] | None:
    kind = item.get("type")
    if kind == "function_call":
        return {name: item[name] for name in ("id", "type", "call_id", "name", "arguments") if name in item}
    if kind == "function_call_output":
        return {name: item[name] for name in ("id", "type", "call_id", "output") if name in item}
    if kind != "message":
        return None
    word = "output_text" if item.get("role") == "assistant" else "input_text"
    texts = [part.get("transcript") or part.get("text") for part in _parts(item)]
    content = [{"type": word, "text": text} for text in texts if text]
    if not content:
        return None
    return {"id": item["id"], "type": "message", "role": item.get("role"), "content": content}
