"""What clients ask of the conversation's items (API rows E15, E18 to E22)."""

from __future__ import annotations

from typing import Any

from offhook.realtime import client_events as client
from offhook.realtime import server_events as events
from offhook.realtime.conversation import AUDIO_HELD_S, Conversation, Item
from offhook.realtime.engine import AudioFormat
from offhook.realtime.items import DecodedAudio, ItemReference, create_item
from offhook.realtime.outbox import Outbox, RetrievedItem
from offhook.realtime.session_config import AudioConfig
from offhook.realtime.sideband_audio import bytes_per_ms, convert, sample_bytes
from offhook.realtime.validation import RequestError

__all__ = ["ItemRequests"]

MAX_RETRIEVALS, MAX_RETRIEVED_S = 1000, 8 * AUDIO_HELD_S
"Items, and seconds of sound, that wait to be encoded: eight clients may each ask for all that there is, not for more."


class ItemRequests:
    """
    Changes the conversation and tells of it; raises `RequestError` for what cannot be done.

    `audio` is what clients send and get, `audio_format` what items hold their sound in.
    """

    def __init__(self, conversation: Conversation, outbox: Outbox) -> None:
        self._conversation = conversation
        self._outbox = outbox
        self._retrieving: list[RetrievedItem] = []

    def create(self, event: client.ItemCreate, audio: AudioConfig, audio_format: AudioFormat) -> Item:
        item = self._make(event.item, audio, audio_format, "item")
        previous = self._conversation.insert(item, event.previous_item_id)
        self._conversation.forget_audio()
        self._outbox.event(events.item_added(item.to_api(), previous))
        self._outbox.event(events.item_done(item.to_api(), previous))
        return item

    def delete(self, event: client.ItemDelete) -> Item:
        item = self._find(event.item_id, "deleting", "item_delete_invalid_item_id")
        self._conversation.delete(item.id)
        self._outbox.event(events.item_deleted(item.id))
        return item

    def retrieve(self, event: client.ItemRetrieve, audio: AudioConfig, audio_format: AudioFormat) -> None:
        item = self._find(event.item_id, "retrieving", "item_retrieve_invalid_item_id")
        if not item.audio:
            self._outbox.event(events.item_retrieved(item.to_api()))
            return
        waiting = self._retrieving = [one for one in self._retrieving if one.waiting]
        most = MAX_RETRIEVED_S * 1000 * bytes_per_ms(audio_format)
        if len(waiting) >= MAX_RETRIEVALS or sum(one.waiting for one in waiting) >= most:
            message = "Too much audio is being retrieved: wait for conversation.item.retrieved before asking for more."
            raise RequestError("rate_limit_exceeded", message, kind="rate_limit_error")
        target = audio.output.format.type if item.role == "assistant" else audio.input.format.type
        retrieved = RetrievedItem(self._outbox.new_id("event"), item, audio_format, target)
        waiting.append(retrieved)
        self._outbox.put(retrieved)

    def truncate(self, event: client.ItemTruncate) -> None:
        item = self._find(event.item_id, "truncating", "item_truncate_invalid_item_id")
        index = item.audio_index
        if item.role != "assistant" or index is None:
            raise RequestError(
                "invalid_value", "Only an assistant message's audio can be truncated.", "item_id"
            )
        if event.content_index != index:
            message = f"Invalid value for 'content_index': the item's audio is at {index}."
            raise RequestError("invalid_value", message, "content_index")
        # Where the server has cut already, its own boundary stands (row E21); nothing gets longer.
        if (
            self._conversation.rules.strict_truncation
            and event.audio_end_ms > item.audio_ms
            and _is_whole(item)
        ):
            message = (
                f"Audio content of {round(item.audio_ms)}ms is already shorter than {event.audio_end_ms}ms"
            )
            raise RequestError("invalid_value", message, "audio_end_ms")
        if event.audio_end_ms < item.audio_ms:
            self._conversation.truncate(item, event.audio_end_ms)
        self._outbox.event(events.item_truncated(item.id, index, min(event.audio_end_ms, int(item.audio_ms))))

    def context(
        self, params: client.ResponseParams | None, audio: AudioConfig, audio_format: AudioFormat
    ) -> list[Item] | None:
        """Return the context that a response brings with it; `None`: it has the conversation's."""
        if params is None or params.input is None:
            return None
        context = []
        for index, given in enumerate(params.input):
            if isinstance(given, ItemReference):
                item = self._conversation.get(given.id)
                if item is None:
                    param = f"response.input[{index}].id"
                    raise RequestError(
                        "invalid_value", f"The item with id '{given.id}' does not exist.", param
                    )
            else:
                item = self._make(given, audio, audio_format, f"response.input[{index}]")
                # Nobody is told of it, and its words are asked for by its id.
                item.id = self._outbox.new_id("item")
            context.append(item)
        return context

    def _make(self, given: Any, audio: AudioConfig, audio_format: AudioFormat, param: str) -> Item:
        """`param` is where the item stands in the client's event."""
        source = audio.input.format.type

        def decode(text: str | DecodedAudio, place: str) -> bytes | bytearray:
            if isinstance(text, DecodedAudio):
                same = text.format == audio_format
                return text.audio if same else convert(bytes(text.audio), text.format, audio_format)
            given_audio = client.decode_audio(text, f"{param}.{place}", sample_bytes(source), None)
            return convert(given_audio, source, audio_format)

        return create_item(given, given.id or self._outbox.new_id("item"), decode, bytes_per_ms(audio_format))

    def _find(self, item_id: str, doing: str, code: str) -> Item:
        item = self._conversation.get(item_id)
        if item is None:
            message = f"Error {doing} item: the item with id '{item_id}' does not exist."
            raise RequestError(code, message, "item_id")
        return item


def _is_whole(item: Item) -> bool:
    return not item.truncated and item.status != "in_progress"
