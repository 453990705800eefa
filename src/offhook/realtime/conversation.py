"""The conversation of a session: its items in order, the audio they hold, and their truncation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from offhook.realtime.validation import RequestError

__all__ = ["Conversation", "ConversationRules", "Item", "Line", "as_engine_gets"]

MAX_ITEMS = 4000
AUDIO_HELD_S = 120
"How much audio all items of one conversation hold together; the oldest is forgotten first."


CHARACTER_MS = 65
"About how long a spoken character takes; for words whose audio was not all made when they were cut."


@dataclass(frozen=True, slots=True)
class ConversationRules:
    """What a node has set for the conversations of an engine of its own."""

    strict_truncation: bool = False
    "Whether a truncation past the end of an item's sound is an error; else it is cut there (row E21)."
    context_tokens: int | None = None
    "What the engine takes in at a time, its answer included; `None`: there is no bound (row G16)."


@dataclass(slots=True)
class Line:
    """Words of an item and where their sound is in it."""

    text: str
    start_ms: float
    length_ms: float = 0.0
    complete: bool = False
    "Whether all their sound was made."


@dataclass(slots=True, eq=False)
class Item:
    """One item. `content` holds API parts without their audio, which is kept apart as bytes."""

    id: str
    type: str
    status: str = "completed"
    role: str = ""
    content: list[dict[str, Any]] = field(default_factory=list)
    name: str = ""
    call_id: str = ""
    arguments: str = ""
    output: str = ""
    audio: bytearray = field(default_factory=bytearray)
    "The sound of the one audio part, in the session's audio format."
    audio_ms: float = 0.0
    "How long the audio is, also after `audio` was forgotten."
    lines: list[Line] = field(default_factory=list)
    "An assistant's words against its audio, for truncation."
    truncated: bool = False
    left_out: bool = False
    "Whether engines get it no more, since the conversation became too long."

    @property
    def audio_index(self) -> int | None:
        """Which content part is audio."""
        for index, part in enumerate(self.content):
            if part["type"] in ("input_audio", "output_audio"):
                return index
        return None

    @property
    def transcript(self) -> str | None:
        index = self.audio_index
        text = self.content[index].get("transcript") if index is not None else None
        return text if isinstance(text, str) else None

    @transcript.setter
    def transcript(self, text: str | None) -> None:
        index = self.audio_index
        if index is not None:
            self.content[index]["transcript"] = text

    @property
    def needs_words(self) -> bool:
        """Whether it is a user's sound that nobody has put into words."""
        return self.role == "user" and bool(self.audio) and not self.transcript

    def add_speech(self, text: str, audio: bytes, bytes_per_ms: int) -> None:
        """Add words, sound or both at the end; sound belongs to the words before it."""
        if text:
            self.end_speech()
            self.lines.append(Line(text, self.audio_ms))
        length_ms = len(audio) / bytes_per_ms
        self.audio += audio
        self.audio_ms += length_ms
        if self.lines:
            self.lines[-1].length_ms += length_ms
        self.transcript = (self.transcript or "") + text

    def end_speech(self) -> None:
        """The sound of the words so far is complete."""
        if self.lines:
            self.lines[-1].complete = True

    def heard_text(self, heard_ms: float) -> str:
        """Return the words whose sound ended before `heard_ms`; a word that was cut in half was not heard."""
        heard = ""
        for line in self.lines:
            length = line.length_ms if line.complete else max(line.length_ms, len(line.text) * CHARACTER_MS)
            share = (heard_ms - line.start_ms) / length if length else 1.0
            if share < 1:
                heard += _whole_words(line.text, max(share, 0.0))
                break
            heard += line.text
        return heard.strip()

    def to_api(self) -> dict[str, Any]:
        """Return the API's item, without its audio."""
        api: dict[str, Any] = {
            "id": self.id,
            "object": "realtime.item",
            "type": self.type,
            "status": self.status,
        }
        if self.type == "message":
            api["role"] = self.role
            api["content"] = [dict(part) for part in self.content]
        elif self.type == "function_call":
            api |= {"name": self.name, "call_id": self.call_id, "arguments": self.arguments}
        else:
            api |= {"call_id": self.call_id, "output": self.output}
        return api


class Conversation:
    """Items in order. The session emits the events; this only keeps the truth."""

    def __init__(
        self, conversation_id: str, *, bytes_per_ms: int, rules: ConversationRules | None = None
    ) -> None:
        self.id = conversation_id
        self.rules = rules or ConversationRules()
        self._items: dict[str, Item] = {}
        self._order: list[str] = []
        self._reserved: set[str] = set()
        self._bytes_per_ms = bytes_per_ms

    def use_format(self, bytes_per_ms: int) -> None:
        """Another audio format; only while no item has sound."""
        self._bytes_per_ms = bytes_per_ms

    def __iter__(self) -> Iterator[Item]:
        return (self._items[item_id] for item_id in self._order)

    def newest_first(self) -> Iterator[Item]:
        return (self._items[item_id] for item_id in reversed(self._order))

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._items

    def __len__(self) -> int:
        return len(self._order)

    @property
    def last_id(self) -> str | None:
        return self._order[-1] if self._order else None

    def get(self, item_id: str) -> Item | None:
        return self._items.get(item_id)

    def reserve(self, item_id: str) -> None:
        """An item of the session's own has been told of, and is not whole yet: no client's may have its id."""
        self._reserved.add(item_id)

    def release(self, item_id: str) -> None:
        """It is whole, or will never be."""
        self._reserved.discard(item_id)

    def before(self, item_id: str) -> str | None:
        """Return the id before an item's; `None` too if it is not here."""
        index = self._order.index(item_id) if item_id in self._items else 0
        return self._order[index - 1] if index else None

    def insert(self, item: Item, previous_item_id: str | None = None) -> str | None:
        """
        Put a client's item behind another (`None`: at the end; `"root"`: first) and return the id before it (row E18).

        Raises `RequestError` for an id in use, an unknown `previous_item_id` or a full conversation.
        """
        if item.id in self._items or item.id in self._reserved:
            message = f"Error adding item: an item with id '{item.id}' already exists in the conversation."
            raise RequestError("item_create_duplicate_item_id", message, "item.id")
        if len(self._order) >= MAX_ITEMS:
            message = f"Error adding item: the conversation holds {MAX_ITEMS} items; delete some first."
            raise RequestError("conversation_full", message, "item")
        if previous_item_id is None:
            index = len(self._order)
        elif previous_item_id == "root":
            index = 0
        elif previous_item_id in self._items:
            index = self._order.index(previous_item_id) + 1
        else:
            message = f"Error adding item: the previous item with id '{previous_item_id}' does not exist."
            raise RequestError("item_create_invalid_previous_item_id", message, "previous_item_id")
        return self._place(item, index)

    def append(self, item: Item) -> str | None:
        """Add an item of the session's own at the end; the oldest gives way when the conversation is full."""
        while len(self._order) >= MAX_ITEMS:
            self.delete(self._order[0])
        return self._place(item, len(self._order))

    def _place(self, item: Item, index: int) -> str | None:
        self._order.insert(index, item.id)
        self._items[item.id] = item
        return self._order[index - 1] if index else None

    def delete(self, item_id: str) -> None:
        del self._items[item_id]
        self._order.remove(item_id)

    def forget_audio(self) -> None:
        """Drop the oldest items' audio beyond what a conversation may hold."""
        room = AUDIO_HELD_S * 1000 * self._bytes_per_ms
        for item_id in reversed(self._order):
            item = self._items[item_id]
            room -= len(item.audio)
            if room < 0:
                item.audio = bytearray()

    def truncate(self, item: Item, audio_end_ms: int) -> None:
        """Cut an assistant's audio and its transcript down to what was heard (row E21)."""
        item.transcript = item.heard_text(audio_end_ms)
        item.audio_ms = audio_end_ms
        del item.audio[audio_end_ms * self._bytes_per_ms :]
        item.truncated = True

    def to_engine(self) -> list[dict[str, Any]]:
        """Return the items as an engine gets them: see `as_engine_gets`; what is left out is not among them."""
        return as_engine_gets(item for item in self if not item.left_out)


def as_engine_gets(items: Iterable[Item]) -> list[dict[str, Any]]:
    """Return the items without their audio, and without what was never said."""
    return [item.to_api() for item in items if not _is_unheard(item)]


def _is_unheard(item: Item) -> bool:
    if item.type != "message" or item.role != "assistant":
        return False
    return not any(part.get("transcript") or part.get("text") for part in item.content)


def _whole_words(text: str, share: float) -> str:
    cut = int(len(text) * share)
    if cut < len(text) and not text[cut].isspace():
        cut = max(text.rfind(" ", 0, cut), 0)
    return text[:cut]
